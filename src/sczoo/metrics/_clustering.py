"""Clusterings of an embedding, none of which sees a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sczoo.errors import InputError, TooFewCellsError
from sczoo.metrics._inputs import embedding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def cluster_leiden(
    X: ArrayLike, resolution: float = 1.0, *, n_neighbors: int = 15, random_state: int = 0
) -> NDArray[np.int64]:
    """Cluster by Leiden at a fixed resolution.

    Exact nearest neighbours (faiss), the weights of ``scanpy.pp.neighbors``, modularity (igraph).

    Parameters
    ----------
    X
        Embedding, cells x dimensions, used as it is.
    resolution
        Higher values give more clusters. The default of 1.0 is what to report: a resolution
        chosen with the labels in sight flatters every method.
    n_neighbors
        Neighbours per cell, the cell itself counted as in scanpy.
    random_state
        Seed; the global random state is not used.

    Returns
    -------
    Cluster of each cell; 0 is the largest.
    """
    from sczoo.graph import leiden

    return leiden(embedding(X), resolution=resolution, n_neighbors=n_neighbors, seed=random_state)


def cluster_leiden_k(
    X: ArrayLike, n_clusters: int, *, n_neighbors: int = 15, random_state: int = 0
) -> NDArray[np.int64]:
    """Cluster by Leiden at the resolution that gives a number of clusters, by bisection.

    Parameters
    ----------
    X
        Embedding, cells x dimensions.
    n_clusters
        The number of clusters. Where no resolution gives it exactly, the nearest number met.
    n_neighbors
        Neighbours per cell, the cell itself counted as in scanpy.
    random_state
        Seed of each run.

    Returns
    -------
    Cluster of each cell; 0 is the largest.
    """
    from sczoo.graph import leiden_k

    labels, _ = leiden_k(embedding(X), n_clusters, n_neighbors=n_neighbors, seed=random_state)
    return labels


def cluster_kmeans(
    X: ArrayLike, n_clusters: int, *, n_init: int = 10, random_state: int = 0
) -> NDArray[np.int64]:
    """Cluster by k-means (scikit-learn).

    Parameters
    ----------
    X
        Embedding, cells x dimensions.
    n_clusters
        The number of clusters.
    n_init
        Number of starts, of which the one with the least inertia is kept.
    random_state
        Seed.

    Returns
    -------
    Cluster of each cell.
    """
    from sklearn.cluster import KMeans

    matrix = embedding(X)
    if n_clusters < 1:
        raise InputError(f"n_clusters={n_clusters}: ask for at least one cluster.")
    if n_clusters > len(matrix):
        raise TooFewCellsError(
            f"{n_clusters} clusters were asked for, but there are {len(matrix)} cells."
        )
    labels = KMeans(n_clusters, n_init=n_init, random_state=random_state).fit_predict(matrix)
    return labels.astype("int64")
