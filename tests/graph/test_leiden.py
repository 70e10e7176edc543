from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from sczoo.errors import InputError, TooFewCellsError
from sczoo.graph import connectivities, knn, leiden, leiden_k, leiden_of_graph


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(600, 8, centers=5, cluster_std=1.0, random_state=3)


@pytest.mark.slow  # umap compiles for about 15 s
def test_connectivities_are_those_of_umap():
    from umap.umap_ import fuzzy_simplicial_set

    rng = np.random.default_rng(0)
    data = np.vstack([rng.normal(size=(150, 6)), rng.normal(size=(50, 6)) * 0.1 + 4])
    data[10] = data[11]  # a duplicate, at distance zero
    found = knn(data, 14)
    here = np.arange(len(data))[:, None]
    expected = fuzzy_simplicial_set(
        data,
        15,
        random_state=np.random.RandomState(0),
        metric="euclidean",
        knn_indices=np.hstack([here, found.indices]),
        knn_dists=np.hstack([np.zeros_like(here, dtype=np.float32), found.distances]),
    )[0]
    ours = connectivities(found)
    assert abs(ours - expected).max() < 1e-4
    assert abs(ours - ours.T).max() == 0
    assert ours.diagonal().sum() == 0


def test_connectivities_of_identical_cells():
    graph = connectivities(knn(np.zeros((30, 2)), 5))
    assert np.isfinite(graph.data).all()
    assert graph.data.max() <= 1


def test_finds_blobs(blobs):
    data, truth = blobs
    labels = leiden(data, resolution=0.3)
    assert adjusted_rand_score(truth, labels) > 0.99
    assert (np.diff(np.bincount(labels)) <= 0).all()  # 0 is the largest


def test_disconnected_cliques_by_hand():
    edges = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (3, 6), (4, 6), (5, 6)]
    rows, columns = np.transpose(edges)
    upper = csr_matrix((np.ones(len(edges)), (rows, columns)), shape=(8, 8))
    labels = leiden_of_graph(upper + upper.T, resolution=0.5)
    assert labels.tolist() == [1, 1, 1, 0, 0, 0, 0, 2]


def test_leiden_k(blobs):
    data, truth = blobs
    labels, resolution = leiden_k(data, 5)
    assert labels.max() + 1 == 5
    assert adjusted_rand_score(truth, labels) > 0.99
    assert resolution > 0
    np.testing.assert_array_equal(labels, leiden(data, resolution=resolution))
    assert leiden_k(data, 40)[0].max() + 1 == pytest.approx(40, abs=1)


def test_leiden_k_gives_the_nearest_number_where_pieces_forbid_fewer(blobs):
    pieces, _ = connected_components(connectivities(knn(blobs[0], 14)))
    assert pieces == 5
    labels, _ = leiden_k(blobs[0], 2)
    assert labels.max() + 1 == pieces


def test_deterministic_and_independent_of_global_state(blobs):
    data, _ = blobs
    noisy = data + np.random.default_rng(0).normal(size=data.shape) * 3
    random.seed(1)
    first = leiden(noisy)
    random.seed(99)
    state = random.getstate()
    second = leiden(noisy)
    assert random.getstate() == state
    np.testing.assert_array_equal(first, second)


def test_cell_order_does_not_matter(blobs):
    data, _ = blobs
    order = np.random.default_rng(1).permutation(len(data))
    labels = leiden(data, resolution=0.3)
    assert adjusted_rand_score(labels[order], leiden(data[order], resolution=0.3)) == 1


def test_small_and_bad_input(blobs):
    assert leiden(np.zeros((2, 3))).tolist() == [0, 0]
    assert len(leiden(np.random.default_rng(0).normal(size=(5, 3)))) == 5
    with pytest.raises(InputError, match="resolution"):
        leiden(blobs[0], resolution=-1)
    with pytest.raises(TooFewCellsError, match="601 clusters"):
        leiden_k(blobs[0], 601)
    with pytest.raises(InputError, match="at least one"):
        leiden_k(blobs[0], 0)
    with pytest.raises(InputError, match="cells x cells"):
        leiden_of_graph(csr_matrix((3, 4)))
