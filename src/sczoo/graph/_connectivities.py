"""Weights of the neighbour graph: the fuzzy simplicial set of UMAP, in plain numpy.

McInnes, Healy and Melville, 2018 (arXiv 1802.03426), algorithms 2 and 3. This is the graph that
``scanpy.pp.neighbors`` makes; here it needs no compilation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sczoo.graph._knn import Neighbours

_TOLERANCE = 1e-5
_MIN_SCALE = 1e-3
_MAX_STEPS = 64


def connectivities(neighbours: Neighbours) -> csr_matrix:
    """Turn neighbours into a symmetric graph with weights in (0, 1].

    Parameters
    ----------
    neighbours
        What :func:`sczoo.graph.knn` returned for the cells themselves.

    Returns
    -------
    scipy.sparse.csr_matrix
        Cells x cells, symmetric, empty diagonal.
    """
    from scipy.sparse import csr_matrix

    indices, distances = neighbours
    n, k = indices.shape
    weights = _memberships(distances.astype(np.float64))
    rows = np.repeat(np.arange(n), k)
    directed = csr_matrix((weights.ravel(), (rows, indices.ravel())), shape=(n, n))
    transposed = directed.T.tocsr()
    graph = (directed + transposed - directed.multiply(transposed)).tocsr()
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def _memberships(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(-(d - rho) / sigma), with sigma such that each row sums to log2(k + 1)."""
    target = np.log2(distances.shape[1] + 1)  # UMAP counts the cell itself
    positive = np.where(distances > 0, distances, np.inf).min(axis=1)
    rho = np.where(np.isfinite(positive), positive, 0.0)
    excess = np.maximum(distances - rho[:, None], 0.0)

    low = np.zeros(len(distances))
    high = np.full(len(distances), np.inf)
    sigma = np.ones(len(distances))
    for _ in range(_MAX_STEPS):
        total = np.exp(-excess / sigma[:, None]).sum(axis=1)
        active = np.abs(total - target) >= _TOLERANCE
        if not active.any():
            break
        too_wide = active & (total > target)
        too_narrow = active & ~(total > target)
        high[too_wide] = sigma[too_wide]
        low[too_narrow] = sigma[too_narrow]
        middle = np.where(np.isinf(high), sigma * 2, (low + high) / 2)
        sigma = np.where(active, middle, sigma)

    # Rows include the cell itself at distance 0 in UMAP's means.
    share = distances.shape[1] / (distances.shape[1] + 1)
    row_mean = distances.mean(axis=1) * share
    floor = _MIN_SCALE * np.where(rho > 0, row_mean, distances.mean() * share)
    sigma = np.maximum(sigma, floor)
    weights = np.where(excess > 0, np.exp(-excess / np.maximum(sigma, 1e-300)[:, None]), 1.0)
    return weights
