"""What SCE2TM reads from an AnnData or a MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalObsField,
    LayerField,
    MuDataLayerField,
    MuDataObsmField,
    ObsmField,
)

from sczoo.errors import MissingKeyError
from sczoo.model.sce2tm._knowledge import KNOWLEDGE_FIELD, check_knowledge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

__all__ = ["TopicSetupMixin"]


class TopicSetupMixin:
    """``setup_anndata`` and ``setup_mudata``."""

    @classmethod
    def setup_anndata(
        cls: Any,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        knowledge_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``adata``.

        Parameters
        ----------
        adata
            The data. ``obs["_scvi_batch"]``, ``uns["_scvi_uuid"]`` and
            ``uns["_scvi_manager_uuid"]`` are added.
        layer
            Layer with counts, linear or log-normalised expression; ``None`` for ``adata.X``.
        batch_key
            Column of ``adata.obs`` whose batches get a gene-wise offset in the decoder. The
            encoder never sees it, so that unseen batches are no obstacle.
        knowledge_key
            Key of ``adata.obsm`` with outside knowledge: the embedding of any foundation model, of
            any width. Query data do not need it.
        **kwargs
            Passed to the registration when a saved model is loaded.

        Raises
        ------
        MissingKeyError
            A layer or key does not exist.
        InputError
            The values cannot be used; the message names the place and the remedy.
        """
        setup_locals = locals()
        if knowledge_key is not None and knowledge_key not in getattr(adata, "obsm", {}):
            if "source_registry" in kwargs:  # a query
                knowledge_key = None
        cls._check_setup(
            adata, layer=layer, categorical_keys=[batch_key], obsm_keys=[knowledge_key]
        )
        fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)]
        if batch_key is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key))
        if knowledge_key is not None:
            check_knowledge(adata.obsm[knowledge_key], f"adata.obsm[{knowledge_key!r}]")
            fields.append(ObsmField(KNOWLEDGE_FIELD, knowledge_key))
        cls._register(adata, fields, setup_locals, **kwargs)

    @classmethod
    def setup_mudata(
        cls: Any,
        mdata: MuData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        knowledge_key: str | None = None,
        modalities: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``mdata``.

        Parameters
        ----------
        mdata
            The data.
        layer
            Layer of the expression in its modality; ``None`` for ``X``.
        batch_key
            Column of ``obs`` with batches, in its modality or in ``mdata.obs``.
        knowledge_key
            Key of ``obsm`` with outside knowledge, in its modality or in ``mdata.obsm``. ``None``
            takes the ``X`` of the modality named for it, if one is.
        modalities
            Modality of each argument: ``{"layer": "rna"}`` at least; for example
            ``{"layer": "rna", "knowledge_key": "scgpt"}``.
        **kwargs
            Passed to the registration when a saved model is loaded.

        Raises
        ------
        MissingKeyError
            A modality, layer or key does not exist.
        """
        setup_locals = locals()
        places = cls._modalities(mdata, modalities, setup_locals)
        cls._check_setup(mdata.mod[places.layer], layer=layer)
        fields = cls._mudata_fields(mdata, layer, places.layer, batch_key, places.batch_key)
        fields += _mudata_knowledge(mdata, knowledge_key, places.knowledge_key, kwargs)
        cls._register(mdata, fields, setup_locals, **kwargs)


def _mudata_knowledge(
    mdata: MuData, key: str | None, modality: str | None, kwargs: Mapping[str, Any]
) -> list[Any]:
    """Field of the knowledge in a MuData: ``obsm`` of a modality, or a modality's ``X``."""
    is_query = "source_registry" in kwargs
    if key is None and modality is None:
        return []
    holder = mdata if modality is None else mdata.mod[modality]
    if key is None:
        where, values = f"mdata.mod[{modality!r}].X", holder.X
    elif key in holder.obsm:
        where, values = f"obsm[{key!r}]", holder.obsm[key]
    elif is_query:
        return []
    else:
        raise MissingKeyError(
            f"obsm of {modality or 'the MuData'} has no key {key!r}; it has "
            f"{sorted(map(str, holder.obsm.keys()))}."
        )
    check_knowledge(values, where)
    if key is None:
        return [MuDataLayerField(KNOWLEDGE_FIELD, None, mod_key=modality, is_count_data=False)]
    return [MuDataObsmField(KNOWLEDGE_FIELD, key, mod_key=modality)]
