"""The graph of the cells: built from an embedding, checked if it was given."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from sczoo.errors import InputError, MissingKeyError, NotFiniteError, TooFewCellsError

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["WeightName", "agreement", "build_graph", "check_graph", "one_hop", "read_graph"]

logger = logging.getLogger(__name__)

WeightName = Literal["umap", "binary", "gaussian", "mutual"]


def build_graph(
    embedding: np.ndarray,
    n_neighbors: int,
    *,
    weights: WeightName = "umap",
    batches: np.ndarray | None = None,
) -> sparse.csr_matrix:
    """Connect each cell with its nearest neighbours.

    Parameters
    ----------
    embedding
        ``(n_cells, n_features)``, finite.
    n_neighbors
        Neighbours of a cell, itself not counted.
    weights
        ``"umap"``: the fuzzy simplicial set, as ``scanpy.pp.neighbors`` makes it. ``"binary"``: 1
        for every pair of which one is a neighbour of the other. ``"gaussian"``:
        exp(-d² / (σ_i σ_j)) with the distance of the last neighbour as σ (Zelnik-Manor and
        Perona, 2004). ``"mutual"``: 1 for pairs that are neighbours of each other.
    batches
        Code of each cell's batch; every cell then has about equally many neighbours in each batch,
        so that the graph crosses between them.

    Returns
    -------
    scipy.sparse.csr_matrix
        Symmetric, non-negative, empty diagonal.
    """
    from sczoo.graph import Neighbours, connectivities, knn

    if weights not in get_args(WeightName):
        raise InputError(f"weights={weights!r} is not known: use one of {get_args(WeightName)}.")
    n_cells = len(embedding)
    check_n_neighbors(n_neighbors, n_cells)
    if n_cells == 1:
        return sparse.csr_matrix((1, 1))
    if batches is None or len(np.unique(batches)) < 2:
        indices, distances = knn(embedding, n_neighbors)
    else:
        indices, distances = _balanced(embedding, n_neighbors, np.asarray(batches))
    if weights == "umap":
        return connectivities(Neighbours(indices, distances))
    values = np.ones(indices.shape)
    if weights == "gaussian":
        reach = np.maximum(distances[:, -1].astype(np.float64), 1e-12)
        values = np.exp(-(distances.astype(np.float64) ** 2) / (reach[:, None] * reach[indices]))
        values = np.maximum(values, 1e-12)
    rows = np.repeat(np.arange(n_cells), indices.shape[1])
    directed = sparse.csr_matrix((values.ravel(), (rows, indices.ravel())), shape=(n_cells,) * 2)
    other = directed.T.tocsr()
    graph = directed.minimum(other) if weights == "mutual" else directed.maximum(other)
    graph = graph.tocsr()
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def check_n_neighbors(n_neighbors: int, n_cells: int) -> None:
    """Require fewer neighbours than cells."""
    if n_neighbors >= n_cells > 1:
        raise TooFewCellsError(
            f"n_neighbors={n_neighbors} with {n_cells} cells: a cell has at most {n_cells - 1} "
            "neighbours. Pass a smaller n_neighbors, or more cells."
        )


def _balanced(
    embedding: np.ndarray, n_neighbors: int, batches: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbours shared out evenly among the batches, nearest first."""
    from sczoo.graph import knn

    names, sizes = np.unique(batches, return_counts=True)
    share = max(1, -(-n_neighbors // len(names)))
    rows = np.arange(len(embedding))
    found, apart = [], []
    for name, size in zip(names, sizes, strict=True):
        members = np.flatnonzero(batches == name)
        # one more than wanted, because a cell finds itself in its own batch
        wanted = min(share + 1, int(size))
        indices, distances = knn(embedding[members], wanted, query=embedding)
        indices = members[indices]
        distances = np.where(indices == rows[:, None], np.inf, distances)
        found.append(indices)
        apart.append(distances)
    indices, distances = np.concatenate(found, axis=1), np.concatenate(apart, axis=1)
    order = np.argsort(distances, axis=1, kind="stable")
    kept = min(n_neighbors, int(np.isfinite(distances).sum(axis=1).min()))
    order = order[:, : max(kept, 1)]
    return (
        np.take_along_axis(indices, order, axis=1),
        np.take_along_axis(distances, order, axis=1).astype(np.float32),
    )


def read_graph(adata: AnnData, key: str) -> sparse.csr_matrix:
    """Read a graph from ``adata.obsp`` and check it."""
    if key not in adata.obsp:
        known = ", ".join(sorted(map(str, adata.obsp.keys()))) or "nothing"
        raise MissingKeyError(
            f"adata.obsp has no {key!r}; it has {known}. Run scanpy.pp.neighbors, or leave "
            "connectivities_key out and GRIT builds the graph."
        )
    return check_graph(adata.obsp[key], adata.n_obs, f"adata.obsp[{key!r}]")


def check_graph(graph: Any, n_cells: int, where: str) -> sparse.csr_matrix:
    """Require one finite, non-negative weight per pair; make symmetric, clear the diagonal."""
    graph = sparse.csr_matrix(graph).astype(np.float64)
    if graph.shape != (n_cells, n_cells):
        raise InputError(
            f"{where} has shape {graph.shape} for {n_cells} cells: it is the graph of other cells."
        )
    if not np.isfinite(graph.data).all():
        raise NotFiniteError(
            f"{where} holds weights that are not finite. Rebuild the graph from finite values."
        )
    if (graph.data < 0).any():
        raise InputError(
            f"{where} holds negative weights. GRIT needs similarities, such as the connectivities "
            "of scanpy.pp.neighbors."
        )
    graph = graph.maximum(graph.T).tocsr()
    graph.setdiag(0.0)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def one_hop(graph: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Weighted mean of the neighbours' values; a cell without neighbours keeps its own."""
    degree = np.asarray(graph.sum(axis=1)).ravel()
    mean = (graph @ values) / np.where(degree > 0, degree, 1.0)[:, None]
    return np.where(degree[:, None] > 0, mean, values)


def agreement(graph: sparse.csr_matrix, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Share of each cell's neighbours, by weight, whose `labels` equal the cell's `asked`.

    Parameters
    ----------
    graph
        The graph.
    labels, asked
        Codes, ``(n_cells,)``.

    Returns
    -------
    ``(n_cells,)``, between 0 and 1; a cell without neighbours agrees with itself alone.
    """
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    same = labels[graph.indices] == asked[rows]
    agreed = np.bincount(rows, graph.data * same, minlength=graph.shape[0])
    degree = np.bincount(rows, graph.data, minlength=graph.shape[0])
    own = (labels == asked).astype(np.float64)
    return np.where(degree > 0, agreed / np.where(degree > 0, degree, 1.0), own)
