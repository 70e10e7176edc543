"""The pairwise normaliser: every pair divided by its own number of shared features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo.errors import InputError
from sczoo.model.gramdr._encoding import encode
from sczoo.model.gramdr._operator import GramOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_PAIRWISE_CELLS", "PairwiseOperator", "pairwise_gram"]

# Work grows with the square of the cells; memory does not.
MOST_PAIRWISE_CELLS = 20_000
_KEPT_BYTES = 256 * 2**20


class PairwiseOperator(GramOperator):
    r"""Products with :math:`w_iw_jY_i^\top Y_j/N_{ij}`, computed in blocks of rows.

    :math:`N_{ij}` is the number of features that both cells have; pairs with none count as zero.
    Blocks are kept if all of them together take less than 256 MB, and made anew otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        n = self.shape[0]
        if n > MOST_PAIRWISE_CELLS:
            raise InputError(
                f"normaliser='pairwise' compares every pair of {n} cells; it is meant for at most "
                f"{MOST_PAIRWISE_CELLS}. Use normaliser='rank1', which needs no pairs."
            )
        self._kept: list[tuple[np.ndarray, np.ndarray]] | None = None
        if n * n * 8 <= _KEPT_BYTES:
            self._kept = list(self._gram_rows())
        self.diagonal = np.zeros(n)
        for rows, gram in self._kept if self._kept is not None else self._gram_rows():
            self.diagonal[rows] = gram[np.arange(len(rows)), rows]

    def _encoded(self) -> Iterator[tuple[np.ndarray, Any, Any]]:
        for block in self.reader:
            encoded = encode(block, self.state, self.normaliser, self.clip, self.reader.present)
            yield block.rows, encoded.values, block.pattern

    def _gram_rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, values, pattern in self._encoded():
            gram = np.zeros((len(rows), self.shape[0]))
            for columns, other, seen in self._encoded():
                gram[:, columns] = pairwise_gram(values, pattern, other, seen)
            gram *= self.weight[rows, None] * self.weight
            yield rows, gram

    def __call__(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the product, ``(n, b)``, and the gene-side factors, ``(B, D, b)``."""
        vectors = np.ascontiguousarray(vectors, dtype=self.dtype)
        out = np.empty_like(vectors)
        for rows, gram in self._kept if self._kept is not None else self._gram_rows():
            out[rows] = gram @ vectors
        return out, self.left(vectors)


def pairwise_gram(left: Any, left_seen: Any, right: Any, right_seen: Any) -> np.ndarray:
    """Inner products of rows divided by the number of features that both have observed."""
    product, shared = _dense(left @ right.T), _dense(left_seen @ right_seen.T)
    return np.divide(product, shared, out=np.zeros_like(product), where=shared > 0.5)


def _dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix)
