"""The metric code on the embedding that the authors of scE2TM released (Wang, 457 cells)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sczoo.metrics import cluster_kmeans, clustering_scores, interpretable_purity, score_embedding

LOUVAIN = Path(__file__).parent / "data" / "wang_louvain_0.4.txt"


@pytest.fixture(scope="module")
def wang(shared_data):
    embedding = pd.read_csv(shared_data("golden/wang_embedding.csv.gz"), index_col=0)
    labels = pd.read_csv(shared_data("golden/wang_labels.csv.gz"), index_col=0).iloc[:, 0]
    return embedding.to_numpy(), labels.to_numpy()


@pytest.fixture(scope="module")
def scores(wang):
    return score_embedding(*wang, oracle=True)


def test_silhouette_and_purity(wang, scores):
    assert round(scores["silhouette"], 4) == 0.1256
    assert round(interpretable_purity(*wang), 4) == 0.8928


def test_published_clusters_score_as_published(wang):
    """The louvain package is not required here: its clusters are stored, the scores are ours."""
    numbers = " ".join(
        line for line in LOUVAIN.read_text().splitlines() if not line.startswith("#")
    )
    clusters = np.array(numbers.split(), dtype=int)
    found = clustering_scores(wang[1], clusters)
    assert {key: round(value, 4) for key, value in found.items()} == {
        "ari": 0.8338,
        "ami": 0.7719,
        "nmi": 0.7765,
    }


def test_kmeans(wang):
    found = [
        clustering_scores(wang[1], cluster_kmeans(wang[0], 7, random_state=seed))["ari"]
        for seed in range(3)
    ]
    assert np.mean(found) == pytest.approx(0.528, abs=0.05)


def test_leiden_is_at_the_level_of_louvain(scores):
    """The headline needs the labels to choose the resolution; without them it is about half."""
    assert scores["oracle_leiden_ari"] == pytest.approx(0.8338, abs=0.05)
    assert scores["oracle_leiden_ami"] == pytest.approx(0.7719, abs=0.03)
    assert scores["leiden_ari"] == pytest.approx(0.460, abs=0.03)
