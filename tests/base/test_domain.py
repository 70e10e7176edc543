"""What a model knows: real patients of the same study lie inside, another tissue outside."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sczoo
from sczoo.base._domain import _square_distances, describe_latent, share_outside


def blobs(n_cells, centres, rng, scale=1.0):
    kind = rng.integers(len(centres), size=n_cells)
    return centres[kind] + scale * rng.normal(size=(n_cells, centres.shape[1]))


def test_distances_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    z, c, v = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), rng.random(3) + 0.1
    expected = [[((a - b) ** 2 / v).sum() for b in c] for a in z]
    np.testing.assert_allclose(_square_distances(z, c, v), expected)


def test_five_per_cent_of_cells_like_those_of_training_lie_outside():
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 8, size=(5, 6))
    domain = describe_latent(blobs(4000, centres, rng))
    fresh = blobs(4000, centres, rng)
    assert share_outside(fresh, domain) == pytest.approx(0.05, abs=0.02)
    assert share_outside(fresh + 4.0, domain) > 0.8


def test_a_shift_between_batches_is_not_an_alarm_but_a_larger_one_is():
    rng = np.random.default_rng(2)
    centres = rng.normal(0, 8, size=(4, 6))
    batches = np.repeat(np.arange(6), 400)
    shift = rng.normal(0, 0.7, size=(7, 6))
    latent = np.concatenate([blobs(400, centres, rng) + shift[b] for b in range(6)])
    new = blobs(400, centres, rng) + shift[6]
    domain = describe_latent(latent, batches)
    assert share_outside(new, domain) < domain["latent_limit"]
    assert share_outside(blobs(400, centres, rng) + 5.0, domain) > domain["latent_limit"]


def test_every_centre_stands_for_twenty_cells_or_more():
    rng = np.random.default_rng(3)
    # two cells far away from all others: a centre of their own would be these two cells
    latent = np.concatenate([rng.normal(size=(400, 4)), np.full((2, 4), 50.0)])
    domain = describe_latent(latent)
    centres = np.array([v for k, v in domain.items() if k.startswith("latent_centre_")])
    assert np.abs(centres).max() < 10
    assert share_outside(latent[-2:], domain) == 1.0


def test_too_few_cells_or_broken_ones_say_nothing():
    assert describe_latent(np.zeros((50, 3))) == {}
    assert describe_latent(np.full((500, 3), np.nan)) == {}
    assert share_outside(np.zeros((5, 3)), {"total_per_cell": [1.0]}) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(100, 400), st.integers(1, 5), st.integers(0, 2**31), st.booleans())
def test_always_plain_finite_and_repeatable(n_cells, n_latent, seed, constant):
    rng = np.random.default_rng(seed)
    latent = np.ones((n_cells, n_latent)) if constant else rng.normal(size=(n_cells, n_latent))
    domain = describe_latent(latent, rng.integers(4, size=n_cells))
    assert json.loads(json.dumps(domain, allow_nan=False)) == domain
    assert 0 <= share_outside(latent, domain) <= 1
    assert domain["latent_limit"] <= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sce2tm", "gramdr", "scagc"])
def test_transfer_warns_of_another_tissue_and_not_of_another_patient(shared_data, method):
    from sczoo.recipes import gramdr_pbmc, scagc_pbmc, sce2tm_pbmc_interferon
    from sczoo.recipes._pbmc import data

    reference, patient = data()
    if method == "sce2tm":
        model = sce2tm_pbmc_interferon.train()
    elif method == "gramdr":
        model = gramdr_pbmc.train()
    else:
        model = scagc_pbmc.fit(reference[::5].copy())
    controls = patient[patient.obs["condition"].astype(str) == "ctrl"].copy()
    result = sczoo.transfer(model, controls)
    assert result.share_outside < 0.1
    assert not [w for w in result.warnings if "outside what the model knows" in w]
    pancreas = anndata.read_h5ad(shared_data("baron_human.h5ad"))
    result = sczoo.transfer(model, pancreas, min_coverage=0.5)
    assert result.share_outside > 0.5
    assert [w for w in result.warnings if "outside what the model knows" in w]
