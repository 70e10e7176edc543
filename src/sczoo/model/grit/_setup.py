"""What GRIT reads from an AnnData or a MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalObsField,
    LayerField,
)

from sczoo.errors import MissingKeyError
from sczoo.model.grit._graph import read_graph
from sczoo.model.grit.scorers._precomputed import read_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

__all__ = ["GRITSetupMixin"]


class GRITSetupMixin:
    """``setup_anndata`` and ``setup_mudata``."""

    @classmethod
    def setup_anndata(
        cls: Any,
        adata: AnnData,
        *,
        logits_key: str | None = None,
        layer: str | None = None,
        use_rep: str | None = None,
        batch_key: str | None = None,
        connectivities_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``adata``.

        Parameters
        ----------
        adata
            The data. ``obs["_scvi_batch"]``, ``uns["_scvi_uuid"]`` and
            ``uns["_scvi_manager_uuid"]`` are added.
        logits_key
            Key of ``adata.obsm`` with the scores of another model, logits or probabilities: a
            data frame, or an array with its class names in ``adata.uns[logits_key + "_classes"]``.
            New cells need scores of the same classes under the same key.
        layer
            Layer with counts, linear or log-normalised expression; ``None`` for ``adata.X``.
        use_rep
            Key of ``adata.obsm`` to find neighbours in, such as an integrated embedding. By
            default principal components of the expression are computed.
        batch_key
            Column of ``adata.obs`` with batches: cells get about equally many neighbours in each.
        connectivities_key
            Key of ``adata.obsp`` with a graph to use as it is, such as ``"connectivities"``.
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
        loading = "source_registry" in kwargs
        # scores and an embedding, or a graph, leave nothing to read from the expression
        given = logits_key is not None and (use_rep or connectivities_key) is not None
        scale: InputScale = "any" if given else cls._input_scale
        cls._check_setup(
            adata,
            layer=layer,
            categorical_keys=[batch_key],
            obsm_keys=[] if loading else [use_rep],
            scale=scale,
        )
        if not loading:
            _check_given(adata, logits_key, connectivities_key)
        fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)]
        if batch_key is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key))
        cls._register(adata, fields, setup_locals, **kwargs)

    @classmethod
    def setup_mudata(
        cls: Any,
        mdata: MuData,
        *,
        logits_key: str | None = None,
        layer: str | None = None,
        use_rep: str | None = None,
        batch_key: str | None = None,
        connectivities_key: str | None = None,
        modalities: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``mdata``: one modality has the expression and all else.

        Parameters
        ----------
        mdata
            The data.
        logits_key, layer, use_rep, connectivities_key
            As in :meth:`setup_anndata`, in the modality of the expression.
        batch_key
            Column of ``obs`` with batches, in its modality or in ``mdata.obs``.
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
        source = mdata.mod[places.layer]
        loading = "source_registry" in kwargs
        cls._check_setup(source, layer=layer, obsm_keys=[] if loading else [use_rep])
        if not loading:
            _check_given(source, logits_key, connectivities_key)
        fields = cls._mudata_fields(mdata, layer, places.layer, batch_key, places.batch_key)
        cls._register(mdata, fields, setup_locals, **kwargs)


def _check_given(adata: AnnData, logits_key: str | None, graph_key: str | None) -> None:
    if logits_key is not None:
        read_scores(adata, logits_key)
    if graph_key is not None:
        if not hasattr(adata, "obsp"):
            raise MissingKeyError("These data cannot hold a graph: they have no obsp.")
        read_graph(adata, graph_key)
