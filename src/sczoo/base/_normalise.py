"""Normalising counts of each cell by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

__all__ = ["TARGET_TOTAL", "log_normalise"]

TARGET_TOTAL = 1e4


def log_normalise(counts: Any) -> sparse.csr_matrix:
    r"""Compute :math:`\log(1 + 10^4 c / \sum c)` of each cell; float32 CSR.

    The same for every cell alone: no statistics of other cells enter, which whoever has only one
    patient's or a distilled set's cells would not have. Cells without counts stay zero.
    """
    matrix = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    totals = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(TARGET_TOTAL, totals, out=np.zeros_like(totals), where=totals > 0)
    matrix.data *= np.repeat(scale, np.diff(matrix.indptr)).astype(np.float32)
    np.log1p(matrix.data, out=matrix.data)
    return matrix
