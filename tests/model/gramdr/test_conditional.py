"""Coordinates given what was observed: scikit-learn as oracle, and what they are better for."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from sczoo import errors
from sczoo.model import GramDR
from sczoo.model.gramdr._conditional import ConditionalScores
from sczoo.model.gramdr._rows import RowBlock
from sczoo.model.gramdr._state import GeneState

QUIET = {"enable_progress_bar": False}


def low_rank(n, d, seed, noise):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 3)) * [3.0, 2.0, 1.0]
    return latent @ rng.normal(size=(3, d)) + 5.0 + noise * rng.normal(size=(n, d))


def observed(n, d, seed, lowest=0.1):
    rng = np.random.default_rng(seed)
    return rng.random((n, d)) < np.exp(rng.uniform(np.log(lowest), 0, n))[:, None]


def fit(y, mask, n_latent=3):
    adata = AnnData(np.where(mask, y, np.nan))
    GramDR.setup_anndata(adata, mask="explicit")
    model = GramDR(adata, n_latent=n_latent)
    model.train(**QUIET)
    return model


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 20),
    d=st.integers(3, 40),
    k=st.integers(1, 5),
    noise=st.floats(0.01, 10.0),
    as_sparse=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_each_cell_is_a_ridge_regression_on_its_own_genes(seed, n, d, k, noise, as_sparse):
    rng = np.random.default_rng(seed)
    loadings, prior = rng.normal(size=(d, k)), rng.uniform(0.1, 3.0, k)
    y, mask = rng.normal(size=(n, d)) + 2.0, rng.random((n, d)) < 0.5
    mask[0] = False
    state = GeneState.empty(d, 1, k)
    state.centre = rng.normal(size=d)
    state.residual_variance, state.latent_variance = np.array(noise), prior
    wrap = sparse.csr_matrix if as_sparse else np.asarray
    block = RowBlock(
        np.arange(n), wrap(np.where(mask, y, 0.0)), wrap(mask.astype(float)), np.zeros(n, int)
    )
    got = ConditionalScores(state, loadings)(block)
    assert (got[0] == 0).all()
    for row in range(1, n):
        seen = mask[row]
        if not seen.any():
            continue
        # with x = sqrt(l) z the prior is the identity, and ridge's penalty the noise
        ridge = Ridge(alpha=noise, fit_intercept=False, solver="svd", tol=1e-12)
        ridge.fit(loadings[seen] * np.sqrt(prior), y[row, seen] - state.centre[seen])
        np.testing.assert_allclose(got[row], np.sqrt(prior) * ridge.coef_, rtol=1e-6, atol=1e-8)


def test_without_noise_and_missing_values_both_scores_are_the_same():
    y = low_rank(200, 300, 0, noise=1e-4)
    model = fit(y, np.ones(y.shape, bool))
    gram = model.get_latent_representation()
    np.testing.assert_allclose(
        model.get_latent_representation(scores="conditional"), gram, atol=1e-3 * gram.std()
    )


def test_cells_of_the_fit_and_copies_of_them_get_the_same():
    y = low_rank(150, 200, 1, noise=1.0)
    mask = observed(150, 200, 2)
    model = fit(y, mask)
    part = AnnData(np.where(mask, y, np.nan)[:40])
    part.var_names = model.adata.var_names
    np.testing.assert_allclose(
        model.get_latent_representation(part, scores="conditional"),
        model.get_latent_representation(indices=range(40), scores="conditional"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_hidden_values_are_predicted_better():
    y = low_rank(300, 400, 3, noise=1.0)
    mask = observed(300, 400, 4, lowest=0.05)
    model = fit(y, mask)
    error = {
        scores: np.sqrt(((model.impute(scores=scores) - y)[~mask] ** 2).mean())
        for scores in ("gram", "conditional")
    }
    centre = np.where(mask, y, 0).sum(0) / mask.sum(0)
    mean = np.sqrt(((centre - y)[~mask] ** 2).mean())
    assert error["conditional"] < 0.9 * error["gram"]
    assert error["conditional"] < 0.6 * mean


def test_neighbours_are_purer_on_real_cells(shared_data):
    adata = anndata.read_h5ad(shared_data("pollen_log.h5ad"))
    y = np.asarray(adata.X.toarray() if sparse.issparse(adata.X) else adata.X, dtype=float)
    y = y[:, np.argsort(y.var(0))[::-1][:1000]]
    kind = adata.obs["cell_type"].astype(str).to_numpy()
    model = fit(y, observed(*y.shape, 5), n_latent=10)

    def purity(latent):
        near = NearestNeighbors(n_neighbors=11).fit(latent).kneighbors(latent)[1][:, 1:]
        return (kind[near] == kind[:, None]).mean()

    gram = purity(model.get_latent_representation())
    assert purity(model.get_latent_representation(scores="conditional")) > gram


def test_what_is_refused(tmp_path):
    y = low_rank(60, 80, 6, noise=1.0)
    model = fit(y, observed(60, 80, 7))
    with pytest.raises(errors.InputError, match="not known"):
        model.get_latent_representation(scores="posterior")
    counts = AnnData(np.random.default_rng(0).poisson(2.0, (60, 80)).astype(np.float32))
    GramDR.setup_anndata(counts)
    model = GramDR(counts, n_latent=3)
    model.train(**QUIET)
    with pytest.raises(errors.InputError, match="every value is observed"):
        model.get_latent_representation(scores="conditional")
