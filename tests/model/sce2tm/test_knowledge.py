"""The stand-in for outside knowledge."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sczoo.model.sce2tm._knowledge import expression_pca, half_whitened


def test_half_whitening_takes_the_root_of_every_deviation():
    rng = np.random.default_rng(0)
    components = rng.normal(size=(500, 4)) * [100.0, 10.0, 1.0, 0.1]
    components -= components.mean(axis=0)
    before, after = components.std(axis=0), half_whitened(components).std(axis=0)
    np.testing.assert_allclose(after, np.sqrt(before), rtol=1e-6)


def test_components_beyond_the_rank_stay_zero():
    # four cells have three components; the rest of the fifty is padding
    rng = np.random.default_rng(0)
    expression = sparse.csr_matrix(rng.random((4, 80)), dtype=np.float32)
    found = half_whitened(expression_pca(expression))
    assert np.isfinite(found).all()
    assert found.shape == (4, 50)
    assert np.abs(found[:, 3:]).max() < 1e-2
