"""Results: projection of new cells, streaming, saving, diagnostics, consensus, imputation."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from sczoo import errors
from sczoo.model import GramDR
from sczoo.model.gramdr import _fit, _rows
from sczoo.model.gramdr._scree import n_components, scree_bend
from sczoo.model.gramdr._solver import BlockKrylov
from sczoo.model.gramdr._spectrum import positive_mass
from sczoo.testing import example_cells

QUIET = {"enable_progress_bar": False}


def clusters(n=400, d=800, k=4, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(k, d)) * 0.6
    kind = rng.integers(k, size=n)
    return centres[kind] + noise * rng.normal(size=(n, d)), kind


def strong(n, d, seed):
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.uniform(np.log(0.1), 0, n))[:, None]
    return rng.random((n, d)) < rate * np.random.default_rng(7).uniform(0.3, 1.0, d)


def masked(y, seed=1):
    return AnnData(np.where(strong(*y.shape, seed), y, np.nan))


def fit(adata, n_latent=5, setup=None, train=None, **kwargs):
    GramDR.setup_anndata(adata, **(setup or {"mask": "explicit"}))
    model = GramDR(adata, n_latent=n_latent, **kwargs)
    model.train(**(QUIET | (train or {})))
    return model


# --- new cells --------------------------------------------------------------------------------


@pytest.mark.parametrize("normaliser", ["rank1", "paper", "ht"])
def test_the_cells_of_the_fit_are_the_eigenvectors_also_after_saving(normaliser, tmp_path):
    y, _ = clusters(n=150)
    adata = masked(y)
    model = fit(adata, normaliser=normaliser, n_latent=3, train={"tol": 1e-9})
    latent = model.get_latent_representation()
    model.save(tmp_path / "model")
    loaded = GramDR.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.get_latent_representation(adata.copy()), latent, atol=1e-6)
    shuffled = adata[:, ::-1].copy()
    np.testing.assert_allclose(loaded.get_latent_representation(shuffled), latent, atol=1e-6)
    part = loaded.get_latent_representation(adata[:50].copy())
    assert not np.allclose(part, latent[:50], atol=1e-3), "a part counts as new cells"
    gram = model.get_gram()
    weight = np.ones(150)
    if normaliser != "paper":
        observed = (~np.isnan(adata.X)).sum(1)
        scale = np.sqrt(observed) if normaliser == "ht" else observed
        weight = np.sqrt(scale / scale.mean())
    if normaliser != "rank1":  # the rank-one scale is checked elsewhere
        values = np.linalg.eigvalsh(weight[:, None] * gram * weight)[::-1][:3]
        np.testing.assert_allclose(model.get_explained_variance()["eigenvalue"], values, rtol=1e-5)


def test_new_cells_are_placed_as_well_as_those_of_the_fit():
    """Label accuracy of projected cells, beside cells embedded together and mean imputation."""
    y, kind = clusters(n=900, noise=1.5)
    mask = strong(900, 800, 3)
    values = np.where(mask, y, np.nan)
    old, new = np.arange(600), np.arange(600, 900)

    def accuracy(latent, query):
        found = KNeighborsClassifier(15).fit(latent, kind[old]).predict(query)
        return float((found == kind[new]).mean())

    together = fit(AnnData(values)).get_latent_representation()
    model = fit(AnnData(values[old]))
    projected = accuracy(
        model.get_latent_representation(), model.get_latent_representation(AnnData(values[new]))
    )
    assert projected >= accuracy(together[old], together[new]) - 0.01
    mean = np.nanmean(values[old], axis=0)
    imputed = np.where(mask, y, mean)
    pca = PCA(5, random_state=0).fit(imputed[old])
    plain = accuracy(pca.transform(imputed[old]), pca.transform(imputed[new]))
    assert projected >= plain - 0.02


def test_genes_that_a_query_lacks_are_unknown_not_zero():
    y, _ = clusters(n=200)
    model = fit(masked(y + 5.0))
    whole, _ = clusters(n=100, seed=5)
    names = model.var_names
    query = AnnData(whole + 5.0)
    query.var_names = names
    kept = np.sort(np.random.default_rng(0).choice(800, 700, replace=False))
    lacking = model.get_latent_representation(query[:, kept].copy())
    blanked = query.copy()
    blanked.X[:, np.setdiff1d(np.arange(800), kept)] = np.nan
    np.testing.assert_allclose(lacking, model.get_latent_representation(blanked), atol=1e-6)
    full = model.get_latent_representation(query)
    assert np.corrcoef(lacking[:, 0], full[:, 0])[0, 1] > 0.95
    prepared = GramDR.prepare_query_anndata(query[:, kept].copy(), model)
    np.testing.assert_allclose(model.get_latent_representation(prepared), lacking, atol=1e-6)


def test_a_query_brings_its_own_mask_through_preparation(tmp_path):
    y, _ = clusters(n=200)
    mask = strong(200, 800, 1)
    adata = AnnData(np.where(mask, y, 0.0))
    adata.layers["seen"] = mask
    model = fit(adata, setup={"mask": "explicit", "mask_layer": "seen"})
    query = AnnData(np.where(mask[:50], y[:50], 0.0))
    query.layers["seen"] = mask[:50]
    expected = model.get_latent_representation(query)
    turned = query[:, ::-1].copy()
    np.testing.assert_allclose(model.get_latent_representation(turned), expected, atol=1e-6)
    prepared = GramDR.prepare_query_anndata(turned, model)
    np.testing.assert_allclose(model.get_latent_representation(prepared), expected, atol=1e-6)
    model.save(tmp_path / "model")
    loaded = GramDR.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.get_latent_representation(query), expected)
    nan = AnnData(np.where(mask[:50], y[:50], np.nan))
    by_nan = fit(masked(y)).get_latent_representation(nan)
    np.testing.assert_allclose(np.abs(by_nan), np.abs(expected), atol=1e-4)


def test_pairs_of_a_loaded_model_are_projected(tmp_path):
    y, _ = clusters(n=150)
    adata = masked(y)
    model = fit(adata, normaliser="pairwise", n_latent=3)
    latent = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(indices=[5, 3]), latent[[5, 3]])
    model.save(tmp_path / "model")
    loaded = GramDR.load(tmp_path / "model").get_latent_representation(adata)
    for k in range(3):
        assert abs(np.corrcoef(loaded[:, k], latent[:, k])[0, 1]) > 0.97


def test_fitting_a_part_leaves_the_rest_to_projection():
    y, _ = clusters(n=200)
    model = fit(masked(y), train={"train_size": 0.5})
    assert model.provenance_["n_cells"] == 100
    assert model.get_latent_representation().shape == (200, 5)


# --- storage and streaming --------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["counts", "explicit"])
def test_memory_and_file_give_the_same_in_any_blocks(mask, tmp_path, monkeypatch):
    if mask == "counts":
        adata = example_cells(400, 90)
    else:
        adata = masked(clusters(n=400, d=90)[0])
    setup = {"mask": mask}
    expected = fit(adata.copy(), setup=setup, n_latent=3).get_latent_representation()

    monkeypatch.setattr(_rows, "_MOST_ROWS", 64)
    monkeypatch.setattr(_rows, "_FEWEST_ROWS", 64)
    streamed = fit(adata.copy(), setup=setup, n_latent=3, train={"max_memory_gib": 0.0})
    np.testing.assert_allclose(streamed.get_latent_representation(), expected, atol=1e-5)

    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    backed = anndata.read_h5ad(path, backed="r")
    model = fit(backed, setup=setup, n_latent=3, train={"max_memory_gib": 0.0})
    np.testing.assert_allclose(model.get_latent_representation(), expected, atol=1e-5)
    backed.file.close()


@pytest.mark.parametrize("mask", ["counts", "explicit"])
def test_dask_gives_the_same(mask):
    da = pytest.importorskip("dask.array")
    adata = example_cells(400, 90) if mask == "counts" else masked(clusters(n=400, d=90)[0])
    expected = fit(adata.copy(), setup={"mask": mask}, n_latent=3).get_latent_representation()
    dense = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
    lazy = AnnData(da.from_array(dense, chunks=(64, -1)), obs=adata.obs, var=adata.var)
    model = fit(lazy, setup={"mask": mask}, n_latent=3, train={"max_memory_gib": 0.0})
    np.testing.assert_allclose(model.get_latent_representation(), expected, atol=1e-5)
    query = lazy[50:90].copy()
    np.testing.assert_allclose(
        model.get_latent_representation(query),
        model.get_latent_representation(adata[50:90].copy()),
        atol=1e-5,
    )


def test_single_precision_of_large_data_agrees(monkeypatch):
    for mask in ("counts", "explicit"):
        adata = example_cells(300) if mask == "counts" else masked(clusters(n=300)[0])
        expected = fit(adata.copy(), setup={"mask": mask}, n_latent=3)
        monkeypatch.setattr(_rows, "_SINGLE_ABOVE", 10)
        single = fit(adata.copy(), setup={"mask": mask}, n_latent=3)
        monkeypatch.undo()
        assert (
            np.abs(single.get_latent_representation() - expected.get_latent_representation()).max()
            < 1e-3 * np.abs(expected.get_latent_representation()).max()
        )


def test_many_genes_start_at_random_and_agree(monkeypatch):
    adata = masked(clusters(n=300)[0])
    expected = fit(adata.copy(), n_latent=3, train={"tol": 1e-7})
    monkeypatch.setattr(_fit, "_MOST_GENES_FOR_COVARIANCE", 10)
    random = fit(adata.copy(), n_latent=3, train={"tol": 1e-7})
    np.testing.assert_allclose(
        random.get_latent_representation(), expected.get_latent_representation(), atol=1e-5
    )
    residual = random.history["residual"].to_numpy().ravel()
    assert len(residual) > 2
    assert residual[-1] <= 1e-7
    assert residual[-1] < residual[0]


def test_time_and_passes_are_limits():
    model = fit(masked(clusters(n=300, noise=3.0)[0]), train={"max_epochs": 1, "tol": 1e-12})
    assert len(model.history["residual"]) == 1
    assert np.isfinite(model.get_latent_representation()).all()
    limited = fit(
        masked(clusters(n=100)[0]), train={"max_time": {"seconds": 30}, "max_epochs": 100}
    )
    assert limited.is_trained_


# --- the solver and the spectrum --------------------------------------------------------------


def test_the_solver_finds_leading_pairs_through_restarts():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(300, 300)))
    values = np.concatenate([np.geomspace(10, 1, 8), rng.uniform(-0.9, 0.9, 292)])
    matrix = (q * values) @ q.T
    solver = BlockKrylov(lambda v: (matrix @ v, 2.0 * v), rng.normal(size=(300, 10)), 8, 3)
    for _ in range(60):
        solver.step()
        if solver.residual() < 1e-9:
            break
    np.testing.assert_allclose(solver.values[:8], np.geomspace(10, 1, 8), atol=1e-8)
    vectors = solver.vectors(8)
    np.testing.assert_allclose(np.abs((vectors * q[:, :8]).sum(0)), 1, atol=1e-8)
    np.testing.assert_allclose(solver.auxiliary(8), 2 * vectors, atol=1e-10)
    true = np.linalg.norm(matrix @ vectors - vectors * solver.values[:8], axis=0)
    np.testing.assert_allclose(true, solver.residuals[:8], atol=1e-9)


def test_the_solver_stops_where_the_operator_reaches_no_further():
    low = np.outer(np.ones(20), np.ones(20))
    solver = BlockKrylov(lambda v: (low @ v, v), np.random.default_rng(0).normal(size=(20, 4)), 4)
    for _ in range(10):
        solver.step()
    assert solver.residual() < 1e-10
    assert solver.values[0] == pytest.approx(20)


def test_the_mass_of_the_spectrum_is_estimated_for_many_cells():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.uniform(0, 2, 1200), rng.uniform(-1, 0, 900)])
    positive, negative = positive_mass(lambda v: values[:, None] * v, len(values), 0)
    assert positive == pytest.approx(values[values > 0].sum(), rel=0.05)
    assert negative == pytest.approx(-values[values < 0].sum(), rel=0.1)


def test_the_number_of_components_by_scree_share_and_number():
    scree = np.array([50.0, 30, 20, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    slopes = [np.polyfit(range(3), scree[i : i + 3], 1)[0] for i in range(7)]
    best = int(np.argmax([slopes[i + 3] - slopes[i] for i in range(4)]))
    assert scree_bend(scree) == best + 2
    assert n_components(0.9, scree, scree.sum()) == 3
    assert n_components(4, scree, 0.0) == 4
    assert n_components("all", scree, 0.0) == 9
    y, _ = clusters(n=200, k=4)
    assert fit(masked(y), n_latent="scree").get_latent_representation().shape[1] in (2, 3, 4)
    share = fit(masked(y), n_latent=0.3)
    found = share.get_diagnostics()
    assert found["explained"] >= 0.3
    fewer = share.get_explained_variance()["eigenvalue"].iloc[:-1].sum()
    assert fewer / found["positive_mass"] < 0.3


def test_diagnostics_are_those_of_the_dense_matrix():
    y, _ = clusters(n=150)
    adata = masked(y)
    model = fit(adata, n_latent=3, weight_power=0.0, train={"tol": 1e-9})
    values = np.linalg.eigvalsh(model.get_gram())
    found = model.get_diagnostics()
    assert found["positive_mass"] == pytest.approx(values[values > 0].sum(), rel=1e-6)
    assert found["negative_mass"] == pytest.approx(-values[values < 0].sum(), rel=1e-6)
    assert 0 < found["subtracted"] < 1
    full = fit(AnnData(y), n_latent=3, weight_power=0.0).get_diagnostics()
    assert full["negative_share"] < 1e-6 < found["negative_share"]
    model._adata = AnnData(y)
    with pytest.raises(errors.InputError, match="attached"):
        model.get_diagnostics()


# --- what is said about genes and cells -------------------------------------------------------


@pytest.mark.parametrize("normaliser", ["rank1", "paper", "ht"])
def test_loadings_and_imputation_recover_what_was_hidden(normaliser):
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(400, 3)), rng.normal(size=(600, 3))
    truth = x @ a.T + 3.0
    y = truth + 0.5 * rng.normal(size=truth.shape)
    adata = masked(y)
    model = fit(adata, n_latent=3, normaliser=normaliser)
    hidden = np.isnan(adata.X)
    filled = model.impute()
    np.testing.assert_allclose(filled[~hidden], adata.X[~hidden], rtol=1e-5)
    mean = np.broadcast_to(np.nanmean(adata.X, axis=0), y.shape)
    error = np.sqrt(((filled - truth)[hidden] ** 2).mean())
    assert error < 0.45 * np.sqrt(((mean - truth)[hidden] ** 2).mean())
    loadings = model.get_feature_loadings().to_numpy()
    fitted = np.linalg.lstsq(a, loadings, rcond=None)[0]
    limit = 0.2 if normaliser == "rank1" else 0.3
    assert np.linalg.norm(loadings - a @ fitted) < limit * np.linalg.norm(loadings)


def test_imputed_counts_are_rates():
    cells = example_cells(500, 80)
    model = fit(cells, n_latent=4, setup={"mask": "counts"}, clip=None)
    rates = model.impute(target_sum=1.0)
    assert rates.min() >= 0
    assert rates.sum(1).mean() == pytest.approx(1.0, abs=0.02)
    observed = cells.X.toarray()
    by_kind = cells.obs["cell_type"].to_numpy()
    for kind in np.unique(by_kind):
        pooled = observed[by_kind == kind].sum(0)
        pooled = pooled / pooled.sum()
        assert np.corrcoef(rates[by_kind == kind].mean(0), pooled)[0, 1] > 0.99


def test_reliability_predicts_the_error_of_the_coordinates():
    """The stated standard error against the error found over repeated masks."""
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(300, 2)), rng.normal(size=(500, 2))
    y = x @ a.T + rng.normal(size=(300, 500))
    model = fit(AnnData(np.where(strong(300, 500, 1), y, np.nan)), n_latent=2)
    reference = model.get_latent_representation(AnnData(x @ a.T))
    errors_found, stated = [], []
    for seed in range(20):
        noisy = x @ a.T + rng.normal(size=y.shape)
        query = AnnData(np.where(strong(300, 500, 10 + seed), noisy, np.nan))
        found = model.get_latent_representation(query)
        errors_found.append(((found - reference) ** 2).mean(1))
        trust = model.get_reliability(query)
        stated.append(trust["standard_error"].to_numpy() ** 2)
    ratio = np.mean(stated) / np.mean(errors_found)
    assert 0.5 < ratio < 2.0
    stated, errors_found = np.ravel(stated), np.ravel(errors_found)
    quarter = np.digitize(stated, np.quantile(stated, [0.25, 0.5, 0.75]))
    for number in range(4):
        chosen = quarter == number
        assert 0.5 < stated[chosen].mean() / errors_found[chosen].mean() < 2.0
    trust = model.get_reliability(query)
    assert (
        np.corrcoef(
            trust["observed"],
            trust["reliability"],
        )[0, 1]
        > 0.5
    )
    assert trust["reliability"].between(0, 1).all()


def test_observation_probabilities_and_what_has_none():
    y, _ = clusters(n=200)
    rng = np.random.default_rng(0)
    rates = np.outer(rng.uniform(0.3, 0.9, 200), rng.uniform(0.3, 1.0, 800))
    model = fit(AnnData(np.where(rng.random(y.shape) < rates, y, np.nan)))
    found = model.get_observation_probabilities()
    assert np.abs(found - rates).mean() < 0.03
    counts = fit(example_cells(), setup={"mask": "counts"})
    with pytest.raises(errors.InputError, match="depth"):
        counts.get_observation_probabilities()
    assert (counts.get_reliability()["reliability"] > 0).all()


def test_a_consensus_mask_keeps_true_zeros_and_judges_new_cells(tmp_path):
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=300)
    mean = rng.gamma(2.0, 1.0, size=(3, 200)) * (rng.random((3, 200)) < 0.6)
    y = np.maximum(mean[kind] + 0.2 * rng.normal(size=(300, 200)), 0) * (mean[kind] > 0)
    lost = rng.random(y.shape) < 0.25
    values = np.where(lost, 0.0, y)
    adata = AnnData(sparse.csr_matrix(values))
    model = fit(adata, setup={"mask": "consensus"}, n_latent=2)
    reader, _ = model._reader()
    pattern = np.concatenate([block.pattern for block in reader]) > 0
    true_zero = mean[kind] == 0
    assert pattern[true_zero].mean() > 0.95
    assert pattern[lost & (mean[kind] > 0.5)].mean() < 0.1
    assert pattern[values > 0].all()
    model.save(tmp_path / "model")
    loaded = GramDR.load(tmp_path / "model")
    query = AnnData(sparse.csr_matrix(values[:40]))
    np.testing.assert_array_equal(
        loaded.get_latent_representation(query), model.get_latent_representation(query)
    )


def test_nothing_per_cell_is_saved(tmp_path):
    y, _ = clusters(n=211, d=97)
    model = fit(masked(y))
    for name, array in model.module.state_dict().items():
        assert 211 not in array.shape, name
    model.save(tmp_path / "model")
    assert sum(file.stat().st_size for file in (tmp_path / "model").iterdir()) < 100_000
