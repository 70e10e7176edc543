"""The graph that learns: edges drawn from candidates, gradients through the draw, even degrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "averaging_adjacency",
    "balanced_rows",
    "degree_gini",
    "gumbel_noise",
    "jaccard",
    "normalised_adjacency",
    "sample_edges",
    "similarity_logits",
    "union_graph",
]

_TINY = 1e-20
_VALUES_AT_ONCE = 20_000_000


def similarity_logits(z: torch.Tensor, others: torch.Tensor, scale: float) -> torch.Tensor:
    """Scaled cosine of each cell and its candidates.

    Parameters
    ----------
    z
        Cells x dimensions.
    others
        Candidates of each cell, cells x candidates x dimensions.
    scale
        Factor of the cosine. The odds of the nearest over the farthest candidate are at most
        ``exp(2 * scale)``: at the published scale of 1 the graph is nearly random.
    """
    first, second = F.normalize(z, dim=-1), F.normalize(others, dim=-1)
    return scale * (first[:, None, :] * second).sum(dim=-1)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw standard Gumbel noise, on the CPU."""
    uniform = torch.rand(shape, generator=generator)
    return -torch.log(-torch.log(uniform + _TINY) + _TINY)


def sample_edges(
    logits: torch.Tensor, noise: torch.Tensor, n_neighbors: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw neighbours without replacement, with gradients (Gumbel-Softmax, straight through).

    The draw is the top of ``logits + noise``, whatever the temperature: the temperature scales
    the gradient alone.

    Parameters
    ----------
    logits
        Cells x candidates.
    noise
        Gumbel noise of the same shape; zeros for the most probable graph.
    n_neighbors
        Neighbours per cell.
    temperature
        Of the softmax whose gradient stands in for that of the draw.

    Returns
    -------
    positions
        Columns drawn, cells x neighbours.
    values
        Ones, cells x neighbours, whose gradient is that of the softmax.
    """
    disturbed = logits + noise
    positions = disturbed.detach().topk(n_neighbors, dim=1).indices
    soft = torch.softmax(disturbed / temperature, dim=1).gather(1, positions)
    return positions, 1.0 - soft.detach() + soft


def union_graph(
    rows: NDArray[np.integer], values: NDArray[np.floating] | None = None
) -> sparse.csr_matrix:
    """Undirected graph of the neighbours of each cell: an edge if either chose the other.

    Parameters
    ----------
    rows
        Neighbours, cells x neighbours.
    values
        Weights of the same shape; ones by default.

    Returns
    -------
    Symmetric, empty diagonal, cells x cells.
    """
    n_cells, n_neighbors = rows.shape
    if values is None:
        values = np.ones(rows.shape, dtype=np.float32)
    indptr = np.arange(n_cells + 1) * n_neighbors
    directed = sparse.csr_matrix(
        (np.asarray(values, dtype=np.float32).ravel(), rows.ravel(), indptr),
        shape=(n_cells, n_cells),
    )
    directed.sum_duplicates()
    graph = directed.maximum(directed.T).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def normalised_adjacency(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Divide each edge by the root of its ends' degrees; cells without edges stay without."""
    degree = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    root = np.where(degree > 0, 1.0 / np.sqrt(np.maximum(degree, 1e-12)), 0.0)
    values = graph.data * root[graph.indices] * np.repeat(root, np.diff(graph.indptr))
    return sparse.csr_matrix(
        (values.astype(np.float32), graph.indices, graph.indptr), shape=graph.shape
    )


def averaging_adjacency(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Divide each row by its sum, so that a cell receives the mean of its neighbours.

    Unlike with roots of degrees, equal cells stay equal whatever their degrees; and it is how new
    cells receive from anchors. On a graph of equal degrees both are the same.
    """
    degree = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    share = np.where(degree > 0, 1.0 / np.maximum(degree, 1e-12), 0.0)
    values = graph.data * np.repeat(share, np.diff(graph.indptr))
    return sparse.csr_matrix(
        (values.astype(np.float32), graph.indices, graph.indptr), shape=graph.shape
    )


def balanced_rows(
    logits: NDArray[np.float32],
    candidates: NDArray[np.integer],
    n_neighbors: int,
    prices: NDArray[np.float32],
    *,
    n_rounds: int,
    rate: float,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Choose the most similar candidates, popular ones at a price.

    Cells that more than `n_neighbors` others choose become dearer, those that fewer choose
    cheaper, as in an auction; so hubs lose edges first where the others have alternatives.

    Parameters
    ----------
    logits
        Similarities, cells x candidates.
    candidates
        Their cells.
    n_neighbors
        Neighbours per cell.
    prices
        One per cell, in units of the logits; not changed.
    n_rounds, rate
        Rounds of the auction and its first step; 0 rounds only choose.

    Returns
    -------
    rows
        Neighbours chosen, cells x neighbours.
    prices
        After the last round.
    """
    prices = prices.copy()
    n_cells = len(logits)
    rows = np.empty((n_cells, n_neighbors), dtype=np.int32)
    step = max(1, _VALUES_AT_ONCE // logits.shape[1])
    for number in range(n_rounds + 1):
        for start in range(0, n_cells, step):
            part = slice(start, start + step)
            net = logits[part] - prices[candidates[part]]
            best = np.argpartition(-net, n_neighbors - 1, axis=1)[:, :n_neighbors]
            rows[part] = np.take_along_axis(candidates[part], best, axis=1)
        if number < n_rounds:
            popularity = np.bincount(rows.ravel(), minlength=n_cells) / n_neighbors
            change = np.clip(popularity - 1.0, -1.0, 1.0) / (1.0 + number / 5.0)
            prices += (rate * change).astype(np.float32)
    rows.sort(axis=1)
    return rows, prices


def degree_gini(degree: NDArray) -> float:
    """Gini coefficient of degrees: 0 where all are equal, near 1 where few have all."""
    ordered = np.sort(np.asarray(degree, dtype=np.float64))
    n, total = len(ordered), ordered.sum()
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def jaccard(first: NDArray[np.integer], second: NDArray[np.integer]) -> float:
    """Share of directed edges that two graphs of equal out-degree have in common."""
    n_cells = len(first)
    base = np.arange(n_cells, dtype=np.int64)[:, None] * n_cells
    one, two = (base + first).ravel(), (base + second).ravel()
    common = len(np.intersect1d(one, two))
    return common / max(len(np.unique(one)) + len(np.unique(two)) - common, 1)
