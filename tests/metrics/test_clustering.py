from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from sczoo import metrics
from sczoo.errors import InputError, NotFiniteError, TooFewCellsError


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(400, 6, centers=4, cluster_std=1.0, random_state=1)


def test_all_three_find_blobs(blobs):
    data, truth = blobs
    for found in (
        metrics.cluster_leiden(data, 0.3),
        metrics.cluster_leiden_k(data, 4),
        metrics.cluster_kmeans(data, 4),
    ):
        assert adjusted_rand_score(truth, found) > 0.99
        assert found.dtype == np.int64


def test_seeds_repeat(blobs):
    data = blobs[0] + np.random.default_rng(0).normal(size=blobs[0].shape) * 4
    for cluster in (metrics.cluster_leiden, lambda X: metrics.cluster_kmeans(X, 6)):
        np.testing.assert_array_equal(cluster(data), cluster(data))


def test_bad_input(blobs):
    data = blobs[0].copy()
    with pytest.raises(TooFewCellsError):
        metrics.cluster_kmeans(data, 401)
    with pytest.raises(InputError, match="at least one"):
        metrics.cluster_kmeans(data, 0)
    data[3, 1] = np.inf
    for cluster in (metrics.cluster_leiden, lambda X: metrics.cluster_kmeans(X, 2)):
        with pytest.raises(NotFiniteError, match="row 3, column 1"):
            cluster(data)
    with pytest.raises(InputError, match="numeric matrix"):
        metrics.cluster_leiden(np.array([["a", "b"]]))


def test_import_stays_light():
    code = (
        "import sys, sczoo.metrics as m\n"
        "for name in m.__all__: getattr(m, name)\n"
        "heavy = {'torch', 'scvi', 'scanpy', 'numba', 'gseapy', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        metrics.nothing  # noqa: B018
    assert set(metrics.__all__) == set(dir(metrics))
