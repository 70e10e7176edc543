"""Soft assignments to centres, their sharpened target, and where centres start."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import TooFewCellsError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

__all__ = [
    "by_size",
    "centres_of",
    "cluster_loss",
    "initial_partition",
    "soft_assignments",
    "target_of",
]

_MANY_CELLS = 50_000
_MOST_MERGED = 4_000
_FLOOR = 1e-7
_ROUNDING = 1e-4


def soft_assignments(z: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Student-t similarity of cells and centres, rows summing to one (DEC, equation 1)."""
    squared = (z[:, None, :] - centres[None]).square().sum(dim=2)
    q = 1.0 / (1.0 + squared)
    return q / q.sum(dim=1, keepdim=True)


def target_of(q: torch.Tensor) -> torch.Tensor:
    """Sharpened assignments that weigh small clusters up (DEC, equation 3)."""
    weight = q.square() / q.sum(dim=0).clamp_min(_FLOOR)
    return weight / weight.sum(dim=1, keepdim=True)


def cluster_loss(q: torch.Tensor, p: torch.Tensor, *, published: bool = False) -> torch.Tensor:
    """Mean divergence of assignments and target: KL(p||q), or the published KL(q||p)."""
    if published:
        p, q = q, p
    p, q = p.clamp(_FLOOR, 1.0), q.clamp(_FLOOR, 1.0)
    return (p * (p.log() - q.log())).sum(dim=1).mean()


def initial_partition(
    z: NDArray[np.float32], graph: csr_matrix, n_clusters: int | None, *, seed: int
) -> NDArray[np.int64]:
    """Partition cells before the centres learn.

    Parameters
    ----------
    z
        Latent representation, cells x dimensions.
    graph
        The learned graph, cells x cells.
    n_clusters
        Number of clusters, found by k-means from the means of Ward's groups; ``None`` takes what
        Leiden finds on the graph.
    seed
        Seed.

    Returns
    -------
    Cluster of each cell, numbered without a gap.
    """
    if n_clusters is None:
        from sczoo.graph import leiden_of_graph

        return leiden_of_graph(graph, seed=seed)
    if n_clusters > len(z):
        raise TooFewCellsError(
            f"{n_clusters} clusters were asked for, but there are {len(z)} cells."
        )
    if n_clusters == 1 or _all_equal(z):
        return np.zeros(len(z), dtype=np.int64)
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = MiniBatchKMeans if len(z) > _MANY_CELLS else KMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct cells than clusters: handled later
        start = _ward_means(z, n_clusters, seed=seed)
        found = kind(n_clusters, init=start, n_init=1, random_state=seed % 2**32)
        return by_size(found.fit_predict(z))


def _ward_means(z: NDArray[np.float32], n_clusters: int, *, seed: int) -> NDArray[np.float32]:
    """Means of the groups that Ward's criterion merges, of at most 4,000 cells.

    Merging from below follows gaps between groups; the best of twenty random starts, which has
    less variance within, agreed less with known types (user guide, "What was tried").
    """
    from sklearn.cluster import AgglomerativeClustering

    most = max(_MOST_MERGED, n_clusters)
    if len(z) > most:
        z = z[np.sort(np.random.default_rng(seed).choice(len(z), most, replace=False))]
    merged = AgglomerativeClustering(n_clusters, linkage="ward").fit_predict(z)
    return centres_of(z, merged, n_clusters)


def _all_equal(z: NDArray[np.float32]) -> bool:
    """Whether cells differ by rounding alone."""
    return bool(np.ptp(z, axis=0).max() <= _ROUNDING * max(1.0, float(np.abs(z).max())))


def by_size(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Renumber clusters without a gap, the largest first."""
    _, cluster, size = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(size), dtype=np.int64)
    rank[np.argsort(-size, kind="stable")] = np.arange(len(size))
    return rank[cluster]


def centres_of(z: NDArray[np.float32], labels: NDArray[np.int64], n_clusters: int) -> NDArray:
    """Mean of the cells of each cluster; a cluster without cells starts at a cell of its own."""
    count = np.bincount(labels, minlength=n_clusters)
    sums = np.zeros((n_clusters, z.shape[1]))
    np.add.at(sums, labels, z)
    centres = sums / np.maximum(count, 1)[:, None]
    for cluster in np.flatnonzero(count == 0):
        if _all_equal(z):
            # nothing to be found there: out of the way of the cells
            centres[cluster] += 1.0 + cluster
            continue
        # the cell farthest from the centres there are
        apart = ((z[:, None, :] - centres[count > 0][None]) ** 2).sum(axis=2).min(axis=1)
        centres[cluster] = z[int(apart.argmax())]
        count[cluster] = 1
    return centres.astype(np.float32)
