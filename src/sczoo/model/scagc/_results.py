"""Results of SCAGC: embedding, clusters and the learned graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sczoo.base._query import earlier_record
from sczoo.base._reading import resolve_indices
from sczoo.errors import TooFewCellsError
from sczoo.model.scagc._clustering import soft_assignments
from sczoo.model.scagc._memory import GraphMemory, GraphSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import csr_matrix

__all__ = ["GraphResultsMixin", "LearnedCells"]


@dataclass(frozen=True)
class LearnedCells:
    """What training left about its own cells; never saved.

    Attributes
    ----------
    latent
        Embedding on the learned graph, cells x dimensions.
    graph, static_graph
        The learned graph and the one that it started from, cells x cells.
    history
        Jaccard of successive graphs, and share of labels that changed.
    """

    latent: np.ndarray
    graph: csr_matrix
    static_graph: csr_matrix
    history: dict[str, list[float]]

    @classmethod
    def of(cls, memory: GraphMemory) -> LearnedCells:
        """Copy what is worth keeping of the memory of a run."""
        return cls(
            latent=memory.latent.numpy().copy(),
            graph=memory.graph(),
            static_graph=memory.static_graph(),
            history={name: list(values) for name, values in memory.history.items()},
        )


class GraphResultsMixin:
    """What a trained model says about cells."""

    def _own(self, adata: Any) -> LearnedCells | None:
        """Return what training left, if `adata` are the cells that were trained on."""
        model: Any = self
        return model._learned if adata is None or adata is model.adata else None

    @torch.inference_mode()
    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the embedding of each cell.

        The cells of the training are embedded on the learned graph. All others, also after a
        saved model was loaded, attach to the anchors that are nearest to them in the principal
        components of the training cells: the result of a cell depends on no other new cell.

        Parameters
        ----------
        adata
            Cells, of the training data or new; the model's own by default. Genes are matched by
            name; genes that are missing count as unknown, not as zero.
        indices
            Cells to return, in this order. The graph is that of all cells.
        batch_size
            Cells at a time.

        Returns
        -------
        Cells x dimensions, float32.
        """
        model: Any = self
        model._require_trained()
        own = self._own(adata)
        if own is not None:
            return own.latent[resolve_indices(indices, len(own.latent))].copy()
        model.module.eval()
        parts = [
            model.module.inference(batch["X"], gene_mask=batch["gene_mask"])["z"].cpu().numpy()
            for batch in model._iter_batches(adata, indices, batch_size)
        ]
        return np.concatenate([np.zeros((0, model.module.n_latent), dtype=np.float32), *parts])

    def predict(
        self,
        adata: AnnData | MuData | None = None,
        soft: bool = False,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the cluster of each cell, or how much it belongs to each.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.
        soft
            Return Student-t assignments, which sum to one, instead of the largest.

        Returns
        -------
        Numbers of clusters, int64, or cells x clusters, float32.
        """
        model: Any = self
        z = torch.from_numpy(self.get_latent_representation(adata, indices, batch_size))
        with torch.inference_mode():
            q = soft_assignments(z, model.module.centres.detach().cpu())
        return q.numpy() if soft else q.argmax(dim=1).numpy()

    def get_cluster_assignments(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the cluster of each cell.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.

        Returns
        -------
        Numbers of clusters, int64; 0 was the largest when the centres were placed.
        """
        return self.predict(adata, indices=indices, batch_size=batch_size)

    def get_adaptive_graph(self, adata: AnnData | MuData | None = None) -> csr_matrix:
        """Return the learned graph of the training cells, or that of new cells among themselves.

        Parameters
        ----------
        adata
            The training cells by default, for which it is the graph that training settled on. For
            new cells, edges are chosen by the same rule with the frozen embedding.

        Returns
        -------
        Symmetric matrix of ones, cells x cells, in CSR with an empty diagonal: ready for
        ``adata.obsp["scagc_connectivities"]`` and ``scanpy.tl.umap(neighbors_key=...)``.

        Raises
        ------
        TooFewCellsError
            Fewer than three new cells.
        """
        model: Any = self
        model._require_trained()
        own = self._own(adata)
        if own is not None:
            return own.graph.copy()
        z = self.get_latent_representation(adata)
        if len(z) < 3:
            raise TooFewCellsError(f"{len(z)} cell(s) make no graph; at least 3 are needed.")
        module = model.module
        with torch.inference_mode():
            components = np.concatenate(
                [
                    module.components(batch["X"], batch["gene_mask"]).cpu().numpy()
                    for batch in model._iter_batches(adata)
                ]
            )
        n_neighbors = min(model._argument("n_neighbors"), len(z) - 1)
        n_candidates = model._argument("n_candidates") or len(z) - 1
        settings = GraphSettings(
            n_neighbors=n_neighbors,
            n_candidates=max(n_neighbors, min(n_candidates, len(z) - 1)),
            similarity_scale=module.similarity_scale,
            balance=model._argument("balance"),
            adaptive=model._graph == "adaptive",
        )
        memory = GraphMemory(components, 1, module.n_latent, settings)
        memory.latent = torch.from_numpy(z)
        memory.refresh_candidates()
        memory.settle()
        return memory.graph()

    def annotate(self, adata: AnnData | MuData, *, key_added: str | None = None) -> dict[str, str]:
        """Write the model's results into `adata`.

        Everything is computed before anything is written. Updates `adata` with the following
        fields, where ``key`` is `key_added` or ``"scagc"``:

        ``adata.obsm["X_<key>"]``
            The embedding.
        ``adata.obs["<key>_cluster"]``
            The cluster.
        ``adata.obs["<key>_confidence"]``
            The largest soft assignment.
        ``adata.uns["sczoo"]["<key>"]``
            Method, versions and the gene alignment.

        Returns
        -------
        The keys written and what each holds.
        """
        model: Any = self
        model._require_trained()
        key = key_added or model._method
        record = earlier_record(adata)
        alignment = model._query_alignment(model._expression(adata))
        latent = self.get_latent_representation(adata)
        with torch.inference_mode():
            centres = model.module.centres.detach().cpu()
            q = soft_assignments(torch.from_numpy(latent), centres).numpy()
        adata.obsm[f"X_{key}"] = latent
        adata.obs[f"{key}_cluster"] = pd.Categorical(q.argmax(axis=1).astype(str))
        adata.obs[f"{key}_confidence"] = q.max(axis=1)
        record[key] = {
            "method": model._method,
            "genes": alignment.as_dict(),
            "versions": dict(model.provenance_.get("versions", {})),
            "seed": model.provenance_.get("seed", -1),
        }
        adata.uns["sczoo"] = record
        return {
            f"obsm['X_{key}']": "latent representation",
            f"obs['{key}_cluster']": "cluster",
            f"obs['{key}_confidence']": "largest soft assignment",
        }
