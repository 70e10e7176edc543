"""The estimator's promises: Propositions 1 and 2 of the paper, over thousands of masks."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from sczoo.model import GramDR
from sczoo.model.gramdr import corrected_gram

N, D, DRAWS = 24, 300, 2500


@pytest.fixture(scope="module")
def draws():
    """Gaussian features with a known K, masked at rates c_i g_s; sums over the draws."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(N, 5))
    covariance = factor @ factor.T / 5 + np.diag(rng.uniform(0.3, 1.0, N))
    root = np.linalg.cholesky(covariance)
    rates = np.outer(rng.uniform(0.25, 1.0, N), rng.uniform(0.4, 1.0, D))
    names = ("naive", "ratio", "ht", "estimated", "pairwise")
    first = {name: np.zeros((N, N)) for name in names}
    second = np.zeros((N, N))
    for _ in range(DRAWS):
        y = root @ rng.normal(size=(N, D))
        mask = rng.random((N, D)) < rates
        seen = np.where(mask, y, 0.0)
        found = {
            "naive": seen @ seen.T / D,
            "ratio": corrected_gram(y, mask, rates),
            "ht": corrected_gram(y, mask, rates, form="ht"),
        }
        moments = np.clip(np.outer(mask.mean(1), mask.mean(0)) / mask.mean(), 0, 1)
        found["estimated"] = corrected_gram(y, mask, moments)
        shared = mask.astype(float) @ mask.T.astype(float)
        found["pairwise"] = (seen @ seen.T) / np.maximum(shared, 1)
        for name, gram in found.items():
            first[name] += gram
        second += (found["ratio"] - covariance) ** 2
    mean = {name: total / DRAWS for name, total in first.items()}
    return covariance, rates, mean, second / DRAWS


def relative_bias(mean, covariance):
    return np.linalg.norm(mean - covariance) / np.linalg.norm(covariance)


def test_known_rates_give_no_bias(draws):
    covariance, _, mean, _ = draws
    assert relative_bias(mean["naive"], covariance) > 0.4
    assert relative_bias(mean["ratio"], covariance) <= 0.01
    assert relative_bias(mean["ht"], covariance) <= 0.01


def test_estimated_rates_give_hardly_any(draws):
    covariance, _, mean, _ = draws
    assert relative_bias(mean["estimated"], covariance) <= 0.03
    assert relative_bias(mean["pairwise"], covariance) <= 0.03


def test_the_variance_is_that_of_proposition_2(draws):
    covariance, rates, _, second = draws
    both, own = rates @ rates.T, np.diag(covariance)
    squares = (rates**2) @ (rates**2).T
    variance = (np.outer(own, own) * both + covariance**2 * (2 * both - squares)) / both**2
    off = ~np.eye(N, dtype=bool)
    assert (second[off] / variance[off]).mean() == pytest.approx(1.0, abs=0.02)
    diagonal = own**2 * (rates * (3 - rates)).sum(1) / rates.sum(1) ** 2
    assert (np.diag(second) / diagonal).mean() == pytest.approx(1.0, abs=0.02)


def test_thinned_counts_give_the_gram_matrix_of_the_rates():
    """Depth correction of counts: E = sum over genes of a_s rate_is rate_js, diagonal too."""
    rng = np.random.default_rng(3)
    n, d, n_draws = 16, 200, 2000
    rates = rng.gamma(1.0, 1.0, size=(n, d))
    rates /= rates.sum(1, keepdims=True)
    depth = np.exp(rng.uniform(np.log(50), np.log(2000), n))
    total, naive = np.zeros((n, n)), np.zeros((n, n))
    for _ in range(n_draws):
        x = rng.poisson(rates * depth[:, None])
        y = x / depth[:, None]
        gram = y @ y.T
        naive += gram
        total += gram - np.diag((x / depth[:, None] ** 2).sum(1))
    truth = rates @ rates.T
    assert relative_bias(total / n_draws, truth) <= 0.01
    assert relative_bias(naive / n_draws, truth) > 0.3


def _model_gram(adata, **kwargs):
    setup = kwargs.pop("setup")
    GramDR.setup_anndata(adata, **setup)
    model = GramDR(adata, n_latent=3, **kwargs)
    model.train(enable_progress_bar=False, logger=False)
    return model.get_gram()


@pytest.mark.slow
def test_the_model_itself_is_unbiased_with_its_own_estimates_of_rates_and_depths():
    """The whole path: fitted rates and depths, not given ones; new features in every draw."""
    rng = np.random.default_rng(4)
    n, d, n_models = 40, 2000, 30
    x = rng.normal(size=(n, 3))
    cell = np.exp(rng.uniform(np.log(0.2), 0, n))
    total = np.zeros((n, n))
    for _ in range(n_models):
        signal = x @ rng.normal(size=(3, d))
        mask = rng.random((n, d)) < np.outer(cell, rng.uniform(0.4, 1, d))
        values = np.where(mask, signal, np.nan)
        total += _model_gram(AnnData(values), setup={"mask": "explicit"}, centre=False)
    assert relative_bias(total / n_models, x @ x.T) <= 0.03
    profile = rng.gamma(1.0, 1.0, size=(n, d))
    profile /= profile.sum(1, keepdims=True)
    depth = np.exp(rng.uniform(np.log(300), np.log(3000), n))
    total = np.zeros((n, n))
    for _ in range(n_models):
        counts = sparse.csr_matrix(rng.poisson(profile * depth[:, None]).astype(float))
        setup = {"mask": "counts"}
        choices = {"clip": None, "gene_scaling": "none", "centre": False}
        total += _model_gram(AnnData(counts), setup=setup, **choices)
    assert relative_bias(total / n_models, profile @ profile.T / d) <= 0.03
