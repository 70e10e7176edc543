"""Bad input: typed errors that name the place, or behaviour that is documented."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from sczoo import errors
from sczoo.model import GramDR
from sczoo.testing import example_cells


def values(n=60, d=120, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.3 * rng.normal(size=(n, d))


def fit(adata, n_latent=3, setup=None, **kwargs):
    GramDR.setup_anndata(adata, **(setup or {"mask": "explicit"}))
    model = GramDR(adata, n_latent=n_latent, **kwargs)
    model.train(enable_progress_bar=False, logger=False)
    return model


def test_a_cell_or_gene_never_observed_is_placed_at_the_origin_with_a_warning(caplog):
    y = values()
    y[np.random.default_rng(1).random(y.shape) < 0.3] = np.nan
    y[4], y[:, 7] = np.nan, np.nan
    with caplog.at_level(logging.WARNING, logger="sczoo"):
        model = fit(AnnData(y))
    assert "1 cell(s) and 1 gene(s) have no observed value" in caplog.text
    latent = model.get_latent_representation()
    assert np.isfinite(latent).all()
    assert (latent[4] == 0).all()
    assert (model.get_feature_loadings().iloc[7] == 0).all()
    trust = model.get_reliability()
    assert trust["reliability"].iloc[4] == 0
    assert trust["reliability"].drop(trust.index[4]).min() > 0.5
    assert np.isfinite(model.get_gram()).all()
    assert np.isfinite(model.impute()).all()


def test_an_empty_cell_or_silent_gene_of_counts(caplog):
    cells = example_cells()
    matrix = cells.X.toarray()
    matrix[3], matrix[:, 5] = 0, 0
    with caplog.at_level(logging.WARNING, logger="sczoo"):
        model = fit(AnnData(sparse.csr_matrix(matrix)), setup={"mask": "counts"})
    assert "1 cell(s) have no counts" in caplog.text
    latent = model.get_latent_representation()
    assert np.isfinite(latent).all()
    assert (latent[3] == 0).all()
    assert (model.get_feature_loadings().iloc[5] == 0).all()


@pytest.mark.parametrize("mask", ["counts", "explicit", "nonzero"])
def test_all_missing_is_refused(mask):
    matrix = np.full((30, 60), np.nan) if mask == "explicit" else np.zeros((30, 60))
    adata = AnnData(matrix)
    GramDR.setup_anndata(adata, mask=mask)
    model = GramDR(adata, n_latent=2)
    with pytest.raises(errors.EmptyDataError):
        model.train(enable_progress_bar=False, logger=False)
    assert not model.is_trained_


def test_few_genes_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING, logger="sczoo"):
        fit(AnnData(values(d=30)))
    assert "only 30 genes" in caplog.text


def test_nothing_missing_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="sczoo"):
        fit(AnnData(values()))
    assert "nothing is missing" in caplog.text


def test_a_mask_must_exist_and_hold_zeros_and_ones():
    adata = AnnData(values())
    with pytest.raises(errors.MissingKeyError, match="seen"):
        GramDR.setup_anndata(adata, mask="explicit", mask_layer="seen")
    adata.layers["seen"] = np.full(adata.shape, 2.0)
    with pytest.raises(errors.InputError, match="1 \\(or True\\)"):
        GramDR.setup_anndata(adata, mask="explicit", mask_layer="seen")
    with pytest.raises(errors.InputError, match="mask='explicit'"):
        GramDR.setup_anndata(adata, mask="counts", mask_layer="seen")
    with pytest.raises(errors.InputError, match="not known"):
        GramDR.setup_anndata(adata, mask="zeros")
    assert "_scvi_uuid" not in adata.uns


def test_a_mask_of_another_shape_is_refused_for_a_query_too():
    adata = AnnData(values())
    adata.layers["seen"] = np.ones(adata.shape, dtype=bool)
    model = fit(adata, setup={"mask": "explicit", "mask_layer": "seen"})
    query = AnnData(values(seed=1))
    with pytest.raises(errors.MissingKeyError, match="seen"):
        model.get_latent_representation(query)
    with pytest.raises(ValueError, match="shape"):
        query.layers["seen"] = np.ones((60, 119))


def test_nan_without_a_mask_is_refused():
    y = np.abs(np.round(values(seed=2)))
    y[3, 4] = np.nan
    for mask in ("counts", "consensus", "nonzero"):
        with pytest.raises(errors.NotFiniteError, match="row 3"):
            GramDR.setup_anndata(AnnData(y.copy()), mask=mask)
    y[3, 4] = np.inf
    with pytest.raises(errors.NotFiniteError):
        GramDR.setup_anndata(AnnData(y), mask="explicit")


def test_counts_must_be_counts():
    y = np.abs(np.round(values()))
    y[2, 1] = -1
    with pytest.raises(errors.NegativeValuesError):
        GramDR.setup_anndata(AnnData(y.copy()))
    y[2, 1] = 0.5
    with pytest.raises(errors.NotCountsError):
        GramDR.setup_anndata(AnnData(y))


def test_a_consensus_mask_reads_logarithms():
    counts = np.random.default_rng(0).poisson(3.0, size=(50, 80)).astype(float)
    with pytest.raises(errors.NotLogNormalisedError):
        GramDR.setup_anndata(AnnData(counts), mask="consensus")


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_latent": 0},
        {"n_latent": 1.5},
        {"n_latent": "bend"},
        {"n_latent": True},
        {"normaliser": "depths"},
        {"gene_scaling": "log"},
        {"clip": 0},
        {"weight_power": -1},
        {"max_components": 0},
    ],
)
def test_senseless_arguments_are_refused(arguments):
    adata = AnnData(values())
    GramDR.setup_anndata(adata, mask="explicit")
    with pytest.raises(errors.InputError, match=next(iter(arguments))):
        GramDR(adata, **arguments)


def test_senseless_training_arguments_are_refused():
    adata = AnnData(values())
    GramDR.setup_anndata(adata, mask="explicit")
    model = GramDR(adata, n_latent=2)
    for arguments in ({"tol": 0.0}, {"max_memory_gib": -1.0}, {"max_epochs": 0}):
        with pytest.raises(errors.InputError):
            model.train(**arguments)
    with pytest.raises(errors.InputError, match="one, without ddp"):
        model.train(strategy="ddp")


def test_a_mask_normaliser_is_not_for_counts():
    adata = example_cells()
    GramDR.setup_anndata(adata)
    with pytest.raises(errors.InputError, match="depth"):
        GramDR(adata, normaliser="rank1")


def test_more_components_than_there_are_gives_fewer(caplog):
    y = values(n=40, d=200)
    with caplog.at_level(logging.WARNING, logger="sczoo"):
        model = fit(AnnData(y), n_latent=100)
    assert "of 100 components" in caplog.text
    assert model.get_latent_representation().shape[1] < 40


def test_pure_noise_still_gives_finite_results():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(50, 100))
    y[rng.random(y.shape) < 0.5] = np.nan
    assert np.isfinite(fit(AnnData(y)).get_latent_representation()).all()


def test_too_many_cells_for_pairs_or_a_gram_matrix(monkeypatch):
    from sczoo.model.gramdr import _gram, _pairwise

    model = fit(AnnData(values()))
    monkeypatch.setattr(_gram, "_MOST_CELLS", 50)
    with pytest.raises(errors.InputError, match="indices="):
        model.get_gram()
    assert model.get_gram(indices=range(20)).shape == (20, 20)
    monkeypatch.setattr(_pairwise, "MOST_PAIRWISE_CELLS", 50)
    with pytest.raises(errors.InputError, match="rank1"):
        fit(AnnData(values()), normaliser="pairwise")
