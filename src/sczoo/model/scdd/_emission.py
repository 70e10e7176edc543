"""From profiles to whole counts: the step that decides what a classifier can learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sczoo.base._normalise import TARGET_TOTAL
from sczoo.errors import InputError
from sczoo.model.scdd._counts import largest_remainder

__all__ = [
    "EMISSIONS",
    "Emission",
    "EmissionName",
    "check_emission",
    "draw_counts",
    "emit",
    "expected_log",
]

EmissionName = Literal["auto", "typical", "mode", "nb", "half"]
_TERMS = 60
_LARGE_MEAN = 15.0


@dataclass(frozen=True)
class Emission:
    r"""How profiles become counts.

    Attributes
    ----------
    name
        ``"mode"``: largest remainders of :math:`\ell\rho`, an ideal cell without noise.
        ``"typical"``: the genes that a typical cell of this depth shows, in proportion to their
        expected log-normalised expression; genes below the threshold are silent, as they are in
        most single cells. ``"nb"``: a draw from the model, as noisy as a real cell. ``"half"``:
        half of the cells by ``"mode"``, half by ``"nb"``.
    threshold
        Of ``"typical"``, in log-normalised units.
    depth
        Library sizes are multiplied by this; deeper cells round less.
    """

    name: str = "mode"
    threshold: float = 0.0
    depth: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}(threshold={self.threshold:g}, depth={self.depth:g})"


# What emission="auto" chooses from, by what classifiers learn from the cells.
EMISSIONS = (
    Emission("mode"),
    Emission("mode", depth=2.0),
    Emission("typical", 0.3, 5.0),
    Emission("typical", 0.45, 5.0),
    Emission("typical", 0.6, 5.0),
    Emission("typical", 0.8, 5.0),
    Emission("typical", 1.1, 5.0),
)


def check_emission(name: str) -> None:
    """Require a known name."""
    if name not in get_args(EmissionName):
        raise InputError(
            f"emission={name!r} is not known; choose one of {get_args(EmissionName)}."
        )


def expected_log(shares: np.ndarray, totals: np.ndarray, theta: np.ndarray) -> np.ndarray:
    r"""Compute the expected log-normalised expression of a cell, :math:`E\log(1 + 10^4 n/\ell)`.

    Over :math:`n\sim\mathrm{NB}(\ell\rho, \theta)`: an exact sum where the mean is small, a
    second-order expansion where it is large.

    Parameters
    ----------
    shares
        Shares of the genes, ``(n_cells, n_genes)``.
    totals
        Library sizes, ``(n_cells,)``.
    theta
        Inverse dispersions, ``(n_genes,)``.
    """
    totals = np.asarray(totals, dtype=np.float64)[:, None]
    mean = np.asarray(shares, dtype=np.float64) * totals
    theta = np.asarray(theta, dtype=np.float64)[None, :]
    scale = TARGET_TOTAL / totals
    ratio = mean / (mean + theta)
    probability = np.exp(-theta * np.log1p(mean / theta))
    total, mass = np.zeros_like(mean), probability.copy()
    for n in range(1, _TERMS):
        probability = probability * (n - 1 + theta) / n * ratio
        total += probability * np.log1p(n * scale)
        mass += probability
    # what the sum left out lies beyond its last term
    total += np.clip(1.0 - mass, 0.0, 1.0) * np.log1p(np.maximum(mean, _TERMS) * scale)
    variance = mean + mean**2 / theta
    around = np.log1p(mean * scale) - 0.5 * variance * scale**2 / (1 + mean * scale) ** 2
    return np.where(mean > _LARGE_MEAN, np.maximum(around, 0.0), total)


def draw_counts(
    shares: np.ndarray, totals: np.ndarray, theta: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw counts from the negative binomial of the model; no cell stays empty."""
    mean = np.asarray(shares, dtype=np.float64) * np.asarray(totals)[:, None]
    rate = rng.gamma(np.broadcast_to(theta, mean.shape), np.maximum(mean, 1e-12) / theta)
    counts = rng.poisson(rate)
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    counts[empty, np.argmax(shares[empty], axis=1)] = 1
    return counts.astype(np.int64)


def emit(
    emission: Emission,
    shares: np.ndarray,
    totals: np.ndarray,
    theta: np.ndarray,
    codes: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Turn profiles into whole counts.

    Parameters
    ----------
    emission
        How.
    shares
        Shares of the genes, ``(n_cells, n_genes)``.
    totals
        Library sizes, ``(n_cells,)``.
    theta
        Inverse dispersions, ``(n_genes,)``.
    codes
        Class of each cell; ``"half"`` divides each class.
    rng
        Source of draws.
    """
    depth = np.maximum(np.rint(totals * emission.depth), 1).astype(np.int64)
    if emission.name == "nb":
        return draw_counts(shares, depth, theta, rng)
    if emission.name == "half":
        counts = largest_remainder(shares, depth)
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)[1::2]
            if len(rows):
                counts[rows] = draw_counts(shares[rows], depth[rows], theta, rng)
        return counts
    if emission.name == "mode":
        return largest_remainder(shares, depth)
    typical = expected_log(shares, totals, theta)
    weights = np.where(typical >= emission.threshold, np.expm1(typical), 0.0)
    silent = weights.sum(axis=1) <= 0
    weights[silent] = shares[silent]
    return largest_remainder(weights, depth)
