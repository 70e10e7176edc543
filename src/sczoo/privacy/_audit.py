"""Lower bounds on epsilon from attacks: what an audit has shown to be spent at least."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from sczoo.errors import InputError

__all__ = ["AuditBound", "multi_run_bound", "one_run_bound"]

_GUESS_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class AuditBound:
    """A lower bound on epsilon that holds with a stated confidence.

    Parameters
    ----------
    epsilon
        The bound; 0 if the attack shows nothing.
    delta
        At which it holds.
    confidence
        Probability that the bound is right, over the randomness of the audit.
    n
        Canaries, or runs on each side that were scored.
    correct, guesses
        Correct guesses and guesses made (one run); true and false positives (several runs).
    """

    epsilon: float
    delta: float
    confidence: float
    n: int
    correct: int
    guesses: int


def one_run_bound(
    scores: Any,
    included: Any,
    *,
    delta: float,
    confidence: float = 0.95,
) -> AuditBound:
    """Bound epsilon from below by one run with many canaries (Steinke et al. 2023).

    Each canary (a planted gradient, a cell, a donor) was put into the training with probability
    one half, independently of all others. The highest scores are guessed to be in, the lowest to
    be out; several numbers of guesses are tried, and the confidence is divided among them.

    Parameters
    ----------
    scores
        How much each canary looks like having been in, shape ``(canaries,)``.
    included
        Whether it was.
    delta
        Delta of the claim.
    confidence
        Of the bound.

    Returns
    -------
    :class:`AuditBound`

    Examples
    --------
    >>> sczoo.privacy.one_run_bound(scores, included, delta=1e-5).epsilon
    """
    values, truth = np.asarray(scores, dtype=float), np.asarray(included, dtype=bool)
    n = len(values)
    if values.shape != truth.shape or values.ndim != 1 or n < 10:
        raise InputError("scores and included must be equally long, at least 10 canaries.")
    if not np.isfinite(values).all():
        raise InputError("scores holds values that are not finite.")
    _check(delta, confidence)
    # ties must not be broken by the order in which members were listed
    order = np.lexsort((np.random.default_rng(0).random(n), values))
    level = (1 - confidence) / len(_GUESS_SHARES)
    best = AuditBound(0.0, delta, confidence, n, 0, 0)
    for share in _GUESS_SHARES:
        half = max(1, int(share * n / 2))
        correct = int(truth[order[-half:]].sum() + (~truth[order[:half]]).sum())
        bound = _largest_rejected(n, 2 * half, correct, delta, level)
        if bound > best.epsilon or best.guesses == 0:
            best = AuditBound(bound, delta, confidence, n, correct, 2 * half)
    return best


def _p_value(n: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Probability of so many correct guesses under the claim (theorem 5.2 of the paper)."""
    q = 1.0 / (1.0 + math.exp(-epsilon))
    beta = float(stats.binom.sf(correct - 1, guesses, q))
    i = np.arange(1, correct + 1)
    mass = np.cumsum(stats.binom.pmf(correct - i, guesses, q))
    alpha = float((mass / i).max(initial=0.0))
    return min(1.0, beta + alpha * delta * 2 * n)


def _largest_rejected(n: int, guesses: int, correct: int, delta: float, level: float) -> float:
    if _p_value(n, guesses, correct, 0.0, delta) >= level:
        return 0.0
    low, high = 0.0, 1.0
    while _p_value(n, guesses, correct, high, delta) < level and high < 64:
        low, high = high, high * 2
    for _ in range(40):
        middle = (low + high) / 2
        if _p_value(n, guesses, correct, middle, delta) < level:
            low = middle
        else:
            high = middle
    return low


def multi_run_bound(
    with_unit: Any,
    without_unit: Any,
    *,
    delta: float,
    confidence: float = 0.95,
) -> AuditBound:
    """Bound epsilon from below by many runs with and without one unit (Clopper and Pearson).

    The first half of the runs chooses the threshold, the second half is scored, so that the choice
    costs nothing.

    Parameters
    ----------
    with_unit, without_unit
        One score per run; higher means that the unit looks to have been in.
    delta
        Delta of the claim.
    confidence
        Of the bound.

    Returns
    -------
    :class:`AuditBound`
    """
    inside, outside = np.asarray(with_unit, dtype=float), np.asarray(without_unit, dtype=float)
    if min(len(inside), len(outside)) < 20 or inside.ndim != 1 or outside.ndim != 1:
        raise InputError("At least 20 runs with and 20 without the unit are needed.")
    if not (np.isfinite(inside).all() and np.isfinite(outside).all()):
        raise InputError("The scores hold values that are not finite.")
    _check(delta, confidence)
    cut_in, cut_out = len(inside) // 2, len(outside) // 2
    thresholds = np.unique(np.concatenate([inside[:cut_in], outside[:cut_out]]))
    if len(thresholds) > 200:
        # dense in both tails, where the strongest evidence lies
        tail = np.geomspace(1 / len(thresholds), 0.5, 100)
        thresholds = np.quantile(thresholds, np.concatenate([tail, 1 - tail]))
    level = 1 - confidence
    best, chosen = -math.inf, (thresholds[0], False)
    for threshold in thresholds:
        for flipped in (False, True):
            # with as many runs as will be scored, so that the choice has their uncertainty
            true, false = _rates(inside[:cut_in], outside[:cut_out], threshold, flipped)
            bound = _ratio_bound(true, cut_in, false, cut_out, delta, level)
            if bound > best:
                best, chosen = bound, (threshold, flipped)
    true, false = _rates(inside[cut_in:], outside[cut_out:], *chosen)
    n_in, n_out = len(inside) - cut_in, len(outside) - cut_out
    if chosen[1]:
        n_in, n_out = n_out, n_in
    bound = _ratio_bound(true, n_in, false, n_out, delta, level)
    return AuditBound(max(0.0, bound), delta, confidence, min(n_in, n_out), true, false)


def _rates(
    inside: np.ndarray, outside: np.ndarray, threshold: float, flipped: bool
) -> tuple[int, int]:
    """Guesses of one kind that are right and wrong: "in", or "out" if flipped."""
    if flipped:
        return int((outside < threshold).sum()), int((inside < threshold).sum())
    return int((inside >= threshold).sum()), int((outside >= threshold).sum())


def _ratio_bound(
    true: int, n_true: int, false: int, n_false: int, delta: float, level: float
) -> float:
    low = float(stats.beta.ppf(level / 2, true, n_true - true + 1)) if true else 0.0
    high = (
        float(stats.beta.ppf(1 - level / 2, false + 1, n_false - false))
        if false < n_false
        else 1.0
    )
    return math.log((low - delta) / high) if low > delta else -math.inf


def _check(delta: float, confidence: float) -> None:
    if not 0 <= delta < 1:
        raise InputError(f"delta={delta}: it must lie in [0, 1).")
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence={confidence}: it must lie in [0.5, 1).")
