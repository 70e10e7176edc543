"""Choosing a few of many points: herding, k-means, k-medoids, geometric sketching."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SUBSETS",
    "geosketch",
    "herding",
    "kmeans",
    "kmeans_clusters",
    "kmedoids",
    "merge_small_clusters",
]

_BISECTIONS = 60


def herding(points: np.ndarray, n_chosen: int, rng: np.random.Generator) -> np.ndarray:
    """Choose points one by one, each so that the mean of those chosen comes closest to the mean.

    Deterministic: `rng` plays no part. Returns rows, ``(n_chosen,)``.
    """
    mean = points.mean(axis=0)
    total = np.zeros_like(mean)
    free = np.ones(len(points), dtype=bool)
    chosen = np.empty(n_chosen, dtype=np.int64)
    for step in range(n_chosen):
        # ||(total + x) / (step + 1) - mean||, the smallest over x
        distance = ((points + total - (step + 1) * mean) ** 2).sum(axis=1)
        distance[~free] = np.inf
        chosen[step] = int(np.argmin(distance))
        free[chosen[step]] = False
        total += points[chosen[step]]
    return chosen


def kmeans_clusters(points: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster of each point by k-means; at most `n_clusters` different ones."""
    from sklearn.cluster import KMeans

    n_clusters = min(n_clusters, len(np.unique(points, axis=0)))
    if n_clusters == 1:
        return np.zeros(len(points), dtype=np.int64)
    seed = int(rng.integers(2**31))
    return KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(points)


def merge_small_clusters(points: np.ndarray, clusters: np.ndarray, min_size: int) -> np.ndarray:
    """Join each cluster of fewer than `min_size` points to the one with the nearest centre.

    The smallest is joined first; what is left has at least `min_size` points or is one cluster.
    """
    clusters = clusters.copy()
    while True:
        present, sizes = np.unique(clusters, return_counts=True)
        if len(present) == 1 or sizes.min() >= min_size:
            return clusters
        centres = np.array([points[clusters == c].mean(axis=0) for c in present])
        small = int(np.argmin(sizes))
        distance = ((centres - centres[small]) ** 2).sum(axis=1)
        distance[small] = np.inf
        clusters[clusters == present[small]] = present[int(np.argmin(distance))]


def kmeans(points: np.ndarray, n_chosen: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one point from each k-means cluster; points that repeat fill up at random."""
    clusters = kmeans_clusters(points, n_chosen, rng)
    chosen = [int(rng.choice(np.flatnonzero(clusters == c))) for c in np.unique(clusters)]
    return _fill_up(chosen, len(points), n_chosen, rng)


def kmedoids(points: np.ndarray, n_chosen: int, rng: np.random.Generator) -> np.ndarray:
    """Of each k-means cluster, choose the point nearest to the centre."""
    clusters = kmeans_clusters(points, n_chosen, rng)
    chosen = []
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        centre = points[members].mean(axis=0)
        chosen.append(int(members[((points[members] - centre) ** 2).sum(axis=1).argmin()]))
    return _fill_up(chosen, len(points), n_chosen, rng)


def geosketch(points: np.ndarray, n_chosen: int, rng: np.random.Generator) -> np.ndarray:
    """Cover the points by equal boxes, about as many as wanted, and draw one point of each.

    The length of the boxes is found by bisection. Where boxes and wanted points differ in number,
    boxes are drawn, or points fill up at random.
    """
    lowest = points.min(axis=0)
    extent = float((points - lowest).max())
    short, long = 0.0, extent * 1.001 + 1e-12
    best = np.zeros(len(points), dtype=np.int64)
    for _ in range(_BISECTIONS):
        length = (short + long) / 2
        boxes = np.unique(np.floor((points - lowest) / length), axis=0, return_inverse=True)[1]
        best = boxes.ravel()
        n_boxes = int(best.max()) + 1
        if n_boxes == n_chosen:
            break
        if n_boxes > n_chosen:
            short = length
        else:
            long = length
    names = rng.permutation(int(best.max()) + 1)[:n_chosen]
    chosen = [int(rng.choice(np.flatnonzero(best == name))) for name in names]
    return _fill_up(chosen, len(points), n_chosen, rng)


def _fill_up(
    chosen: list[int], n_points: int, n_chosen: int, rng: np.random.Generator
) -> np.ndarray:
    rest = np.setdiff1d(np.arange(n_points), chosen)
    extra = rng.choice(rest, n_chosen - len(chosen), replace=False)
    return np.concatenate([np.array(chosen, dtype=np.int64), extra.astype(np.int64)])


# method -> function of (points, number, generator) that returns rows
SUBSETS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "herding": herding,
    "kmeans": kmeans,
    "kmedoids": kmedoids,
    "geosketch": geosketch,
}
