"""Log-normalised expression in blocks, whatever scale the matrix is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

__all__ = ["Expression", "InputKind"]

InputKind = Literal["counts", "linear", "log"]

TARGET_TOTAL = 1e4
# log1p of a thousand million: larger values cannot be logarithms of expression
_LARGEST_LOG = 20.7
_BLOCK_ROWS = 4096


class Expression:
    """The cells of an AnnData as log-normalised values of chosen genes, streamed.

    Counts and linear values (such as TPM) are scaled to 10,000 per cell over the genes asked for
    and become log(1 + x); logarithms are taken as they are. Cells without any count stay zero.

    Parameters
    ----------
    adata
        The cells; may be backed by a file.
    layer
        Layer with the expression; ``None`` for ``X``.
    columns
        Column of each gene to read, shape ``(n_genes,)``; -1 for genes that `adata` lacks, which
        are zero. All columns by default.
    kind
        Scale of the values; recognised from them if ``None``.
    """

    def __init__(
        self,
        adata: AnnData,
        layer: str | None = None,
        columns: np.ndarray | None = None,
        kind: InputKind | None = None,
    ) -> None:
        if kind is not None and kind not in get_args(InputKind):
            raise InputError(f"input_kind={kind!r} is not known: use one of {get_args(InputKind)}")
        matrix = matrix_of(adata, layer)
        if sparse.issparse(matrix) and matrix.format != "csr":
            matrix = matrix.tocsr()
        self._matrix = matrix
        self.n_obs = adata.n_obs
        self.columns = np.arange(adata.n_vars) if columns is None else np.asarray(columns)
        self._present = self.columns[self.columns >= 0]
        self._all = np.array_equal(self._present, np.arange(adata.n_vars))
        self._total = np.zeros(self.n_obs)
        recognised = self._scan()
        self.kind: InputKind = kind or recognised

    def _scan(self) -> InputKind:
        """Sum the cells and recognise the scale, in one pass."""
        whole, largest = True, 0.0
        for start in range(0, self.n_obs, _BLOCK_ROWS):
            rows = np.arange(start, min(start + _BLOCK_ROWS, self.n_obs))
            block: Any = read_rows(self._matrix, rows)
            if not self._all:
                block = block[:, self._present]
            self._total[rows] = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
            values = block.data if sparse.issparse(block) else block.ravel()
            if values.size:
                largest = max(largest, float(values.max()))
                whole = whole and bool((values == np.floor(values)).all())
        if whole:
            return "counts"
        return "linear" if largest > _LARGEST_LOG else "log"

    def rows(self, rows: np.ndarray, genes: np.ndarray | None = None) -> np.ndarray:
        """Read `rows`; dense float32 of shape ``(n_rows, n_genes)``.

        Parameters
        ----------
        rows
            Row numbers.
        genes
            Positions among the genes; all by default.
        """
        block: Any = read_rows(self._matrix, rows)
        columns = self.columns if genes is None else self.columns[genes]
        here = columns >= 0
        chosen = block[:, columns[here]]
        dense = chosen.toarray() if sparse.issparse(chosen) else np.asarray(chosen)
        out = np.zeros((len(rows), len(columns)), dtype=np.float32)
        out[:, here] = dense
        if self.kind != "log":
            total = self._total[rows]
            out *= (TARGET_TOTAL / np.where(total > 0, total, 1.0)).astype(np.float32)[:, None]
            np.log1p(out, out=out)
        return out

    def blocks(
        self, genes: np.ndarray | None = None, every: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ``(rows, values)`` over all cells, or over every n-th."""
        chosen = np.arange(0, self.n_obs, every)
        for start in range(0, len(chosen), _BLOCK_ROWS):
            rows = chosen[start : start + _BLOCK_ROWS]
            yield rows, self.rows(rows, genes)
