from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score

from sczoo.errors import EmptyDataError, InputError, MissingValuesError
from sczoo.metrics import cluster_leiden, clustering_scores, score_embedding


def ari_by_pairs(one, other):
    """The adjusted Rand index by counting all pairs of cells."""
    pairs = list(combinations(range(len(one)), 2))
    same_one = np.array([one[a] == one[b] for a, b in pairs])
    same_other = np.array([other[a] == other[b] for a, b in pairs])
    expected = same_one.sum() * same_other.sum() / comb(len(one), 2)
    largest = (same_one.sum() + same_other.sum()) / 2
    return ((same_one & same_other).sum() - expected) / (largest - expected)


def entropy(labels):
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return -(share * np.log(share)).sum()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=30).filter(
        lambda cells: all(1 < len({c[i] for c in cells}) for i in (0, 1))
    )
)
@settings(max_examples=60, deadline=None)
def test_against_definitions(cells):
    one, other = np.transpose(cells)
    scores = clustering_scores(one, other)
    if len(set(one)) < len(one) or len(set(other)) < len(other):
        assert scores["ari"] == pytest.approx(ari_by_pairs(one, other), abs=1e-12)
    joint = one * 10 + other
    shared = entropy(one) + entropy(other) - entropy(joint)
    expected = shared / ((entropy(one) + entropy(other)) / 2)
    assert scores["nmi"] == pytest.approx(expected, abs=1e-12)
    swapped = clustering_scores(other, one)
    assert scores == pytest.approx(swapped, abs=1e-9)


def test_names_do_not_matter():
    truth = pd.Categorical(["T cell", "B cell", "T cell", "B cell", "NK"])
    assert clustering_scores(truth, [5, 2, 5, 2, 9]) == pytest.approx(
        {"ari": 1.0, "nmi": 1.0, "ami": 1.0}
    )


def test_ignored_labels_are_left_out():
    truth = ["a", "a", "b", "b", "unassigned"]
    assert clustering_scores(truth, [0, 0, 1, 1, 0], ignore="unassigned")["ari"] == 1
    assert clustering_scores(truth, [0, 0, 1, 1, 0])["ari"] < 1
    with pytest.raises(EmptyDataError):
        clustering_scores(["u", "u"], [0, 1], ignore=["u"])


def test_bad_labels():
    with pytest.raises(MissingValuesError, match="first at cell 1"):
        clustering_scores(["a", None, "b"], [0, 1, 2])
    with pytest.raises(InputError, match="3 cells"):
        clustering_scores(["a", "b", "c"], [0, 1])


def test_score_embedding_of_blobs():
    data, truth = make_blobs(300, 5, centers=4, cluster_std=0.8, random_state=1)
    scores = score_embedding(data, truth, oracle=True)
    for name in ("leiden_k", "kmeans", "oracle_leiden"):
        assert scores[f"{name}_ari"] > 0.99
        assert scores[f"{name}_n_clusters"] == 4
    assert scores["silhouette"] == pytest.approx(silhouette_score(data, truth))
    fixed = clustering_scores(truth, cluster_leiden(data))
    assert scores["leiden_ari"] == fixed["ari"]
    assert scores["oracle_leiden_ari"] >= scores["leiden_ari"]
    assert scores["oracle_leiden_resolution"] in [step / 10 for step in range(20)]
    assert all(isinstance(value, int | float) for value in scores.values())


def test_oracle_only_when_asked():
    data, truth = make_blobs(100, 3, centers=2, random_state=0)
    assert not any(key.startswith("oracle") for key in score_embedding(data, truth))


def test_label_free_clustering_ignores_the_labels():
    rng = np.random.default_rng(0)
    data, truth = rng.normal(size=(200, 4)), rng.integers(3, size=200)
    shuffled = rng.permutation(truth)
    one, other = score_embedding(data, truth), score_embedding(data, shuffled)
    assert one["leiden_n_clusters"] == other["leiden_n_clusters"]


def test_ignored_cells_and_one_class():
    data, truth = make_blobs(120, 3, centers=3, random_state=2)
    names = np.array(["a", "b", "unassigned"])[truth]
    scores = score_embedding(data, names, ignore=["unassigned"])
    assert scores["kmeans_n_clusters"] == 2
    known = names != "unassigned"
    assert scores["silhouette"] == pytest.approx(silhouette_score(data[known], names[known]))
    assert np.isnan(score_embedding(data, np.zeros(120))["silhouette"])


def test_sampled_silhouette_is_near():
    data, truth = make_blobs(800, 5, centers=4, cluster_std=3, random_state=0)
    exact = score_embedding(data, truth)["silhouette"]
    sampled = score_embedding(data, truth, max_silhouette_cells=400)["silhouette"]
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=0.05)
