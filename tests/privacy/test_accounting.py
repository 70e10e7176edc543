"""Epsilon against closed forms, other libraries, and the orders that must hold between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from sczoo.errors import InputError, PrivacyError
from sczoo.privacy import PrivacyLedger, calibrate_noise, combined_noise
from sczoo.privacy._accounting import Release


def analytic_gaussian(sigma, delta):
    """Exact epsilon of one Gaussian release (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon):
        a, b = 1 / (2 * sigma), epsilon * sigma
        return norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b) - delta

    return brentq(excess, 0, 200)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-6])
def test_one_release_equals_the_closed_form(sigma, delta):
    ledger = PrivacyLedger()
    ledger.spend(sigma)
    assert ledger.epsilon(delta) == pytest.approx(analytic_gaussian(sigma, delta), rel=1e-3)


def test_full_batches_compose_as_one_with_less_noise():
    many, one = PrivacyLedger(), PrivacyLedger()
    many.spend(10.0, count=25)
    one.spend(2.0)
    assert many.epsilon(1e-5) == pytest.approx(one.epsilon(1e-5), rel=1e-3)


# noise multiplier, sampling rate, steps, delta: values of opacus and dp-accounting on record
_KNOWN = [
    (1.0, 0.0128, 1560, 1e-5, 3.315, 2.999, 2.988),
    (2.5, 0.1, 400, 1e-4, 3.488, 3.160, 3.150),
    (0.7, 0.0026, 1950, 1e-6, 3.029, 2.291, 2.280),
    (3.46, 210 / 2122, 842, 1e-5, 3.99, None, None),
]


@pytest.mark.parametrize(("sigma", "rate", "steps", "delta", "rdp", "prv", "pld"), _KNOWN)
def test_recorded_values(sigma, rate, steps, delta, rdp, prv, pld):
    ledger = PrivacyLedger()
    ledger.spend(sigma, sampling_rate=rate, count=steps)
    found = ledger.cross_check(delta)
    for name, value in (("rdp", rdp), ("prv", prv), ("pld", pld)):
        if value is not None:
            assert found[name] == pytest.approx(value, rel=0.015)


@settings(max_examples=6, deadline=None)
@given(
    sigma=st.floats(0.6, 8),
    rate=st.floats(0.01, 0.9),
    steps=st.integers(1, 300),
    delta=st.sampled_from([1e-4, 1e-5, 1e-6]),
)
def test_rdp_is_above_prv_is_above_pld(sigma, rate, steps, delta):
    ledger = PrivacyLedger()
    ledger.spend(20.0, what="mean of the cells")
    ledger.spend(sigma, sampling_rate=rate, count=steps)
    if ledger.epsilon(delta) < 20:
        ledger.cross_check(delta)


def test_epsilon_is_never_negative():
    ledger = PrivacyLedger()
    ledger.spend(50, sampling_rate=0.001)
    assert ledger.epsilon(1e-2) == 0
    assert ledger.epsilon(1e-2, "rdp") == 0  # opacus itself returns -0.0085
    assert PrivacyLedger().epsilon(1e-5) == 0


def test_a_release_without_noise_has_no_epsilon():
    ledger = PrivacyLedger()
    ledger.spend(3.0)
    ledger.spend(0.0)
    assert ledger.epsilon(1e-5) == math.inf


@pytest.mark.parametrize("noise", [0.1, 0.03, 0.001])
def test_hardly_any_noise_is_accounted_in_seconds(noise):
    """It took minutes, and gigabytes, at an epsilon of a thousand."""
    import time

    ledger = PrivacyLedger()
    ledger.spend(noise)
    ledger.spend(noise, sampling_rate=1 / 6, count=18)
    start = time.process_time()
    spent = ledger.epsilon(1e-5)
    assert time.process_time() - start < 20
    assert analytic(noise) <= spent <= ledger.epsilon(1e-5, "rdp")


def analytic(noise):
    """Epsilon of the first release alone, from below: the typical loss of a Gaussian release."""
    return 1 / (2 * noise**2)


