"""What SCDD reads from an AnnData or a MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalObsField,
    LayerField,
    MuDataCategoricalObsField,
    MuDataLayerField,
    MuDataObsmField,
    ObsmField,
)

from sczoo.base._checks import check_categorical, check_embedding, check_obsm
from sczoo.errors import InputError, MissingKeyError, TooFewCellsError
from sczoo.model.scdd._module import EMBEDDING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

__all__ = ["DistillationSetupMixin"]


class DistillationSetupMixin:
    """``setup_anndata`` and ``setup_mudata``."""

    @classmethod
    def setup_anndata(
        cls: Any,
        adata: AnnData,
        *,
        labels_key: str | None = None,
        layer: str | None = None,
        batch_key: str | None = None,
        embedding_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``adata``.

        Parameters
        ----------
        adata
            The data. Leave out cells without a true label first.
        labels_key
            Column of ``adata.obs`` with the classes that the distilled cells are to teach.
        layer
            Layer with raw counts; ``None`` for ``adata.X``.
        batch_key
            Column of ``adata.obs`` with batches. Decoder and generator know them, the encoder
            does not, so that unseen batches are no obstacle.
        embedding_key
            Key of ``adata.obsm`` with an outside embedding, such as a foundation model's. Query
            data do not need it.
        **kwargs
            Passed to the registration when a saved model is loaded.

        Raises
        ------
        MissingKeyError
            A layer or key does not exist.
        MissingValuesError
            Labels or batches are missing for some cells.
        InputError
            The values cannot be used, or there is one class only; the message names the place
            and the remedy.
        """
        setup_locals = locals()
        is_query = "source_registry" in kwargs
        if labels_key is None and not is_query:
            raise MissingKeyError(
                "SCDD distils labelled cells: pass setup_anndata(adata, labels_key=...) with the "
                "column of adata.obs that holds the classes."
            )
        if is_query and embedding_key not in getattr(adata, "obsm", {}):
            embedding_key = None
        cls._check_setup(
            adata,
            layer=layer,
            categorical_keys=[labels_key, batch_key],
            obsm_keys=[embedding_key],
        )
        if not is_query:
            _require_classes(adata.obs[labels_key], f"adata.obs[{labels_key!r}]")
        fields: list[Any] = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
        ]
        if batch_key is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key))
        if embedding_key is not None:
            fields.append(ObsmField(EMBEDDING, embedding_key))
        cls._register(adata, fields, setup_locals, **kwargs)

    @classmethod
    def setup_mudata(
        cls: Any,
        mdata: MuData,
        *,
        labels_key: str | None = None,
        layer: str | None = None,
        batch_key: str | None = None,
        embedding_key: str | None = None,
        modalities: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``mdata``.

        Parameters
        ----------
        mdata
            The data.
        labels_key, batch_key
            Columns of ``obs`` with classes and batches, in their modality or in ``mdata.obs``.
        layer
            Layer with raw counts in its modality; ``None`` for ``X``.
        embedding_key
            Key of ``obsm`` with an outside embedding, in its modality or in ``mdata.obsm``.
            ``None`` takes the ``X`` of the modality named for it, if one is.
        modalities
            Modality of each argument: ``{"layer": "rna"}`` at least.
        **kwargs
            Passed to the registration when a saved model is loaded.

        Raises
        ------
        MissingKeyError
            A modality, layer or key does not exist.
        """
        setup_locals = locals()
        is_query = "source_registry" in kwargs
        places = cls._modalities(mdata, modalities, setup_locals)
        cls._check_setup(mdata.mod[places.layer], layer=layer)
        if labels_key is None and not is_query:
            raise MissingKeyError(
                "SCDD distils labelled cells: pass labels_key= with the column of obs that holds "
                "the classes."
            )
        fields = cls._mudata_fields(mdata, layer, places.layer)
        for name, key, modality in (
            (REGISTRY_KEYS.LABELS_KEY, labels_key, places.labels_key),
            (REGISTRY_KEYS.BATCH_KEY, batch_key, places.batch_key),
        ):
            if key is None and name == REGISTRY_KEYS.BATCH_KEY:
                continue
            holder = mdata if modality is None else mdata.mod[modality]
            if key is not None:
                check_categorical(holder, key)
                if name == REGISTRY_KEYS.LABELS_KEY and not is_query:
                    _require_classes(holder.obs[key], f"obs[{key!r}]")
            fields.append(MuDataCategoricalObsField(name, key, mod_key=modality))
        fields += _mudata_embedding(mdata, embedding_key, places.embedding_key, is_query)
        cls._register(mdata, fields, setup_locals, **kwargs)


def _mudata_embedding(
    mdata: MuData, key: str | None, modality: str | None, is_query: bool
) -> list[Any]:
    if key is None and modality is None:
        return []
    holder = mdata if modality is None else mdata.mod[modality]
    if key is None:
        check_embedding(holder.X, f"mdata.mod[{modality!r}].X", holder.obs_names)
        return [MuDataLayerField(EMBEDDING, None, mod_key=modality, is_count_data=False)]
    if key not in holder.obsm and is_query:
        return []
    check_obsm(holder, key)
    return [MuDataObsmField(EMBEDDING, key, mod_key=modality)]


def _require_classes(labels: pd.Series, where: str) -> None:
    if len(labels) < 2:
        raise TooFewCellsError(
            f"The data have {len(labels)} cell(s): nothing to distil. SCDD needs at least 2."
        )
    if labels.nunique() < 2:
        raise InputError(
            f"{where} holds {labels.nunique()} class(es): a training set needs at least two. "
            "Choose the column with the labels that a classifier is to learn."
        )
