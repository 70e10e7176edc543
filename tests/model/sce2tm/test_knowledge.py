"""The stand-in for outside knowledge."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sczoo.model.sce2tm._knowledge import expression_pca, half_scaled, half_whitened


def test_half_whitening_takes_the_root_of_every_deviation():
    rng = np.random.default_rng(0)
    components = rng.normal(size=(500, 4)) * [100.0, 10.0, 1.0, 0.1]
    components -= components.mean(axis=0)
    before, after = components.std(axis=0), half_whitened(components).std(axis=0)
    np.testing.assert_allclose(after, np.sqrt(before), rtol=1e-6)


def test_half_scaling_takes_the_root_of_every_genes_deviation():
    rng = np.random.default_rng(0)
    dense = rng.random((300, 6)) * [100.0, 10.0, 1.0, 0.1, 1.0, 0.0]
    dense[rng.random(dense.shape) < 0.5] = 0.0
    dense[:, 4] = 3.0
    scaled = half_scaled(sparse.csr_matrix(dense, dtype=np.float32)).toarray()
    root = np.sqrt(dense.std(axis=0))
    np.testing.assert_allclose(scaled[:, :4].std(axis=0), root[:4], rtol=1e-5)
    assert not scaled[:, 4:].any(), "genes that do not vary take no part"


def test_components_beyond_the_rank_stay_zero():
    # four cells have three components; the rest of the fifty is padding
    rng = np.random.default_rng(0)
    expression = sparse.csr_matrix(rng.random((4, 80)), dtype=np.float32)
    found = half_whitened(expression_pca(expression))
    assert np.isfinite(found).all()
    assert found.shape == (4, 50)
    assert np.abs(found[:, 3:]).max() < 1e-2
