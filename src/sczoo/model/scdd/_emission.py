"""From profiles to whole counts: the step that decides what a classifier can learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sczoo.base._normalise import TARGET_TOTAL
from sczoo.errors import InputError
from sczoo.model.scdd._counts import largest_remainder

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EMISSIONS_OF_FEW",
    "EMISSIONS_OF_MORE",
    "Emission",
    "EmissionName",
    "check_emission",
    "deal_out",
    "draw_counts",
    "emit",
    "expected_log",
]

EmissionName = Literal["auto", "typical", "level", "mixed", "mode", "nb", "half"]
_TERMS = 60
_LARGE_MEAN = 15.0
# "level": numbers of genes that are tried, relative to "typical", and the fewest counts of a cell
_GENE_FACTORS = np.geomspace(1 / 3, 3, 25)
_FEWEST_COUNTS = 2000


@dataclass(frozen=True)
class Emission:
    r"""How profiles become counts.

    Attributes
    ----------
    name
        ``"mode"``: largest remainders of :math:`\ell\rho`, an ideal cell without noise.
        ``"typical"``: the genes that a typical cell of this depth shows, in proportion to their
        expected log-normalised expression; genes below the threshold are silent, as they are in
        most single cells. ``"level"``: the same with more or fewer genes, so that the squared
        lengths of the log-normalised cells stand to each other as those of real cells of their
        classes: a linear classifier that sees one cell per class prefers the longest.
        ``"mixed"``: every second cell of a class by ``"typical"``, the others at the depth of
        real cells with counts dealt out over the class, see :func:`deal_out`. ``"nb"``: a draw
        from the model, as noisy as a real cell. ``"half"``: half of the cells by ``"mode"``, half
        by ``"nb"``.
    threshold
        Of ``"typical"``, ``"level"`` and ``"mixed"``, in log-normalised units.
    depth
        Library sizes are multiplied by this; deeper cells round less.
    n_genes
        Show no more than so many genes, those that tell the classes apart; 0 for all. What a cell
        shows beside them is noise to a classifier: a tree that sees few cells takes any gene that
        happens to divide them.
    telling
        Genes that tell each class from its ``"nearest"``, or ``"all"`` classes alone; see
        :func:`telling_genes`.
    """

    name: str = "mode"
    threshold: float = 0.0
    depth: float = 1.0
    n_genes: int = 0
    telling: str = "nearest"

    def __str__(self) -> str:
        genes = f", n_genes={self.n_genes} by {self.telling}" if self.n_genes else ""
        return f"{self.name}(threshold={self.threshold:g}, depth={self.depth:g}{genes})"


# What emission="auto" chooses from, by what classifiers learn from the cells: where there are few
# cells in a class, and where there are more.
EMISSIONS_OF_FEW = (
    Emission("mode"),
    Emission("typical", 1.1, 5.0),
    Emission("typical", 0.6, 5.0, 200),
    Emission("typical", 0.6, 5.0, 200, "all"),
    Emission("level", 0.45, 5.0),
    Emission("level", 0.6, 5.0, 400),
)
EMISSIONS_OF_MORE = (
    Emission("typical", 0.6, 5.0, 800),
    Emission("typical", 0.6, 5.0, 400),
    Emission("typical", 0.6, 5.0, 200),
    Emission("mixed", 0.6, 5.0, 400),
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


def deal_out(
    shares: np.ndarray, totals: np.ndarray, codes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    r"""Round so that the sums over each class are right to within one count per gene.

    A gene that is expected 0.3 times in each of ten cells gets one count in three of them, where
    rounding cell by cell would give none or ten: :math:`n_{jg} = \lfloor S_{jg} + u_g\rfloor -
    \lfloor S_{j-1,g} + u_g\rfloor` with :math:`S_{jg}` the sum of the expectations of the first
    :math:`j` cells and one uniform :math:`u_g` for each gene. Cells differ as real ones do in
    what they show, and the class's mean has no noise.

    Parameters
    ----------
    shares, totals, codes, rng
        As of :func:`emit`. Depths are met on average.
    """
    expected = np.asarray(shares, dtype=np.float64) * np.asarray(totals)[:, None]
    counts = np.zeros(expected.shape, dtype=np.int64)
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        edges = np.cumsum(expected[rows], axis=0) + rng.random(expected.shape[1])
        steps = np.floor(edges).astype(np.int64)
        counts[rows] = np.diff(steps, axis=0, prepend=np.zeros((1, steps.shape[1]), np.int64))
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    counts[empty, np.argmax(shares[empty], axis=1)] = 1
    return counts


def _without(shares: np.ndarray, silent: np.ndarray) -> np.ndarray:
    """Shares without some genes; a cell that has no others keeps them."""
    shown = np.array(shares, dtype=np.float64)
    shown[:, silent] = 0.0
    empty = shown.sum(axis=1) <= 0
    shown[empty] = np.asarray(shares)[empty]
    return shown


def _level_weights(
    typical: np.ndarray, threshold: float, codes: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Weights of the genes of ``"level"``; `lengths` are those of real cells of each class."""
    weights = np.expm1(typical)
    rank = np.empty_like(typical, dtype=np.int64)
    order = np.argsort(-typical, axis=1, kind="stable")
    np.put_along_axis(rank, order, np.arange(typical.shape[1])[None, :], axis=1)
    usual = np.maximum((typical >= threshold).sum(axis=1), 1)

    def shown(n_genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.where(rank < n_genes[:, None], weights, 0.0)
        found /= np.maximum(found.sum(axis=1, keepdims=True), 1e-12)
        return found, (np.log1p(TARGET_TOTAL * found) ** 2).sum(axis=1)

    _, length = shown(usual)
    goal = float(np.median(length / lengths[codes])) * lengths[codes]
    best, miss = np.zeros_like(weights), np.full(len(codes), np.inf)
    for factor in _GENE_FACTORS:
        n_genes = np.clip(np.rint(usual * factor), 1, typical.shape[1]).astype(np.int64)
        found, length = shown(n_genes)
        closer = np.abs(length - goal) < miss
        best[closer], miss[closer] = found[closer], np.abs(length - goal)[closer]
    return best


def emit(
    emission: Emission,
    shares: np.ndarray,
    totals: np.ndarray,
    theta: np.ndarray,
    codes: np.ndarray,
    rng: np.random.Generator,
    *,
    lengths: np.ndarray | None = None,
    typical: np.ndarray | None = None,
    genes: Mapping[str, np.ndarray] | None = None,
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
        Class of each cell; ``"half"`` and ``"mixed"`` divide each class.
    rng
        Source of draws.
    lengths
        Mean squared length of the log-normalised real cells of each class, ``(n_classes,)``, for
        ``"level"``; classes are alike by default.
    typical
        Result of :func:`expected_log`, where it is known already.
    genes
        Columns, the most telling first, by ``emission.telling``; the first ``emission.n_genes``
        of them are shown.
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
    silent = None
    if emission.n_genes and genes is not None:
        silent = genes[emission.telling][emission.n_genes :]
        # what is expected of a cell is a matter of all genes; which of them show comes after
        if typical is None and emission.name != "mode":
            typical = expected_log(shares, totals, theta)
        shares = _without(shares, silent)
    if emission.name == "mode":
        return largest_remainder(shares, depth)
    if typical is None:
        typical = expected_log(shares, totals, theta)
    elif silent is not None:
        typical = typical.copy()
        typical[:, silent] = 0.0
    if emission.name == "level":
        known = np.ones(int(codes.max()) + 1) if lengths is None else np.maximum(lengths, 1e-8)
        weights = _level_weights(typical, emission.threshold, codes, known)
        depth = np.maximum(depth, _FEWEST_COUNTS)
    else:
        weights = np.where(typical >= emission.threshold, np.expm1(typical), 0.0)
    empty = weights.sum(axis=1) <= 0
    weights[empty] = shares[empty]
    counts = largest_remainder(weights, depth)
    if emission.name == "mixed":
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)[1::2]
            if len(rows):
                counts[rows] = deal_out(shares[rows], totals[rows], codes[rows], rng)
    return counts
