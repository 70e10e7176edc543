from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.metrics import pairwise_distances

from sczoo.errors import EmptyDataError, InputError, NotFiniteError, TooFewCellsError
from sczoo.graph import knn


def brute(data, k, query=None, metric="euclidean"):
    """Exact neighbours by a full distance matrix; ties by index."""
    own = query is None
    distance = pairwise_distances(data if own else query, data, metric=metric)
    if own:
        np.fill_diagonal(distance, np.inf)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_equals_brute_force(metric, shift):
    data = (np.random.default_rng(0).normal(size=(300, 12)) + shift).astype(np.float32)
    indices, distances = brute(data.astype(np.float64), 10, metric=metric)
    found = knn(data, 10, metric=metric)
    np.testing.assert_allclose(found.distances, distances, atol=1e-6 if shift == 0 else 1e-4)
    if not (metric == "cosine" and shift):  # all directions are alike there
        np.testing.assert_array_equal(found.indices, indices)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_query_against_reference(metric):
    rng = np.random.default_rng(1)
    data, query = rng.normal(size=(200, 5)), rng.normal(size=(40, 5))
    data, query = data.astype(np.float32), query.astype(np.float32)
    indices, distances = brute(data.astype(float), 7, query.astype(float), metric)
    found = knn(data, 7, query=query, metric=metric)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, atol=1e-6)


@given(cells=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=6, max_size=25))
@settings(max_examples=100, deadline=None)
def test_ties_and_duplicates(cells):
    data = np.asarray(cells, dtype=np.float32)
    found = knn(data, 4)
    assert not (found.indices == np.arange(len(data))[:, None]).any()
    assert all(len(set(row)) == 4 for row in found.indices)
    np.testing.assert_allclose(found.distances, brute(data.astype(float), 4)[1], atol=1e-6)
    # nearest first, equal distances by index
    for row, distance in zip(found.indices, found.distances, strict=True):
        pairs = list(zip(distance, row, strict=True))
        assert pairs == sorted(pairs)


def test_many_identical_cells():
    data = np.zeros((60, 3), dtype=np.float32)
    found = knn(data, 5)
    assert (found.distances == 0).all()
    assert not (found.indices == np.arange(60)[:, None]).any()


def test_inverted_file_finds_nearly_all():
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(30, 20)) * 5
    data = centres[rng.integers(30, size=6000)] + rng.normal(size=(6000, 20))
    exact = knn(data, 10)
    near = knn(data, 10, exact_up_to=1000)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.indices, near.indices, strict=True)]
    assert np.mean(shared) / 10 > 0.95
    again = knn(data, 10, exact_up_to=1000)
    np.testing.assert_array_equal(near.indices, again.indices)


def test_the_quick_search_finds_most():
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(30, 20)) * 5
    data = centres[rng.integers(30, size=6000)] + rng.normal(size=(6000, 20))
    exact = knn(data, 10)
    near = knn(data, 10, exact_up_to=1000, quick=True)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.indices, near.indices, strict=True)]
    assert np.mean(shared) / 10 > 0.9
    np.testing.assert_array_equal(knn(data, 10, quick=True).indices, exact.indices)


def test_inverted_file_with_few_cells_per_region():
    data = np.random.default_rng(3).normal(size=(120, 2))
    np.testing.assert_array_equal(knn(data, 110, exact_up_to=10).indices, knn(data, 110).indices)


def test_sparse_equals_dense():
    data = np.random.default_rng(4).poisson(0.3, size=(80, 30)).astype(np.float32)
    np.testing.assert_array_equal(knn(csr_matrix(data), 5).indices, knn(data, 5).indices)


def test_input_is_left_alone():
    data = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)
    before = data.copy()
    knn(data, 3, metric="cosine")
    np.testing.assert_array_equal(data, before)


def test_bad_input():
    data = np.random.default_rng(6).normal(size=(20, 3))
    with pytest.raises(TooFewCellsError, match="at least 21 cells"):
        knn(data, 20)
    assert knn(data, 20, query=data).indices.shape == (20, 20)
    holed = data.copy()
    holed[7, 2] = np.nan
    with pytest.raises(NotFiniteError, match="cell 7, column 2"):
        knn(holed, 3)
    with pytest.raises(InputError, match="same features"):
        knn(data, 3, query=data[:, :2])
    with pytest.raises(InputError, match="metric"):
        knn(data, 3, metric="manhattan")
    with pytest.raises(InputError, match="at least one"):
        knn(data, 0)
    with pytest.raises(InputError, match="dimension"):
        knn(data[0], 3)
    with pytest.raises(EmptyDataError):
        knn(data[:0], 3)
    data[4] = 0
    with pytest.raises(InputError, match="cell 4"):
        knn(data, 3, metric="cosine")
