"""Rows of cells as blocks of values and of what was observed, aligned to the model's genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from scipy import sparse

from sczoo.base._checks import without_missing
from sczoo.base._reading import iter_row_blocks, matrix_of, read_rows
from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from sczoo.base._genes import GeneAlignment

__all__ = ["MASKS", "MaskName", "RowBlock", "RowReader"]

MaskName = Literal["counts", "explicit", "consensus", "nonzero"]
MASKS: tuple[str, ...] = ("counts", "explicit", "consensus", "nonzero")

# From this many values on, blocks and vectors are kept in single precision.
_SINGLE_ABOVE = 20_000_000
# A dense block of this many values takes 64 MB.
_BLOCK_VALUES = 8_000_000
_FEWEST_ROWS, _MOST_ROWS = 256, 4096
# Above this share of observed entries a dense block is faster than a sparse one.
_DENSE_ABOVE = 0.2


@dataclass
class RowBlock:
    """Some cells: values, which of them were observed, and the batch.

    Attributes
    ----------
    rows
        Positions among the cells read, ``(m,)``.
    values
        Values, ``(m, n_genes)``, CSR or dense, zero where not observed; float64, or float32 for
        large data.
    pattern
        One where a value was observed, CSR or dense, ``(m, n_genes)``; ``None`` for counts, whose
        zeros are observations.
    batch
        Code of the batch, ``(m,)``; -1 for one that the model does not know.
    """

    rows: np.ndarray
    values: Any
    pattern: Any
    batch: np.ndarray


class RowReader:
    """Stream the rows of an AnnData as :class:`RowBlock`, from memory, a file or dask.

    Parameters
    ----------
    adata
        The cells.
    layer
        Layer with the values; ``None`` for ``adata.X``.
    mask
        What counts as missing.
    mask_layer
        Layer of an explicit mask, not zero where a value was observed.
    indices
        Cells to read, in this order; all by default.
    batch
        Batch code of every cell in `adata`.
    alignment
        How the genes map to the model's; identical by default.
    check
        Called with the values of a block and its row numbers before anything else.
    consensus
        For ``mask="consensus"``: from values to the pattern of what counts as observed.
    n_genes
        Number of the model's genes.
    """

    def __init__(
        self,
        adata: AnnData,
        layer: str | None,
        mask: MaskName,
        mask_layer: str | None = None,
        *,
        n_genes: int,
        indices: np.ndarray | None = None,
        batch: np.ndarray | None = None,
        alignment: GeneAlignment | None = None,
        check: Callable[[Any, np.ndarray], None] | None = None,
        consensus: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.adata = adata
        self.layer = layer
        self.mask = mask
        self.mask_layer = mask_layer
        self.indices = np.arange(adata.n_obs) if indices is None else indices
        self.batch = np.zeros(adata.n_obs, dtype=np.int64) if batch is None else batch
        self.alignment = alignment
        self.check = check
        self.consensus = consensus
        self.n_genes = n_genes
        large = len(self.indices) * n_genes > _SINGLE_ABOVE
        self.dtype = np.float32 if large else np.float64
        self.block_rows = int(np.clip(_BLOCK_VALUES // max(n_genes, 1), _FEWEST_ROWS, _MOST_ROWS))

    @property
    def n_cells(self) -> int:
        """Number of cells read."""
        return len(self.indices)

    @property
    def present(self) -> np.ndarray:
        """Which of the model's genes the data have, ``(n_genes,)``, bool."""
        if self.alignment is None:
            return np.ones(self.n_genes, dtype=bool)
        return self.alignment.present

    @property
    def in_memory_dense(self) -> bool:
        """Whether the values already lie in memory as a dense array."""
        return isinstance(matrix_of(self.adata, self.layer), np.ndarray)

    def __iter__(self) -> Iterator[RowBlock]:
        start = 0
        companion: Any = (
            None if self.mask_layer is None else matrix_of(self.adata, self.mask_layer)
        )
        if sparse.issparse(companion) and companion.format != "csr":
            companion = companion.tocsr()
        blocks = iter_row_blocks(self.adata, self.layer, self.indices, self.block_rows)
        for rows, block in blocks:
            if self.alignment is not None:
                block = self.alignment.apply(block)
            if self.check is not None:
                self.check(block, rows)
            seen = None
            if companion is not None:
                seen = read_rows(companion, rows)
                if self.alignment is not None:
                    seen = self.alignment.apply(seen)
            values, pattern = self._split(block, seen)
            positions = np.arange(start, start + len(rows))
            start += len(rows)
            yield RowBlock(positions, values, pattern, self.batch[rows])

    def _split(self, block: Any, seen: Any) -> tuple[Any, Any]:
        """Separate a block into values and the pattern of what was observed."""
        if self.mask == "counts":
            return _as_csr(block, self.dtype), None
        if self.mask == "nonzero":
            values = _as_csr(block, self.dtype)
            values.eliminate_zeros()
            pattern = values.copy()
            pattern.data = np.ones_like(pattern.data)
            return _dense_if_full(values, pattern)
        if self.mask == "consensus":
            dense = _as_dense(block)
            if self.consensus is None:
                raise InputError("A consensus mask needs the clusters of a trained model.")
            pattern = self.consensus(dense) & self.present
            return np.where(pattern, dense, 0.0), pattern.astype(self.dtype)
        if seen is not None and sparse.issparse(seen) and sparse.issparse(block):
            pattern = _as_csr(seen, self.dtype)
            pattern.eliminate_zeros()
            pattern.data = np.ones_like(pattern.data)
            values = _as_csr(block, self.dtype)
            if np.isnan(values.data).any():  # NaN is missing whatever the layer says
                gone = values.copy()
                gone.data = np.isnan(gone.data).astype(self.dtype)
                gone.eliminate_zeros()
                pattern = (pattern - pattern.multiply(gone)).tocsr()
                pattern.eliminate_zeros()
                values = without_missing(values)
            values = values.multiply(pattern).tocsr()
            return _dense_if_full(values, pattern)
        dense = np.array(block.toarray() if sparse.issparse(block) else block, dtype=self.dtype)
        missing = np.isnan(dense)
        if not self.present.all():
            missing |= ~self.present
        if seen is not None:
            missing |= (seen.toarray() if sparse.issparse(seen) else seen) == 0
        dense[missing] = 0.0
        return dense, (~missing).astype(self.dtype)


def _as_csr(block: Any, dtype: Any) -> sparse.csr_matrix:
    csr = sparse.csr_matrix(block, dtype=dtype, copy=True)
    csr.sum_duplicates()
    return csr


def _as_dense(block: Any) -> np.ndarray:
    dense = block.toarray() if sparse.issparse(block) else block
    return np.asarray(dense, dtype=np.float64)


def _dense_if_full(values: Any, pattern: Any) -> tuple[Any, Any]:
    size = max(pattern.shape[0] * pattern.shape[1], 1)
    if pattern.nnz > _DENSE_ABOVE * size:
        return cast("Any", values.toarray()), cast("Any", pattern.toarray())
    return values, pattern
