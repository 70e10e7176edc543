"""Turning profiles back into whole numbers."""

from __future__ import annotations

import numpy as np

from sczoo.errors import InputError

__all__ = ["largest_remainder", "library_quantiles"]


def largest_remainder(profiles: np.ndarray, totals: np.ndarray) -> np.ndarray:
    r"""Round profiles to whole numbers whose sums are exactly `totals`.

    Every gene gets :math:`\lfloor \ell\rho_g\rfloor`; what is left of :math:`\ell` goes, one
    count each, to the genes with the largest fractional parts, of equal ones to the first. No
    random number is drawn, so that the noise of a single draw does not stand in the way of a
    classifier that sees few cells.

    Parameters
    ----------
    profiles
        Non-negative weights of the genes, ``(n_cells, n_genes)``; each row is scaled to one.
    totals
        Counts of each cell, whole numbers, ``(n_cells,)``.

    Returns
    -------
    Array of ``int64``, ``(n_cells, n_genes)``.
    """
    profiles = np.asarray(profiles, dtype=np.float64)
    totals = np.asarray(totals, dtype=np.int64)
    sums = profiles.sum(axis=1, keepdims=True)
    if not np.isfinite(profiles).all() or (profiles < 0).any() or (sums <= 0).any():
        raise InputError("A profile must be finite, non-negative and not zero throughout.")
    expected = profiles / sums * totals[:, None]
    counts = np.floor(expected).astype(np.int64)
    left = totals - counts.sum(axis=1)
    # rounding of the products can leave one count too many where a part is a whole number
    for row in np.flatnonzero(left < 0):
        largest = np.argsort(-counts[row], kind="stable")[: -left[row]]
        counts[row, largest] -= 1
    left = np.maximum(left, 0)
    order = np.argsort(counts - expected, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None, :], axis=1)
    return counts + (rank < left[:, None])


def library_quantiles(totals: np.ndarray, n_cells: int) -> np.ndarray:
    """Spread `n_cells` library sizes over those observed: the quantiles ``(j - 1/2) / n``."""
    shares = (np.arange(n_cells) + 0.5) / n_cells
    return np.maximum(np.rint(np.quantile(totals, shares)), 1).astype(np.int64)
