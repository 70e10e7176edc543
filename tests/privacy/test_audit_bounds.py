"""Bounds are below the truth where it is known, and have the power to find faults."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sczoo.errors import InputError
from sczoo.privacy import PrivacyLedger, multi_run_bound, one_run_bound

DELTA = 1e-5


def gaussian_epsilon(sigma):
    ledger = PrivacyLedger()
    ledger.spend(sigma)
    return ledger.epsilon(DELTA)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_one_run_bound_holds_and_has_power(sigma):
    rng, truth = np.random.default_rng(0), gaussian_epsilon(sigma)
    found = []
    for _ in range(20):
        included = rng.random(2000) < 0.5
        scores = included + sigma * rng.standard_normal(2000)
        found.append(one_run_bound(scores, included, delta=DELTA).epsilon)
    # the bound may fail once in twenty; five failures of 20 have a chance below 0.3 %
    assert sum(bound > truth for bound in found) < 5
    assert np.median(found) > 0.2 * truth


def test_one_run_bound_of_a_coin_is_zero():
    rng = np.random.default_rng(1)
    included = rng.random(3000) < 0.5
    assert one_run_bound(rng.standard_normal(3000), included, delta=DELTA).epsilon < 0.3
    assert one_run_bound(np.zeros(3000), included, delta=DELTA).epsilon < 0.3


def test_one_run_bound_ignores_the_order_of_ties():
    # members first, all scores equal: a sort that keeps the order would find them all
    included = np.repeat([True, False], 500)
    assert one_run_bound(np.zeros(1000), included, delta=DELTA).epsilon < 0.3


def test_one_run_p_value_equals_the_binomial_without_delta():
    from sczoo.privacy._audit import _p_value

    for epsilon in (0.0, 0.7, 2.0):
        q = 1 / (1 + np.exp(-epsilon))
        assert _p_value(100, 60, 45, epsilon, 0.0) == pytest.approx(stats.binom.sf(44, 60, q))
    assert _p_value(100, 60, 45, 0.7, 1e-3) > _p_value(100, 60, 45, 0.7, 0.0)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_multi_run_bound_holds_and_has_power(sigma):
    rng, truth = np.random.default_rng(2), gaussian_epsilon(sigma)
    found = []
    for _ in range(10):
        inside = 1 + sigma * rng.standard_normal(20_000)
        outside = sigma * rng.standard_normal(20_000)
        found.append(multi_run_bound(inside, outside, delta=DELTA).epsilon)
    assert sum(bound > truth for bound in found) < 4
    assert np.median(found) > 0.3 * truth


def test_multi_run_bound_of_perfect_separation():
    bound = multi_run_bound(np.full(2000, 1.0), np.zeros(2000), delta=DELTA)
    # limited by the number of runs: log of (0.025^(1/1000) - delta) / (1 - 0.025^(1/1000))
    limit = 0.025 ** (1 / 1000)
    assert bound.epsilon == pytest.approx(np.log((limit - DELTA) / (1 - limit)), rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "included"),
    [([1.0] * 5, [True] * 5), ([1.0] * 20, [True] * 19), ([np.nan] * 20, [True] * 20)],
)
def test_one_run_bound_refuses(scores, included):
    with pytest.raises(InputError):
        one_run_bound(scores, included, delta=DELTA)


def test_multi_run_bound_refuses():
    with pytest.raises(InputError, match="20 runs"):
        multi_run_bound(np.zeros(10), np.zeros(100), delta=DELTA)
    with pytest.raises(InputError, match="finite"):
        multi_run_bound(np.full(30, np.nan), np.zeros(30), delta=DELTA)
    with pytest.raises(InputError, match="confidence"):
        multi_run_bound(np.zeros(30), np.zeros(30), delta=DELTA, confidence=0.2)
