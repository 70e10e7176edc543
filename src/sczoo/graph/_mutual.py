"""Mutual nearest-neighbour lists: whom a cell may be paired with.

Two cells are neighbours when each is among the other's nearest. Such graphs fall apart into many
pieces; edges of a minimum spanning tree join them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from sczoo.graph._knn import knn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["NeighbourLists", "mutual_neighbours"]


@dataclass(frozen=True)
class NeighbourLists:
    """Neighbours of each cell, nearest first, in compressed rows."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    def of(self, cell: int) -> NDArray[np.int64]:
        """Neighbours of one cell."""
        return self.indices[self.indptr[cell] : self.indptr[cell + 1]]

    def draw(self, cells: ArrayLike, rng: np.random.Generator) -> NDArray[np.int64]:
        """One neighbour per cell, drawn uniformly; a cell without neighbours gets itself."""
        cells = np.asarray(cells, dtype=np.int64)
        first = self.indptr[cells]
        degree = self.indptr[cells + 1] - first
        offset = (rng.random(len(cells)) * degree).astype(np.int64)
        # random() < 1, but the product can round up to the degree
        offset = np.minimum(offset, np.maximum(degree - 1, 0))
        lonely = degree == 0
        position = np.where(lonely, 0, first + offset)
        if len(self.indices) == 0:
            return cells.copy()
        return np.where(lonely, cells, self.indices[position])


def _join_pieces(
    mutual: csr_matrix, directed: csr_matrix
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Edges of the spanning tree that join the pieces of the mutual graph, shortest first."""
    n_pieces, piece = connected_components(mutual, directed=False)
    tree = minimum_spanning_tree(directed).tocoo()
    across = piece[tree.row] != piece[tree.col]
    source, target, length = tree.row[across], tree.col[across], tree.data[across]
    order = np.lexsort((target, source, length))
    parent = np.arange(n_pieces)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    kept = []
    for edge in order:
        a, b = root(piece[source[edge]]), root(piece[target[edge]])
        if a != b:
            parent[a] = b
            kept.append(edge)
    chosen = np.asarray(kept, dtype=np.int64)
    return source[chosen], target[chosen], length[chosen]


def mutual_neighbours(
    data: ArrayLike, n_neighbors: int = 15, *, include_self: bool = True
) -> NeighbourLists:
    """Mutual nearest-neighbour lists with the pieces joined by a minimum spanning tree.

    Parameters
    ----------
    data
        Cells x features.
    n_neighbors
        Size of the neighbourhood, the cell itself counted, and the longest list.
    include_self
        Put the cell itself first in its own list.

    Returns
    -------
    One list per cell, nearest first.
    """
    found, distance = knn(data, n_neighbors - 1)
    n_cells = found.shape[0]
    rows = np.repeat(np.arange(n_cells), found.shape[1])
    columns = found.ravel()
    # Sparse graph routines drop zeros, and duplicate cells are at distance zero.
    positive = distance[distance > 0]
    tiny = float(positive.min()) * 1e-6 if positive.size else 1e-12
    length = np.maximum(distance.ravel().astype(np.float64), tiny)
    directed = csr_matrix((length, (rows, columns)), shape=(n_cells, n_cells))
    mutual = directed.multiply(directed.T.astype(bool)).tocsr()

    source, target, extra = _join_pieces(mutual, directed)
    graph = coo_matrix(mutual)
    edge_from = np.concatenate([graph.row, source, target]).astype(np.int64)
    edge_to = np.concatenate([graph.col, target, source]).astype(np.int64)
    edge_length = np.concatenate([graph.data, extra, extra])
    longest = n_neighbors - 1
    if include_self:
        everyone = np.arange(n_cells, dtype=np.int64)
        edge_from = np.concatenate([everyone, edge_from])
        edge_to = np.concatenate([everyone, edge_to])
        edge_length = np.concatenate([np.zeros(n_cells), edge_length])
        longest = n_neighbors

    order = np.lexsort((edge_to, edge_length, edge_from))
    edge_from, edge_to = edge_from[order], edge_to[order]
    count = np.bincount(edge_from, minlength=n_cells)
    rank = np.arange(len(edge_from)) - np.repeat(np.cumsum(count) - count, count)
    kept = rank < longest
    indptr = np.concatenate([[0], np.cumsum(np.minimum(count, longest))]).astype(np.int64)
    return NeighbourLists(indptr=indptr, indices=edge_to[kept])
