"""Reading rows of a matrix, in memory or backed by a file, always in the order asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

# Rows per block: large enough that slicing costs nothing, small enough that a dense block of
# 30,000 genes stays below a gigabyte.
BLOCK_ROWS = 4096


def matrix_of(adata: AnnData, layer: str | None) -> Any:
    """Return ``adata.X`` or a layer, without loading backed data."""
    return adata.X if layer is None else adata.layers[layer]


def read_rows(matrix: Any, rows: np.ndarray) -> Any:
    """Read `rows` of `matrix` in the given order.

    File-backed matrices need ascending unique rows; those are read once and put back into the
    order asked for (scvi-tools returns them sorted).

    Returns
    -------
    ``scipy.sparse.csr_matrix`` or two-dimensional :class:`numpy.ndarray`.
    """
    in_memory = isinstance(matrix, np.ndarray) or sparse.issparse(matrix)
    if in_memory:
        block = matrix[rows]
    else:
        unique, inverse = np.unique(rows, return_inverse=True)
        if unique.size and unique[-1] - unique[0] + 1 == unique.size:
            block = matrix[int(unique[0]) : int(unique[-1]) + 1]
        else:
            block = matrix[unique]
        if not np.array_equal(inverse, np.arange(inverse.size)):
            block = block[inverse]
    if hasattr(block, "compute"):  # a dask array
        block = block.compute()
    return sparse.csr_matrix(block) if sparse.issparse(block) else np.asarray(block)


def iter_row_blocks(
    adata: AnnData,
    layer: str | None = None,
    indices: np.ndarray | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield ``(rows, block)`` over the matrix of `adata`, in the order of `indices`."""
    matrix = matrix_of(adata, layer)
    if sparse.issparse(matrix) and matrix.format != "csr":
        matrix = matrix.tocsr()  # once, instead of once per block
    rows = np.arange(adata.n_obs) if indices is None else indices
    for start in range(0, len(rows), block_rows):
        chunk = rows[start : start + block_rows]
        yield chunk, read_rows(matrix, chunk)


def resolve_indices(indices: Any, n_obs: int) -> np.ndarray:
    """Turn ``indices`` (integers, booleans or ``None``) into row numbers, in the order given."""
    if indices is None:
        return np.arange(n_obs)
    resolved = np.asarray(indices)
    if resolved.dtype == bool:
        if resolved.shape != (n_obs,):
            raise InputError(
                f"indices is a mask of shape {resolved.shape}; it must have one value for each "
                f"of the {n_obs} cells."
            )
        return np.flatnonzero(resolved)
    if resolved.size == 0:
        return np.zeros(0, dtype=np.int64)
    if resolved.ndim != 1 or not np.issubdtype(resolved.dtype, np.integer):
        raise InputError(
            "indices must be a list of row numbers or a mask with one value per cell."
        )
    if resolved.min() < -n_obs or resolved.max() >= n_obs:
        raise InputError(
            f"indices must lie between 0 and {n_obs - 1}; got {resolved.min()} to "
            f"{resolved.max()}."
        )
    return np.where(resolved < 0, resolved + n_obs, resolved)
