from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from sczoo.errors import InputError, NotFiniteError
from sczoo.graph import umap_layout
from sczoo.graph._layout import principal_plane


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(300, 10, centers=4, cluster_std=1.0, random_state=0)


def test_keeps_groups_together(blobs):
    data, truth = blobs
    coordinates = umap_layout(data)
    assert coordinates.shape == (300, 2)
    assert np.isfinite(coordinates).all()
    near = KNeighborsClassifier(5).fit(coordinates[::2], truth[::2])
    assert near.score(coordinates[1::2], truth[1::2]) > 0.98


def test_repeats_and_leaves_global_state(blobs):
    random.seed(3)
    state = random.getstate()
    first = umap_layout(blobs[0], n_epochs=50)
    assert random.getstate() == state
    random.seed(4)
    np.testing.assert_array_equal(first, umap_layout(blobs[0], n_epochs=50))


def test_plane_is_that_of_pca(blobs):
    ours, theirs = principal_plane(blobs[0]), PCA(2).fit_transform(blobs[0])
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)  # ours reads float32


@pytest.mark.parametrize("n_cells", [1, 2, 4, 5, 20])
@pytest.mark.parametrize("n_features", [1, 2, 6])
def test_few_cells_and_duplicates(n_cells, n_features):
    for data in (np.zeros((n_cells, n_features)), np.ones((n_cells, n_features))):
        data[: n_cells // 2] += 3
        coordinates = umap_layout(data, n_epochs=20)
        assert coordinates.shape == (n_cells, 2)
        assert np.isfinite(coordinates).all()


def test_bad_input(blobs):
    with pytest.raises(InputError, match="n_epochs=0"):
        umap_layout(blobs[0], n_epochs=0)
    holed = blobs[0].copy()
    holed[2, 1] = np.nan
    with pytest.raises(NotFiniteError, match="cell 2"):
        umap_layout(holed)
