"""Label-free clustering of an embedding by the Leiden algorithm (igraph)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import InputError, TooFewCellsError
from sczoo.graph._connectivities import connectivities
from sczoo.graph._igraph import lent_generator, network_of
from sczoo.graph._knn import knn

if TYPE_CHECKING:
    import igraph
    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_matrix

_MAX_BISECTIONS = 30


def leiden(
    data: ArrayLike, *, resolution: float = 1.0, n_neighbors: int = 15, seed: int = 0
) -> NDArray[np.int64]:
    """Communities of the nearest-neighbour graph of an embedding.

    The graph is that of ``scanpy.pp.neighbors(use_rep=...)`` (UMAP weights on Euclidean
    neighbours), the objective modularity, run until nothing moves. Nothing of it uses labels.

    Parameters
    ----------
    data
        Cells x dimensions.
    resolution
        Higher values give more clusters.
    n_neighbors
        Neighbours per cell, the cell itself counted as in scanpy. With fewer cells than that,
        all of them.
    seed
        Seed of the algorithm's own random numbers. Global random state is not used.

    Returns
    -------
    Cluster of each cell; 0 is the largest.
    """
    n_cells = np.shape(data)[0]
    if n_cells < 3:
        return np.zeros(n_cells, dtype=np.int64)
    return leiden_of_graph(_graph(data, n_neighbors), resolution=resolution, seed=seed)


def leiden_k(
    data: ArrayLike, n_clusters: int, *, n_neighbors: int = 15, seed: int = 0
) -> tuple[NDArray[np.int64], float]:
    """Leiden communities at the resolution that gives a number of clusters, by bisection.

    Parameters
    ----------
    data
        Cells x dimensions.
    n_clusters
        The number of clusters wanted.
    n_neighbors
        Neighbours per cell, the cell itself counted.
    seed
        Seed of each run.

    Returns
    -------
    labels
        Cluster of each cell. Where no resolution gives exactly ``n_clusters`` (for example
        because the graph has more pieces than that), the nearest number that was met.
    resolution
        The resolution used.
    """
    n_cells = np.shape(data)[0]
    if n_cells < 3:
        _check_number(n_clusters, n_cells)
        return np.arange(n_cells) % n_clusters, 1.0
    return leiden_k_of_graph(_graph(data, n_neighbors), n_clusters, seed=seed)


def leiden_k_of_graph(
    graph: csr_matrix, n_clusters: int, *, seed: int = 0
) -> tuple[NDArray[np.int64], float]:
    """Leiden communities of a graph that exists already, at a number of clusters.

    Parameters
    ----------
    graph
        Symmetric weights, cells x cells.
    n_clusters
        The number of clusters wanted.
    seed
        Seed of each run.

    Returns
    -------
    Labels and resolution, as of :func:`sczoo.graph.leiden_k`.
    """
    _check_number(n_clusters, graph.shape[0])
    network = network_of(graph)
    met: dict[float, NDArray[np.int64]] = {}

    def count(resolution: float) -> int:
        met[resolution] = _partition(network, resolution, seed)
        return int(met[resolution].max()) + 1

    low, high = 1e-3, 1.0
    found = count(high)
    while found < n_clusters and high < 1e3:
        low, high = high, high * 2
        found = count(high)
    for _ in range(_MAX_BISECTIONS):
        if found == n_clusters or high / low < 1.0001:
            break
        middle = float(np.sqrt(low * high))
        found = count(middle)
        low, high = (middle, high) if found < n_clusters else (low, middle)
    nearest = min(met, key=lambda resolution: abs(int(met[resolution].max()) + 1 - n_clusters))
    return met[nearest], nearest


def leiden_of_graph(
    graph: csr_matrix, *, resolution: float = 1.0, seed: int = 0
) -> NDArray[np.int64]:
    """Communities of a graph that exists already, for example of several resolutions in turn.

    Parameters
    ----------
    graph
        Symmetric weights, cells x cells (see :func:`sczoo.graph.connectivities`).
    resolution
        Higher values give more clusters.
    seed
        Seed of the algorithm's own random numbers.

    Returns
    -------
    Cluster of each cell; 0 is the largest.
    """
    return _partition(network_of(graph), resolution, seed)


def _check_number(n_clusters: int, n_cells: int) -> None:
    if n_clusters < 1:
        raise InputError(f"n_clusters={n_clusters}: ask for at least one cluster.")
    if n_clusters > n_cells:
        raise TooFewCellsError(
            f"{n_clusters} clusters were asked for, but there are {n_cells} cells."
        )


def _graph(data: ArrayLike, n_neighbors: int) -> csr_matrix:
    others = min(n_neighbors, np.shape(data)[0]) - 1
    return connectivities(knn(data, others))


def _partition(network: igraph.Graph, resolution: float, seed: int) -> NDArray[np.int64]:
    if not resolution >= 0:
        raise InputError(f"resolution={resolution}: it must be zero or more.")
    with lent_generator(seed):
        members = network.community_leiden(
            objective_function="modularity",
            weights="weight",
            resolution=resolution,
            n_iterations=-1,
        ).membership
    _, first, cluster, size = np.unique(
        members, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(size), dtype=np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return rank[cluster]
