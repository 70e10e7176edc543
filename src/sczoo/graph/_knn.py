"""Nearest neighbours by faiss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from sczoo.errors import EmptyDataError, InputError, NotFiniteError, TooFewCellsError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Candidates asked of faiss beyond those returned: its float32 distances only propose and exact
# float64 ones decide, so that ties and duplicated cells come out in a fixed order.
_MARGIN = 8
_VALUES_AT_ONCE = 8_000_000


class Neighbours(NamedTuple):
    """The neighbours of each cell, nearest first."""

    indices: NDArray[np.int64]
    """Rows of the reference, cells x neighbours."""
    distances: NDArray[np.float32]
    """Their distances, cells x neighbours."""


def knn(
    data: ArrayLike,
    n_neighbors: int = 15,
    *,
    query: ArrayLike | None = None,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    exact_up_to: int = 50_000,
    quick: bool = False,
) -> Neighbours:
    """Find the nearest neighbours of each cell.

    Parameters
    ----------
    data
        The reference, cells x features: an embedding, or expression. A sparse matrix is made
        dense in float32.
    n_neighbors
        Number of neighbours, the cell itself not counted (scanpy counts it).
    query
        Cells to find neighbours for, in the same features. By default the cells of ``data``,
        and then a cell is not its own neighbour.
    metric
        ``"euclidean"``, or ``"cosine"`` (1 - cosine similarity).
    exact_up_to
        Up to this many reference cells, every distance is computed. Above, an inverted-file
        index looks at the nearest eighth of the regions: on real embeddings 99.8 % of the
        neighbours found are the true ones.
    quick
        Above that number, look at the nearest 16 regions only, and fit them to fewer cells: an
        order of magnitude faster, for candidates of which a few may be missed.

    Returns
    -------
    Indices into ``data`` and distances, nearest first; equal distances are ordered by index.

    Raises
    ------
    sczoo.errors.TooFewCellsError
        There are not ``n_neighbors`` other cells.
    sczoo.errors.NotFiniteError
        NaN or infinity; the message names the first cell and column.
    """
    if metric not in ("euclidean", "cosine"):
        raise InputError(f"metric={metric!r} is not known: use 'euclidean' or 'cosine'.")
    if n_neighbors < 1:
        raise InputError(f"n_neighbors={n_neighbors}: ask for at least one neighbour.")
    own = query is None
    reference = dense_rows(data, "data")
    asked = reference if query is None else dense_rows(query, "query")
    if reference.shape[1] != asked.shape[1]:
        raise InputError(
            f"data has {reference.shape[1]} columns and query has {asked.shape[1]}: "
            "both must be in the same features."
        )
    if n_neighbors > len(reference) - own:
        raise TooFewCellsError(
            f"{n_neighbors} neighbours per cell need at least {n_neighbors + own} cells, but "
            f"there are {len(reference)}. Ask for fewer neighbours."
        )
    if metric == "cosine":
        reference = _unit_rows(reference, "data")
        asked = reference if own else _unit_rows(asked, "query")
    wanted = min(n_neighbors + own + _MARGIN, len(reference))
    candidates = _propose(reference, asked, wanted, exact_up_to, quick)
    found = _decide(reference, asked, candidates, n_neighbors, own=own)
    if metric == "cosine":  # on unit rows |a - b|^2 = 2 (1 - cos)
        return Neighbours(found.indices, (found.distances**2 / 2).astype(np.float32))
    return found


def dense_rows(data: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return finite float32 rows, or say where they are not."""
    rows = data.toarray() if hasattr(data, "toarray") else data
    matrix = np.ascontiguousarray(rows, dtype=np.float32)
    if matrix.ndim != 2:
        raise InputError(f"{name} has {matrix.ndim} dimension(s): cells x features are needed.")
    if matrix.size == 0:
        raise EmptyDataError(f"{name} has shape {matrix.shape}: there is nothing to search.")
    finite = np.isfinite(matrix)
    if not finite.all():
        cell, column = np.argwhere(~finite)[0]
        raise NotFiniteError(
            f"{name} holds {matrix[cell, column]} at cell {cell}, column {column}, so that "
            "neighbours are undefined. Remove such cells or replace the values."
        )
    return matrix


def _unit_rows(matrix: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not norms.all():
        cell = int(np.flatnonzero(norms[:, 0] == 0)[0])
        raise InputError(
            f"{name}: cell {cell} is all zero and has no direction. Use metric='euclidean'."
        )
    return np.ascontiguousarray(matrix / norms)


def _propose(
    reference: NDArray[np.float32],
    asked: NDArray[np.float32],
    wanted: int,
    exact_up_to: int,
    quick: bool = False,
) -> NDArray[np.int64]:
    """Propose ``wanted`` candidates for each cell that asks."""
    import faiss

    # faiss expands |a - b|^2, which loses the fewest digits near the origin
    centre = reference.mean(axis=0, dtype=np.float64).astype(np.float32)
    points = reference - centre
    targets = points if asked is reference else asked - centre
    n_cells, n_features = points.shape
    flat = faiss.IndexFlatL2(n_features)
    if n_cells <= exact_up_to:
        flat.add(points)
        return flat.search(targets, wanted)[1]
    n_regions = max(1, min(int(4 * np.sqrt(n_cells)), n_cells // 39))  # 39: faiss's minimum
    index = faiss.IndexIVFFlat(flat, n_features, n_regions)
    if quick:
        index.cp.max_points_per_centroid, index.cp.niter = 50, 6
    index.train(points)  # faiss seeds its own k-means: the same regions each time
    index.add(points)
    # where it must be quick a fixed number: with a share, work grows with the square of the cells
    index.nprobe = min(n_regions, 16 if quick else max(16, n_regions // 8))
    found = index.search(targets, wanted)[1]
    short = np.flatnonzero((found < 0).any(axis=1))
    if len(short):  # the regions looked at held too few cells: look everywhere
        everywhere = faiss.IndexFlatL2(n_features)
        everywhere.add(points)
        found[short] = everywhere.search(targets[short], wanted)[1]
    return found


def _decide(
    reference: NDArray[np.float32],
    asked: NDArray[np.float32],
    candidates: NDArray[np.int64],
    n_neighbors: int,
    *,
    own: bool,
) -> Neighbours:
    """Order the candidates by exact distance, then by index, and keep the first."""
    n_asked = len(asked)
    indices = np.empty((n_asked, n_neighbors), dtype=np.int64)
    distances = np.empty((n_asked, n_neighbors), dtype=np.float32)
    step = max(1, _VALUES_AT_ONCE // (candidates.shape[1] * reference.shape[1]))
    for start in range(0, n_asked, step):
        stop = min(start + step, n_asked)
        near = candidates[start:stop]
        apart = reference[near].astype(np.float64) - asked[start:stop, None, :]
        squared = np.einsum("ijk,ijk->ij", apart, apart)
        if own:  # among duplicates the cell need not come first, or at all
            squared[near == np.arange(start, stop)[:, None]] = np.inf
        order = np.lexsort((near, squared), axis=1)[:, :n_neighbors]
        indices[start:stop] = np.take_along_axis(near, order, axis=1)
        distances[start:stop] = np.sqrt(np.take_along_axis(squared, order, axis=1))
    return Neighbours(indices, distances)
