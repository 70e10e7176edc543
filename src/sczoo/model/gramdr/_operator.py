r"""The corrected Gram matrix as an operator: sparse, centred implicitly, never materialised.

With precision weights :math:`w_i` it is

.. math:: B = (\tilde Z\tilde Z^\top)\circ H^{-1}_{b(i)b(j)} - \mathrm{diag}(\Delta),
   \qquad \tilde Z_i = w_i Y_i / r_i, \quad \Delta_i = w_i^2\delta_i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.linalg import blas

from sczoo.model.gramdr._encoding import encode, row_scales

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sczoo.model.gramdr._rows import RowReader
    from sczoo.model.gramdr._state import GeneState, NormaliserName

__all__ = ["GramOperator"]

_SPARSE_PRODUCT_BELOW = 0.08


class GramOperator:
    """Products with the weighted, corrected Gram matrix of some cells.

    Parameters
    ----------
    reader
        The cells.
    state
        Gene-side parameters; its ``weight_scale`` is set here.
    normaliser
        How co-observation is estimated.
    clip
        For counts: see :func:`~sczoo.model.gramdr._encoding.clip_counts`.
    weight_power
        Exponent of the precision weights; 0 for none.
    max_memory_gib
        Encoded cells are kept in memory if they fit, and read again in every pass otherwise.
    """

    def __init__(
        self,
        reader: RowReader,
        state: GeneState,
        normaliser: NormaliserName,
        *,
        clip: float | None,
        weight_power: float,
        max_memory_gib: float,
    ) -> None:
        self.reader = reader
        self.state = state
        self.normaliser = normaliser
        self.clip = clip
        n = reader.n_cells
        self.shape = (n, n)
        self.dtype = reader.dtype
        self._limit = max_memory_gib * 2**30
        self._cache: list[tuple[np.ndarray, Any]] | None = []
        self._read(weight_power)

    # --- the cells ----------------------------------------------------------------------------

    def _read(self, weight_power: float) -> None:
        """Encode all cells once: row scales, diagonal, weights; keep the rows if they fit."""
        n = self.shape[0]
        self.batch = np.zeros(n, dtype=np.int64)
        self.r, self.delta = np.zeros(n), np.zeros(n)
        self.observed, square = np.zeros(n), np.zeros(n)
        size = 0.0
        for block in self.reader:
            encoded = encode(block, self.state, self.normaliser, self.clip, self.reader.present)
            rows = block.rows
            self.batch[rows] = block.batch
            r, between, delta = row_scales(encoded, block.batch, self.state, self.normaliser)
            self.r[rows], self.delta[rows] = r, delta
            own = np.take_along_axis(between, block.batch[:, None], axis=1)[:, 0] * r
            square[rows] = np.divide(encoded.square, own, out=np.zeros_like(r), where=own > 0)
            self.observed[rows] = encoded.observed
            size += _bytes(encoded.values, self.dtype)
            self._keep(rows, encoded.values, size)
        precision = self.precision()
        mean = float(precision[precision > 0].mean()) if (precision > 0).any() else 1.0
        self.state.weight_scale = np.asarray(mean)
        self.weight = np.where(precision > 0, (precision / mean) ** weight_power, 0.0)
        self.counts = self.normaliser == "depth"
        divisor = self.observed if self.counts else self.r
        self._factor = np.divide(self.weight, divisor, out=np.zeros(n), where=divisor > 0).astype(
            self.dtype
        )
        self._shift = self.weight.astype(self.dtype)
        self._shrink = (self.weight**2 * self.delta).astype(self.dtype)
        self.diagonal = self.weight**2 * (square - self.delta)
        self._offset = None
        if self.counts:
            self._offset = self.state.panel * (self.state.centre * self.state.scale)
        coupling = self.state.coupling
        self._inverse = np.divide(1.0, coupling, out=np.zeros_like(coupling), where=coupling > 0)

    def precision(self) -> np.ndarray:
        """Return what the variance of a cell's row falls with: depth, or the row scale."""
        return row_precision(self.observed, self.r, self.normaliser)

    def _keep(self, rows: np.ndarray, values: Any, size: float) -> None:
        if self._cache is None:
            return
        dense = not sparse.issparse(values)
        # what is sparse for the user is never kept dense
        if size > self._limit or (dense and not self.reader.in_memory_dense):
            self._cache = None
            return
        self._cache.append((rows, values.astype(self.dtype)))

    @property
    def in_memory(self) -> bool:
        """Whether the encoded cells are kept between passes."""
        return self._cache is not None

    def _blocks(self) -> Iterator[tuple[np.ndarray, Any]]:
        if self._cache is not None:
            yield from self._cache
            return
        for block in self.reader:
            encoded = encode(block, self.state, self.normaliser, self.clip, self.reader.present)
            yield block.rows, encoded.values.astype(self.dtype)

    # --- products -----------------------------------------------------------------------------

    def left(self, vectors: np.ndarray) -> np.ndarray:
        r"""Return :math:`\tilde Z_b^\top V_b` for every batch, ``(B, D, b)``, float64."""
        n_batch, n_genes = self.state.panel.shape
        out = np.zeros((n_batch, n_genes, vectors.shape[1]))
        sums = np.zeros((n_batch, vectors.shape[1]))
        for rows, values in self._blocks():
            scaled = self._factor[rows, None] * vectors[rows]
            for code, chosen in _by_batch(self.batch[rows], n_batch):
                part = values if chosen is None else values[chosen]
                out[code] += part.T @ (scaled if chosen is None else scaled[chosen])
            if self._offset is not None:
                shifted = self._shift[rows, None] * vectors[rows]
                for code, chosen in _by_batch(self.batch[rows], n_batch):
                    sums[code] += (shifted if chosen is None else shifted[chosen]).sum(axis=0)
        if self._offset is not None:
            out -= self._offset[:, :, None] * sums[:, None, :]
        return out

    def right(self, factors: np.ndarray) -> np.ndarray:
        r"""Return :math:`\tilde Z_i C_{b(i)}` for every cell, ``(n, b)``."""
        out = np.empty((self.shape[0], factors.shape[2]), dtype=self.dtype)
        cast = factors.astype(self.dtype)
        n_batch = len(factors)
        for rows, values in self._blocks():
            for code, chosen in _by_batch(self.batch[rows], n_batch):
                where = rows if chosen is None else rows[chosen]
                part = values if chosen is None else values[chosen]
                out[where] = self._factor[where, None] * (part @ cast[code])
        if self._offset is not None:
            means = np.einsum("bd,bdk->bk", self._offset, factors).astype(self.dtype)
            out -= self._shift[:, None] * means[self.batch]
        return out

    def __call__(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""Return :math:`BV`, ``(n, b)``, and :math:`\tilde Z_b^\top V_b`, ``(B, D, b)``."""
        vectors = np.ascontiguousarray(vectors, dtype=self.dtype)
        factors = self.left(vectors)
        coupled = np.einsum("bc,cdk->bdk", self._inverse, factors)
        return self.right(coupled) - self._shrink[:, None] * vectors, factors

    def gene_covariance(self) -> np.ndarray:
        r"""Return :math:`\sum_i \tilde Z_i^\top\tilde Z_i/H_{b(i)b(i)}`, ``(D, D)``, float64."""
        n_genes = self.reader.n_genes
        lower = np.zeros((n_genes, n_genes))
        own = np.sqrt(np.diag(self._inverse))[self.batch]
        out = np.zeros((n_genes, n_genes))
        cross = np.zeros((len(self.state.panel), n_genes))
        for rows, values in self._blocks():
            factor = (self._factor[rows] * own[rows]).astype(self.dtype)
            if sparse.issparse(values):
                density = values.nnz / max(values.shape[0] * values.shape[1], 1)
                scaled = values.multiply(factor[:, None]).tocsr()
                if density < _SPARSE_PRODUCT_BELOW:
                    out += (scaled.T @ scaled).toarray()
                else:
                    lower += _inner(scaled.toarray())
            else:
                scaled = factor[:, None] * values
                lower += _inner(scaled)
            if self._offset is not None:
                weight = self._shift[rows] * own[rows]
                for code, chosen in _by_batch(self.batch[rows], len(cross)):
                    part = scaled if chosen is None else scaled[chosen]
                    by = weight if chosen is None else weight[chosen]
                    cross[code] += np.asarray(part.T @ by).ravel()
        out += np.tril(lower) + np.tril(lower, -1).T
        if self._offset is not None:
            mass = np.bincount(self.batch, (self._shift * own) ** 2, minlength=len(cross))
            for offset, along, total in zip(self._offset, cross, mass, strict=True):
                out -= np.outer(along, offset) + np.outer(offset, along)
                out += total * np.outer(offset, offset)
        return out


def _inner(rows: np.ndarray) -> np.ndarray:
    """Return the lower half of ``rows.T @ rows`` at half the work of a general product."""
    syrk = blas.get_blas_funcs("syrk", (rows,))
    return syrk(1.0, rows.T, lower=1)  # the transpose of a C array is what BLAS reads


def row_precision(observed: np.ndarray, r: np.ndarray, normaliser: NormaliserName) -> np.ndarray:
    """Return what the variance of a row falls with, ``(m,)``: depth, observations, or scale."""
    if normaliser == "depth":
        return observed
    return np.sqrt(observed) if normaliser == "ht" else r


def _by_batch(batch: np.ndarray, n_batch: int) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yield the batches of a block and their rows; ``None`` for all rows."""
    if n_batch == 1:
        yield 0, None
        return
    codes = np.unique(batch)
    if len(codes) == 1:
        yield int(codes[0]), None
        return
    for code in codes:
        yield int(code), np.flatnonzero(batch == code)


def _bytes(values: Any, dtype: Any) -> float:
    item = np.dtype(dtype).itemsize
    if sparse.issparse(values):
        return values.nnz * (item + 4.0)
    return values.size * float(item)
