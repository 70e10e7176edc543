"""What SCAGC reads from an AnnData or a MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

__all__ = ["GraphSetupMixin"]


class GraphSetupMixin:
    """``setup_anndata`` and ``setup_mudata``."""

    @classmethod
    def setup_anndata(
        cls: Any, adata: AnnData, *, layer: str | None = None, **kwargs: Any
    ) -> None:
        """Declare what to read from ``adata``.

        No labels are declared: nothing in this method may see them.

        Parameters
        ----------
        adata
            The data. ``uns["_scvi_uuid"]`` and ``uns["_scvi_manager_uuid"]`` are added.
        layer
            Layer with raw counts; ``None`` for ``adata.X``.
        **kwargs
            Passed to the registration when a saved model is loaded.

        Raises
        ------
        NotCountsError
            The values are not whole numbers.
        MissingKeyError
            The layer does not exist.
        """
        setup_locals = locals()
        cls._check_setup(adata, layer=layer)
        fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)]
        cls._register(adata, fields, setup_locals, **kwargs)

    @classmethod
    def setup_mudata(
        cls: Any,
        mdata: MuData,
        *,
        layer: str | None = None,
        modalities: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``mdata``.

        Parameters
        ----------
        mdata
            The data.
        layer
            Layer of the raw counts in their modality; ``None`` for ``X``.
        modalities
            Modality of the counts: ``{"layer": "rna"}``.
        **kwargs
            Passed to the registration when a saved model is loaded.

        Raises
        ------
        MissingKeyError
            A modality or layer does not exist.
        """
        setup_locals = locals()
        places = cls._modalities(mdata, modalities, setup_locals)
        cls._check_setup(mdata.mod[places.layer], layer=layer)
        fields = cls._mudata_fields(mdata, layer, places.layer)
        cls._register(mdata, fields, setup_locals, **kwargs)
