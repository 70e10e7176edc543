"""What DPDCAN reads from an AnnData or a MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalObsField,
    LayerField,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

__all__ = ["PrivateSetupMixin"]


class PrivateSetupMixin:
    """``setup_anndata`` and ``setup_mudata``."""

    @classmethod
    def setup_anndata(
        cls: Any,
        adata: AnnData,
        *,
        layer: str | None = None,
        donor_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``adata``.

        Parameters
        ----------
        adata
            The data. ``obs["_scvi_batch"]``, ``uns["_scvi_uuid"]`` and
            ``uns["_scvi_manager_uuid"]`` are added.
        layer
            Layer with raw counts; ``None`` for ``adata.X``.
        donor_key
            Column of ``adata.obs`` that says whose cell it is. With it the guarantee is for
            donors; without it, for single cells, which does **not** protect a person who gave
            more than one.
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
        cls._check_setup(adata, layer=layer, categorical_keys=[donor_key])
        fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)]
        if donor_key is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, donor_key))
        cls._register(adata, fields, setup_locals, **kwargs)

    @classmethod
    def setup_mudata(
        cls: Any,
        mdata: MuData,
        *,
        layer: str | None = None,
        donor_key: str | None = None,
        modalities: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``mdata``.

        Parameters
        ----------
        mdata
            The data.
        layer
            Layer of the counts in their modality; ``None`` for ``X``.
        donor_key
            Column of ``obs`` with donors, in its modality or in ``mdata.obs``.
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
        places = cls._modalities(mdata, modalities, setup_locals)
        cls._check_setup(mdata.mod[places.layer], layer=layer)
        fields = cls._mudata_fields(mdata, layer, places.layer, donor_key, places.donor_key)
        cls._register(mdata, fields, setup_locals, **kwargs)