def test_gdp_is_refused_with_the_reason():
    ledger = PrivacyLedger()
    ledger.spend(1.0)
    for name in ("gdp", "clt"):
        with pytest.raises(PrivacyError, match="less than was spent"):
            ledger.epsilon(1e-5, name)
    with pytest.raises(PrivacyError, match="not known"):
        ledger.epsilon(1e-5, "moments")


def test_the_opacus_approximation_does_under_report():
    """The reason of the refusal, measured."""
    from opacus.accountants import GaussianAccountant

    gdp = GaussianAccountant()
    gdp.history = [(0.7, 0.0026, 1950)]
    ledger = PrivacyLedger()
    ledger.spend(0.7, sampling_rate=0.0026, count=1950)
    assert gdp.get_epsilon(1e-6) < 0.6 * ledger.epsilon(1e-6)


def test_unequal_noise_is_one_mechanism():
    assert combined_noise(3.46, 10) == pytest.approx(3.27, abs=0.005)
    assert combined_noise(3.0) == pytest.approx(3.0)
    assert combined_noise(3.0, 0.0) == 0
    # two releases at once equal two releases one after the other
    both, joint = PrivacyLedger(), PrivacyLedger()
    both.spend(3.0)
    both.spend(5.0)
    joint.spend(combined_noise(3.0, 5.0))
    assert both.epsilon(1e-5) == pytest.approx(joint.epsilon(1e-5), rel=1e-3)


@pytest.mark.parametrize("target", [0.3, 1.0, 4.0, 8.0])
def test_calibration_reaches_the_target_and_not_more(target):
    plan = [Release(5.0, 1.0, 1, "mean"), Release(1.0, 0.2, 60, "gradients")]
    factor = calibrate_noise(target, 1e-5, plan)
    ledger = PrivacyLedger()
    for release in plan:
        ledger.spend(
            factor * release.noise_multiplier,
            sampling_rate=release.sampling_rate,
            count=release.count,
        )
    spent = ledger.epsilon(1e-5)
    assert 0.985 * target <= spent <= target * (1 + 1e-6)


def test_calibration_counts_what_was_spent():
    spent = PrivacyLedger()
    spent.spend(2.0)
    plan = [Release(1.0, 1.0, 1, "gradients")]
    alone, after = calibrate_noise(4.0, 1e-5, plan), calibrate_noise(4.0, 1e-5, plan, spent)
    assert after > alone
    assert combined_noise(2.0, after) == pytest.approx(alone, rel=5e-3)
    with pytest.raises(PrivacyError, match="cannot be reached"):
        calibrate_noise(1.0, 1e-5, plan, spent)


@pytest.mark.parametrize("target", [0, -1.0, math.nan, math.inf])
def test_impossible_targets(target):
    with pytest.raises(PrivacyError, match="target_epsilon"):
        calibrate_noise(target, 1e-5, [Release(1.0, 1.0, 1, "gradients")])


@pytest.mark.parametrize("delta", [0, 1, -1e-5, 2])
def test_impossible_deltas(delta):
    with pytest.raises(PrivacyError, match="delta"):
        PrivacyLedger().epsilon(delta)


def test_equal_releases_are_merged_and_stored_as_plain_values():
    ledger = PrivacyLedger()
    for _ in range(3):
        ledger.spend(2.0, sampling_rate=0.1)
    ledger.spend(2.0, sampling_rate=0.2)
    assert [release.count for release in ledger.releases] == [3, 1]
    assert ledger.steps == 4
    assert PrivacyLedger.from_dicts(ledger.as_dicts()) == ledger


@pytest.mark.parametrize(
    "wrong", [{"noise_multiplier": -1}, {"noise_multiplier": np.nan}, {"sampling_rate": 0},
              {"sampling_rate": 1.5}, {"count": -1}]
)  # fmt: skip
def test_impossible_releases(wrong):
    with pytest.raises(InputError):
        PrivacyLedger().spend(**({"noise_multiplier": 1.0} | wrong))
