"""How much of the spectrum is positive and how much negative, without computing all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh_tridiagonal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["positive_mass"]

_EXACT_BELOW = 1500
_PROBES, _STEPS = 12, 40


def positive_mass(
    apply: Callable[[np.ndarray], np.ndarray], n: int, seed: int
) -> tuple[float, float]:
    """Return the sums of the positive and of the absolute negative eigenvalues.

    Exact for up to 1,500 rows; stochastic Lanczos quadrature above (12 probes, 40 steps).

    Parameters
    ----------
    apply
        Product with ``(n, b)``.
    n
        Number of rows.
    seed
        Seed of the probes.
    """
    if n <= _EXACT_BELOW:
        values = np.linalg.eigvalsh(apply(np.eye(n)).astype(np.float64))
        return float(values[values > 0].sum()), float(-values[values < 0].sum())
    rng = np.random.default_rng(seed)
    v = rng.choice([-1.0, 1.0], size=(n, _PROBES)) / np.sqrt(n)
    basis, diagonal, off = [v], [], []
    for _ in range(_STEPS):
        w = np.asarray(apply(basis[-1]), dtype=np.float64)
        alpha = np.einsum("ij,ij->j", basis[-1], w)
        diagonal.append(alpha)
        for earlier in basis:  # full orthogonalisation, per probe
            w -= earlier * np.einsum("ij,ij->j", earlier, w)
        beta = np.linalg.norm(w, axis=0)
        off.append(beta)
        if (beta < 1e-10 * np.abs(alpha).max()).any():
            break
        basis.append(w / beta)
    positive = negative = 0.0
    for probe in range(_PROBES):
        d = np.array([a[probe] for a in diagonal])
        e = np.array([b[probe] for b in off[: len(d) - 1]])
        values, vectors = eigh_tridiagonal(d, e)
        weight = vectors[0] ** 2
        positive += float((weight * np.maximum(values, 0)).sum())
        negative += float((weight * np.maximum(-values, 0)).sum())
    return n * positive / _PROBES, n * negative / _PROBES
