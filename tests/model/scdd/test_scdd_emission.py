"""Counts from profiles: exact sums, exact expectations, and no copies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from sczoo.errors import InputError
from sczoo.model.scdd._codes import Source
from sczoo.model.scdd._draws import allot, draw_columns, draw_copies_again
from sczoo.model.scdd._emission import (
    EMISSIONS_OF_MORE,
    Emission,
    check_emission,
    deal_out,
    draw_counts,
    emit,
    expected_log,
)
from sczoo.model.scdd._genes import telling_genes
from sczoo.model.scdd._membership import exact_copies


@pytest.fixture
def shares():
    rng = np.random.default_rng(0)
    values = rng.gamma(0.2, 1.0, size=(6, 50)) + 1e-6
    return values / values.sum(axis=1, keepdims=True)


def test_expected_log_is_the_sum_over_counts(shares):
    totals, theta = np.array([20, 100, 400, 900, 3000, 20000]), np.geomspace(0.1, 20, 50)
    found = expected_log(shares, totals, theta)
    for i, g in [(0, 3), (1, 10), (2, 20), (3, 30), (4, 40), (5, 49), (0, 49), (5, 25)]:
        mean = shares[i, g] * totals[i]
        n = np.arange(200_000)
        p = stats.nbinom.pmf(n, theta[g], theta[g] / (theta[g] + mean))
        expected = (p * np.log1p(n * 1e4 / totals[i])).sum()
        # a sum of sixty terms, or an expansion where counts are many
        assert found[i, g] == pytest.approx(expected, rel=0.05, abs=0.02), (i, g)


def test_draws_have_mean_and_variance_of_the_model():
    rng = np.random.default_rng(1)
    shares = np.tile([[0.5, 0.3, 0.15, 0.05]], (20_000, 1))
    theta = np.array([0.5, 2.0, 10.0, 1.0])
    made = draw_counts(shares, np.full(20_000, 40), theta, rng)
    mean = 40 * shares[0]
    np.testing.assert_allclose(made.mean(axis=0), mean, rtol=0.05)
    np.testing.assert_allclose(made.var(axis=0), mean + mean**2 / theta, rtol=0.1)
    thin = draw_counts(shares[:200], np.ones(200), theta, rng)
    assert (thin.sum(axis=1) > 0).all()


@pytest.mark.parametrize(
    "emission",
    [
        Emission("mode"),
        Emission("mode", depth=3.0),
        Emission("typical", 0.5, 5.0),
        Emission("typical", 99.0, 5.0),
    ],
)
def test_depths_are_met_exactly(shares, emission):
    totals, codes = np.array([20, 100, 400, 900, 3000, 7]), np.arange(6) % 2
    made = emit(emission, shares, totals, np.ones(50), codes, np.random.default_rng(0))
    np.testing.assert_array_equal(made.sum(axis=1), np.rint(totals * emission.depth))
    assert made.dtype == np.int64
    assert (made >= 0).all()


def test_typical_silences_what_most_cells_do_not_show(shares):
    totals, theta = np.full(6, 200), np.ones(50)
    made = emit(
        Emission("typical", 1.0, 5.0), shares, totals, theta, np.zeros(6), np.random.default_rng(0)
    )
    weak = expected_log(shares, totals, theta) < 1.0
    assert weak.any()
    assert (made[weak] == 0).all()


def test_half_is_half_of_each_class(shares):
    profile = np.tile(shares[:1], (12, 1))
    totals, codes = np.full(12, 300), np.repeat([0, 1, 2], 4)
    ideal = emit(Emission("mode"), profile, totals, np.ones(50), codes, np.random.default_rng(0))
    half = emit(Emission("half"), profile, totals, np.ones(50), codes, np.random.default_rng(0))
    same = (half == ideal).all(axis=1)
    assert [int(same[codes == k].sum()) for k in range(3)] == [2, 2, 2]


def test_dealt_out_counts_are_right_in_the_sum_over_each_class():
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(300, 0.3), 40)
    totals, codes = np.full(40, 60), np.repeat([0, 1], [30, 10])
    made = deal_out(shares, totals, codes, rng)
    assert made.dtype == np.int64
    assert (made >= 0).all()
    for code in (0, 1):
        wanted = (shares * totals[:, None])[codes == code].sum(axis=0)
        assert np.abs(made[codes == code].sum(axis=0) - wanted).max() <= 1.0
    # no cell is far from what it expects, and each shows about as many genes as a noisy one
    assert np.abs(made - shares * totals[:, None]).max() < 2
    drawn = rng.poisson(shares * totals[:, None])
    assert abs((made > 0).mean() / (drawn > 0).mean() - 1) < 0.25


def test_level_gives_each_class_the_length_of_its_real_cells():
    rng = np.random.default_rng(5)
    shares = np.concatenate([rng.dirichlet(np.full(800, a), 3) for a in (0.1, 0.2, 0.3)])
    codes, totals = np.repeat([0, 1, 2], 3), np.full(9, 400)

    def lengths_of(emission, real=None):
        made = emit(emission, shares, totals, np.full(800, 5.0), codes, rng, lengths=real)
        log = np.log1p(1e4 * made / made.sum(axis=1, keepdims=True))
        return np.array([(log[codes == k] ** 2).sum(axis=1).mean() for k in range(3)])

    real = np.array([1.0, 1.3, 1.1])
    plain = lengths_of(Emission("typical", 0.6, 20.0)) / real
    level = lengths_of(Emission("level", 0.6, 20.0), real) / real
    assert level.max() / level.min() < 1.1
    assert plain.max() / plain.min() > 1.25


def test_mixed_cells_are_typical_and_sparse_in_turns(shares):
    profile = np.tile(shares[:1], (12, 1))
    totals, codes = np.full(12, 300), np.repeat([0, 1, 2], 4)
    (how,) = [one for one in EMISSIONS_OF_MORE if one.name == "mixed"]
    made = emit(how, profile, totals, np.ones(50), codes, np.random.default_rng(0))
    typical = emit(
        Emission("typical", how.threshold, how.depth),
        profile,
        totals,
        np.ones(50),
        codes,
        np.random.default_rng(0),
    )
    same = (made == typical).all(axis=1)
    assert [int(same[codes == k].sum()) for k in range(3)] == [2, 2, 2]
    np.testing.assert_allclose(made[~same].sum(axis=1), 300, atol=15)


def test_unknown_emission():
    with pytest.raises(InputError, match="'poisson'"):
        check_emission("poisson")


def test_copies_are_changed_and_nothing_else():
    rng = np.random.default_rng(2)
    source = sparse.csr_matrix(rng.poisson(0.5, (200, 8)).astype(float))
    made = source[:50].toarray().astype(np.int64)
    made[0] = [100, 0, 0, 0, 0, 0, 0, 7]
    changed = draw_copies_again(made, source)
    assert not exact_copies(changed, source).any()
    np.testing.assert_array_equal(changed[0], made[0])
    assert (np.abs(changed - made).sum(axis=1) <= 60).all()
    assert (changed >= 0).all()


def test_allotted_categories_follow_the_shares():
    shares = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    codes = np.repeat([0, 1], 8)
    drawn = allot(shares, codes, np.random.default_rng(0))
    assert np.bincount(drawn[:8]).tolist() == [4, 2, 2]
    assert (drawn[8:] == 2).all()
    single = [
        int(allot(shares, np.zeros(1, int), np.random.default_rng(s))[0]) for s in range(400)
    ]
    np.testing.assert_allclose(np.bincount(single) / 400, [0.5, 0.25, 0.25], atol=0.08)


def test_metadata_follow_their_class():
    obs = pd.DataFrame({"donor": pd.Categorical(["a"] * 30 + ["b"] * 10 + ["c"] * 40)})
    real_codes = np.repeat([0, 1], 40)
    drawn = draw_columns(
        obs, real_codes, np.repeat([0, 1], 20), ("donor",), np.random.default_rng(0)
    )
    values = pd.Series(drawn["donor"])
    assert values[:20].value_counts()[["a", "b"]].tolist() == [15, 5]
    assert (values[20:] == "c").all()


def test_telling_genes_come_first_also_those_of_two_classes_that_are_alike():
    rng = np.random.default_rng(3)
    codes = np.repeat([0, 1, 2], 60)
    mean = np.full((3, 40), 2.0)
    mean[2, :10] = 30.0  # far from both others
    mean[1, 10:12] = 8.0  # between the two that are alike
    counts = sparse.csr_matrix(rng.poisson(mean[codes]).astype(np.float32))
    source = Source(None, codes, codes, counts, np.arange(3), counts)
    orders = telling_genes(source)
    assert {10, 11} <= set(orders["nearest"][:6].tolist())
    assert set(orders["all"][:10].tolist()) == set(range(10))
    for order in orders.values():
        np.testing.assert_array_equal(np.sort(order), np.arange(40))


@pytest.mark.parametrize("name", ["mode", "typical", "level", "mixed"])
def test_cells_show_no_more_than_the_telling_genes(shares, name):
    profile = np.tile(shares[:1], (4, 1))
    order = np.random.default_rng(1).permutation(50)
    how = Emission(name, 0.0, 5.0, 12)
    made = emit(
        how,
        profile,
        np.full(4, 3000),
        np.ones(50),
        np.repeat([0, 1], 2),
        np.random.default_rng(0),
        genes={"nearest": order},
    )
    assert (made[:, order[12:]] == 0).all()
    assert (made.sum(axis=1) > 0).all()
    assert (made > 0).any(axis=0).sum() > 5


@pytest.mark.parametrize("per_class", [1, 5, 20])
@pytest.mark.parametrize("name", ["auto", "mode", "typical", "level", "mixed", "half", "nb"])
def test_every_emission_has_a_way_for_any_number_of_cells(name, per_class):
    from sczoo.model.scdd._candidates import _emissions

    found = _emissions(name, per_class)
    assert found
    assert name == "auto" or {one.name for one in found} == {name}
