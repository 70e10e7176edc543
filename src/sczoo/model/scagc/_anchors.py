"""Anchors: averages of groups of training cells, to which new cells attach.

A saved model holds nothing of single cells, yet a graph encoder needs neighbours. An anchor is the
mean of at least five cells that are near each other; a new cell's neighbours are its nearest
anchors, so that its result depends on no other new cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEWEST_CELLS", "MOST_ANCHORS", "anchor_groups", "attachment", "group_means"]

FEWEST_CELLS = 5
MOST_ANCHORS = 256
_CELLS_PER_ANCHOR = 10
_MANY_CELLS = 50_000


def anchor_groups(z: NDArray[np.float32], most: int, *, seed: int) -> NDArray[np.int64]:
    """Group cells by k-means; groups of fewer than five cells join their nearest neighbour.

    Parameters
    ----------
    z
        Embedding, cells x dimensions.
    most
        Largest number of groups.
    seed
        Seed.

    Returns
    -------
    Group of each cell, numbered without a gap.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    n_groups = int(np.clip(len(z) // _CELLS_PER_ANCHOR, 1, most))
    kind = KMeans if len(z) <= _MANY_CELLS else MiniBatchKMeans
    labels = kind(n_groups, n_init=1, random_state=seed % 2**32).fit_predict(z)
    labels = np.unique(labels, return_inverse=True)[1]
    while True:
        size = np.bincount(labels)
        small = int(size.argmin())
        if size[small] >= FEWEST_CELLS or len(size) == 1:
            return labels.astype(np.int64)
        centres = group_means(z, labels)
        apart = ((centres - centres[small]) ** 2).sum(axis=1)
        apart[small] = np.inf
        labels[labels == small] = int(apart.argmin())
        labels = np.unique(labels, return_inverse=True)[1]


def group_means(values: NDArray, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of each group, groups x dimensions."""
    size = np.bincount(labels)
    members = sparse.csr_matrix(
        (1.0 / size[labels], (labels, np.arange(len(labels)))), shape=(len(size), len(labels))
    )
    return members @ values


def attachment(components: torch.Tensor, anchors: torch.Tensor, n_neighbors: int) -> torch.Tensor:
    """Weights of the nearest anchors of each cell, rows summing to one.

    The nearest anchors count by a Gaussian of the distance, whose width is that of the farthest
    of them.

    Parameters
    ----------
    components
        Principal components of the cells, cells x components.
    anchors
        Of the anchors.
    n_neighbors
        Anchors that a cell attaches to.

    Returns
    -------
    Cells x anchors, zero but for the nearest.
    """
    # in double precision, and without the expansion of the square: cells of any batch alike
    squared = torch.cdist(
        components.double(), anchors.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    near = squared.topk(min(n_neighbors, len(anchors)), dim=1, largest=False)
    width = near.values[:, -1:].clamp_min(1e-12)
    weight = torch.softmax(-2.0 * near.values / width, dim=1)
    out = torch.zeros_like(squared).scatter(1, near.indices, weight)
    return out.to(components.dtype)
