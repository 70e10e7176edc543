"""Every mask and normaliser against a dense reference written out from the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from sczoo import errors
from sczoo.model import GramDR


def low_rank(n=150, d=400, k=3, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, k)) * np.array([3.0, 2.0, 1.5])[:k]
    loadings = rng.normal(size=(d, k))
    return x @ loadings.T + rng.normal(size=(n, d)) * noise + rng.normal(size=d), x


def strong_mask(n, d, seed=1):
    rng = np.random.default_rng(seed)
    c = np.exp(rng.uniform(np.log(0.1), 0, n))
    g = rng.uniform(0.3, 1.0, d)
    return rng.random((n, d)) < c[:, None] * g, c[:, None] * g


def masked(y, mask):
    return AnnData(np.where(mask, y, np.nan).astype(np.float64))


def fit(adata, n_latent=3, setup=None, train=None, **kwargs):
    GramDR.setup_anndata(adata, **({"mask": "explicit"} | (setup or {})))
    model = GramDR(adata, n_latent=n_latent, **kwargs)
    model.train(**({"tol": 1e-10, "enable_progress_bar": False} | (train or {})))
    return model


def embedding_of(gram, weight, k):
    values, vectors = np.linalg.eigh(weight[:, None] * gram * weight)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    return vectors / weight[:, None] * np.sqrt(values)


def same_up_to_sign(found, expected, tolerance):
    sign = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(
        found * sign, expected, atol=tolerance * np.abs(expected).max(), rtol=0
    )


def centred(y, mask):
    mean = np.where(mask, y, 0).sum(0) / np.maximum(mask.sum(0), 1)
    return np.where(mask, y - mean, 0.0)


def rank_one_scale(mask):
    """Fit r by plain dense iterations of the leading vector with a free diagonal."""
    shared = (mask.astype(float) @ mask.T.astype(float)).astype(float)
    r = np.sqrt(mask.sum(1).astype(float))
    for _ in range(2000):
        off = shared - np.diag(np.diag(shared)) + np.diag(r**2)
        new = off @ r / (r @ r)
        new *= np.sqrt(np.linalg.norm(r) / np.linalg.norm(new))
        if np.allclose(new, r, rtol=1e-13):
            break
        r = new
    return r


def test_without_missing_values_it_is_principal_component_analysis():
    y, _ = low_rank()
    adata = AnnData(y.copy())
    found = fit(adata).get_latent_representation()
    c = y - y.mean(0)
    u, s, _ = np.linalg.svd(c, full_matrices=False)
    same_up_to_sign(found, u[:, :3] * s[:3] / np.sqrt(y.shape[1]), 1e-5)


@pytest.mark.parametrize("normaliser", ["rank1", "pairwise", "paper", "ht"])
def test_each_normaliser_equals_the_dense_formula(normaliser):
    y, _ = low_rank()
    mask, _ = strong_mask(*y.shape)
    n, d = y.shape
    c = centred(y, mask)
    m = mask.sum(1).astype(float)
    if normaliser == "rank1":
        r = rank_one_scale(mask)
        gram = c @ c.T / np.outer(r, r)
        np.fill_diagonal(gram, (c**2).sum(1) / m)
        weight = np.sqrt(r / r.mean())
    elif normaliser == "pairwise":
        shared = mask.astype(float) @ mask.T.astype(float)
        gram = np.where(shared > 0, c @ c.T / np.maximum(shared, 1), 0)
        r = rank_one_scale(mask)
        weight = np.sqrt(r / r.mean())
    elif normaliser == "paper":
        rows, columns = mask.mean(1), mask.mean(0)
        nc = max(np.outer(rows, columns).max(), mask.mean())
        p = np.outer(rows, columns) / nc
        gram = c @ c.T / (p @ p.T)
        np.fill_diagonal(gram, (c**2).sum(1) / p.sum(1))
        weight = np.ones(n)
    else:
        p = np.clip(np.outer(mask.mean(1), mask.mean(0)) / mask.mean(), 0.02, 1)
        gram = (c / p) @ (c / p).T / d
        np.fill_diagonal(gram, (c**2 / p).sum(1) / d)
        weight = np.sqrt(np.sqrt(m) / np.sqrt(m).mean())
    model = fit(masked(y, mask), normaliser=normaliser)
    same_up_to_sign(model.get_latent_representation(), embedding_of(gram, weight, 3), 1e-4)
    np.testing.assert_allclose(model.get_gram(), gram, rtol=0, atol=1e-6 * np.abs(gram).max())
    distances = model.get_distances(indices=[0, 5, 9])
    part = gram[np.ix_([0, 5, 9], [0, 5, 9])]
    squared = np.add.outer(np.diag(part), np.diag(part)) - 2 * part
    np.testing.assert_allclose(distances**2, np.maximum(squared, 0), atol=1e-5)


def test_mask_layer_sparse_matrix_and_nan_say_the_same():
    y, _ = low_rank()
    mask, _ = strong_mask(*y.shape)
    expected = fit(masked(y, mask)).get_latent_representation()
    rare = mask & (np.random.default_rng(3).random(mask.shape) < 0.2)
    for chosen, reference in (
        (mask, expected),
        (rare, fit(masked(y, rare)).get_latent_representation()),
    ):
        for values in (np.where(chosen, y, 7.0), sparse.csr_matrix(np.where(chosen, y, 0.0))):
            for seen in (chosen.astype(np.uint8), sparse.csr_matrix(chosen.astype(float))):
                adata = AnnData(values)
                adata.layers["seen"] = seen
                found = fit(adata, setup={"mask_layer": "seen"}).get_latent_representation()
                np.testing.assert_allclose(found, reference, atol=1e-5)


def test_sparse_nan_beside_a_mask_layer_is_missing():
    y, _ = low_rank()
    mask, _ = strong_mask(*y.shape)
    rare = mask & (np.random.default_rng(3).random(mask.shape) < 0.2)
    values = sparse.csr_matrix(np.where(rare, y, 0.0))
    adata = AnnData(values.copy())
    adata.layers["seen"] = sparse.csr_matrix(rare.astype(float))
    adata.X.data[:50] = np.nan
    found = fit(adata, setup={"mask_layer": "seen"}).get_latent_representation()
    dense = values.toarray()
    gone = np.isnan(adata.X.toarray())
    other = AnnData(np.where(rare & ~gone, dense, np.nan))
    np.testing.assert_allclose(found, fit(other).get_latent_representation(), atol=1e-5)


def test_nonzero_takes_every_zero_as_missing():
    y, _ = low_rank(noise=0.3)
    y = np.abs(y) / 10
    mask, _ = strong_mask(*y.shape)
    adata = AnnData(sparse.csr_matrix(np.where(mask, y, 0.0)))
    found = fit(adata, setup={"mask": "nonzero"}).get_latent_representation()
    expected = fit(masked(y, mask)).get_latent_representation()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_nonzero_is_refused_on_umi_data_unless_forced():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 1.0, size=(60, 200)) * 1.5).astype(float)
    log = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    for values in (counts, log):
        adata = AnnData(sparse.csr_matrix(values))
        with pytest.raises(errors.InputError, match="UMI"):
            GramDR.setup_anndata(adata, mask="nonzero")
        assert "_scvi_uuid" not in adata.uns
        GramDR.setup_anndata(adata, mask="nonzero", force=True)
        model = GramDR(adata, n_latent=5)
        model.train(enable_progress_bar=False)
        assert np.isfinite(model.get_latent_representation()).all()


def test_batches_with_other_genes_are_related_through_what_they_share():
    y, x = low_rank(n=240, d=600, noise=0.5)
    batch = np.repeat(["a", "b", "c"], 80)
    mask = np.ones(y.shape, dtype=bool)
    mask[:80, :250] = False
    mask[80:160, 200:450] = False
    mask[160:, 400:] = False
    adata = masked(y, mask)
    adata.obs["tech"] = batch
    with_key = fit(adata, setup={"batch_key": "tech"})
    c = centred(y, mask)
    shared = mask.astype(float) @ mask.T.astype(float)
    np.testing.assert_allclose(
        with_key.get_gram(), c @ c.T / shared, atol=1e-6 * np.abs(c @ c.T / shared).max()
    )
    without = fit(masked(y, mask))
    truth = x - x.mean(0)

    def error(found):
        fitted = found @ np.linalg.lstsq(found, truth, rcond=None)[0]
        return np.linalg.norm(fitted - truth) / np.linalg.norm(truth)

    best = error(with_key.get_latent_representation())
    assert best < 0.06
    assert best < error(without.get_latent_representation())


def test_counts_measured_with_other_panels():
    rng = np.random.default_rng(5)
    kind = rng.integers(3, size=300)
    profile = rng.gamma(0.5, 1.0, size=(3, 300))
    profile /= profile.sum(1, keepdims=True)
    depth = np.exp(rng.uniform(np.log(500), np.log(5000), 300))
    counts = rng.poisson(profile[kind] * depth[:, None]).astype(np.float32)
    tech = np.where(np.arange(300) < 150, "whole", "panel")
    absent = rng.choice(300, 120, replace=False)
    counts[np.ix_(np.flatnonzero(tech == "panel"), absent)] = 0
    adata = AnnData(sparse.csr_matrix(counts))
    adata.obs["tech"] = tech
    model = fit(adata, n_latent=3, setup={"mask": "counts", "batch_key": "tech"})
    plain = fit(AnnData(sparse.csr_matrix(counts)), n_latent=3, setup={"mask": "counts"})

    def spread(latent):
        between = np.mean(
            [
                np.linalg.norm(
                    latent[(kind == k) & (tech == "whole")].mean(0)
                    - latent[(kind == k) & (tech == "panel")].mean(0)
                )
                for k in range(3)
            ]
        )
        centres = np.stack([latent[kind == k].mean(0) for k in range(3)])
        return between / np.linalg.norm(centres - centres.mean(0), axis=1).mean()

    aware = spread(model.get_latent_representation())
    assert aware < 0.15
    assert aware < 0.4 * spread(plain.get_latent_representation())
    panels = model.get_panels()
    assert list(panels.index) == ["panel", "whole"]
    found = np.flatnonzero(~panels.loc["panel"] & (counts.sum(0) > 0))
    assert panels.loc["whole"].to_numpy()[counts.sum(0) > 0].all()
    assert set(found) <= set(absent)
    assert len(found) > 100
