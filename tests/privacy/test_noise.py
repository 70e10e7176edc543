"""A million draws, coins for every unit, and nothing that a seed could repeat."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
from scipy import stats

from sczoo.errors import InputError, PrivacyError
from sczoo.privacy import NoiseSource, PoissonSampler

# two-sided tests at one in a million: a correct generator fails once in years
_ALPHA = 1e-6


def test_a_million_draws_are_standard_normal():
    draws = NoiseSource().normal(1_000_000).astype(np.float64)
    n = len(draws)
    z = stats.norm.isf(_ALPHA / 2)
    assert abs(draws.mean()) < z / np.sqrt(n)
    low, high = stats.chi2.ppf([_ALPHA / 2, 1 - _ALPHA / 2], n)
    assert low < (draws**2).sum() < high
    assert stats.kstest(draws, "norm").pvalue > _ALPHA


def test_draws_are_independent_over_time_and_parameters():
    draws = NoiseSource().normal((1000, 1000)).astype(np.float64)
    z = stats.norm.isf(_ALPHA / 2)
    for lag in (1, 2, 1000):
        flat = draws.ravel()
        assert abs(np.mean(flat[:-lag] * flat[lag:])) < z / np.sqrt(flat.size - lag)
    # columns are parameters, rows are steps
    correlation = draws.T @ draws / len(draws)
    off = correlation[np.triu_indices(1000, 1)]
    assert np.abs(off).max() < stats.norm.isf(_ALPHA / off.size / 2) / np.sqrt(1000) * 1.2


def test_numbers_of_one_pair_are_independent():
    """Box and Muller make two numbers of one length; their squares must not know each other."""
    draws = NoiseSource().normal(1 << 16).astype(np.float64)
    one, other = draws[: 1 << 15], draws[1 << 15 :]
    z = stats.norm.isf(_ALPHA / 2)
    assert abs(np.mean(one * other)) < z / np.sqrt(len(one))
    # the variance of (x^2 - 1)(y^2 - 1) is 4
    assert abs(np.mean((one**2 - 1) * (other**2 - 1))) < 2 * z / np.sqrt(len(one))
    assert stats.kstest(np.arctan2(other, one) / (2 * np.pi) + 0.5, "uniform").pvalue > _ALPHA


@pytest.mark.parametrize("shape", [(), 0, 1, 7, (3, 5), (1 << 16) + 1, (0, 4)])
def test_every_shape_is_filled(shape):
    first, second = (NoiseSource().normal(shape) for _ in range(2))
    assert first.shape == np.empty(shape).shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    # single numbers of 32 bits may agree by chance
    assert np.count_nonzero(first == second) <= first.size // 1000
    assert (np.abs(first) < 7.5).all()


def test_extreme_bits_give_finite_numbers():
    class Bits:
        def __init__(self, value):
            self.value = value

        def integers(self, low, high, size, dtype):
            return np.full(size, self.value, dtype)

    for value in (0, (1 << 64) - 1):
        draws = NoiseSource(_generator=Bits(value)).normal(4)
        assert np.isfinite(draws).all()
    # the longest pair: all bits of the length zero
    assert NoiseSource(_generator=Bits(0)).normal(2)[0] == pytest.approx(7.4466, abs=1e-3)


def test_public_seeds_do_not_reach_the_noise():
    import torch

    drawn = []
    for _ in range(2):
        scvi.settings.seed = 0
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        drawn.append(NoiseSource().normal(64))
    assert not np.any(drawn[0] == drawn[1])


@pytest.mark.parametrize("seed", [0, 42, "secret"])
def test_a_fixed_seed_is_refused_with_the_reason(seed):
    with pytest.raises(PrivacyError, match="subtract it"):
        NoiseSource(seed)


def test_symmetric_noise_has_the_variances_of_the_mechanism():
    source = NoiseSource()
    draws = np.stack([source.symmetric(20) for _ in range(4000)])
    assert np.array_equal(draws, draws.transpose(0, 2, 1))
    on = draws[:, np.arange(20), np.arange(20)]
    rows, columns = np.triu_indices(20, 1)
    off = draws[:, rows, columns]
    for values, variance in ((on, 1.0), (off, 0.5)):
        low, high = stats.chi2.ppf([_ALPHA / 2, 1 - _ALPHA / 2], values.size)
        assert low < (values**2).sum() / variance < high


def test_every_unit_has_its_own_coin():
    n_units, n_steps, rate = 200, 3000, 0.07
    sampler = PoissonSampler(n_units, rate, n_steps, NoiseSource())
    drawn = np.zeros((n_steps, n_units), dtype=bool)
    for step, rows in enumerate(sampler):
        drawn[step, rows] = True
    assert step + 1 == len(sampler) == n_steps
    per_unit = drawn.sum(0)
    low, high = stats.binom.ppf([_ALPHA / n_units, 1 - _ALPHA / n_units], n_steps, rate)
    assert low <= per_unit.min()
    assert per_unit.max() <= high
    # sizes vary as a binomial, not as fixed minibatches
    sizes = drawn.sum(1)
    expected = n_units * rate * (1 - rate)
    low, high = stats.chi2.ppf([_ALPHA / 2, 1 - _ALPHA / 2], n_steps - 1)
    assert low < (n_steps - 1) * sizes.var(ddof=1) / expected < high
    # coins of different units are independent
    pairs = np.corrcoef(drawn[:, :40].T.astype(float))[np.triu_indices(40, 1)]
    assert np.abs(pairs).max() < stats.norm.isf(_ALPHA / pairs.size) / np.sqrt(n_steps)


def test_empty_minibatches_are_drawn():
    sizes = [len(rows) for rows in PoissonSampler(3, 0.05, 400, NoiseSource())]
    assert sizes.count(0) > 200
    assert len(sizes) == 400


def test_donors_are_drawn_whole_and_count_the_same():
    donors = np.repeat([0, 1, 2, 3], [1, 5, 50, 500])
    sampler = PoissonSampler(4, 0.5, 400, NoiseSource(), units=donors, rows_per_unit=8)
    counts = np.zeros(4)
    for rows in sampler:
        blocks = np.asarray(rows, dtype=int).reshape(-1, 8)
        owners = donors[blocks]
        assert (owners == owners[:, :1]).all()
        assert len(set(owners[:, 0])) == len(owners)
        counts[owners[:, 0]] += 1
    low, high = stats.binom.ppf([_ALPHA / 4, 1 - _ALPHA / 4], 400, 0.5)
    assert ((counts >= low) & (counts <= high)).all()


@pytest.mark.parametrize("rate", [0, -0.1, 1.1])
def test_impossible_rates(rate):
    with pytest.raises(PrivacyError, match="probability"):
        PoissonSampler(10, rate, 1, NoiseSource())


def test_impossible_sizes():
    with pytest.raises(InputError):
        PoissonSampler(10, 0.5, 0, NoiseSource())
    with pytest.raises(InputError, match="at least one row"):
        PoissonSampler(3, 0.5, 1, NoiseSource(), units=[0, 0, 2])
