from __future__ import annotations

import builtins

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from sczoo.errors import (
    EmptyDataError,
    GeneOverlapError,
    InputError,
    NotFiniteError,
    OptionalDependencyError,
)
from sczoo.metrics import enrichment_counts, over_representation, preranked_enrichment

GENES = [f"G{number:03d}" for number in range(300)]
SETS = {
    "first": GENES[:12],
    "second": GENES[100:130],
    "mixed": GENES[::20],
    "outside": ["X1", "X2"],
}


def benjamini_hochberg(p_values):
    p = np.asarray(p_values)
    order = np.argsort(p)[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(scaled).clip(max=1)
    return adjusted


@pytest.mark.parametrize("background", [None, GENES, GENES[:200]])
def test_over_representation_is_the_hypergeometric_test(background):
    chosen = [*GENES[:8], "G120", "G150", "NOT_A_GENE"]
    table = over_representation(chosen, SETS, background=background).set_index("term")
    universe = set().union(*SETS.values()) if background is None else set(background)
    drawn = universe & set(chosen)
    for term, row in table.iterrows():
        members = universe & set(SETS[term])
        overlap = len(members & drawn)
        p = hypergeom.sf(overlap - 1, len(universe), len(members), len(drawn))
        assert row["p_value"] == pytest.approx(p, rel=1e-9)
        assert (row["overlap"], row["set_size"]) == (overlap, len(members))
        assert row["genes"] == ";".join(sorted(members & drawn))
    np.testing.assert_allclose(
        table["adjusted_p_value"], benjamini_hochberg(table["p_value"]), rtol=1e-9
    )
    assert table.index[0] == "first"
    assert "outside" not in table.index


def test_over_representation_of_topics():
    topics = [GENES[:10], GENES[100:110], GENES[251:259]]
    table = over_representation(topics, SETS, background=GENES)
    assert table.groupby("topic")["term"].first().to_dict() == {0: "first", 1: "second"}
    single = over_representation(topics[1], SETS, background=GENES)
    together = table[table["topic"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(single.drop(columns="topic"), together.drop(columns="topic"))
    assert enrichment_counts(table) == {"hits": 2, "distinct": 2, "distinct_per_hit": 1.0}


def test_no_hit_is_an_empty_table():
    table = over_representation(["G299"], SETS, background=GENES)
    assert table.empty
    assert enrichment_counts(table) == {"hits": 0, "distinct": 0, "distinct_per_hit": 0.0}


def test_counts_by_hand():
    table = pd.DataFrame(
        {"topic": [0, 0, 1, 1], "term": list("abac"), "fdr": [0.001, 0.5, 0.01, 0.02]}
    )
    assert enrichment_counts(table) == {"hits": 2, "distinct": 1, "distinct_per_hit": 0.5}
    assert enrichment_counts(table, threshold=1)["hits"] == 4
    with pytest.raises(InputError, match="term"):
        enrichment_counts(pd.DataFrame({"a": [1]}))


def planted_scores():
    scores = pd.Series(np.random.default_rng(0).normal(size=300), GENES)
    scores[SETS["second"]] += 2.5
    return scores


def enrichment_score(scores, members):
    """The weighted running sum of Subramanian et al. 2005."""
    ranked = scores.sort_values(ascending=False)
    hit = ranked.index.isin(members)
    up = np.where(hit, ranked.abs(), 0.0)
    walk = np.cumsum(up / up.sum() - ~hit / (~hit).sum())
    return walk[np.abs(walk).argmax()]


def test_preranked_finds_the_planted_set():
    scores = planted_scores()
    table = preranked_enrichment(scores, SETS, min_size=5, n_permutations=200)
    assert table["term"].iloc[0] == "second"
    assert table["fdr"].iloc[0] <= 0.01
    assert set(table["term"]) == {"first", "second", "mixed"}
    for row in table.itertuples():
        assert row.es == pytest.approx(enrichment_score(scores, SETS[row.term]), abs=1e-6)
    repeated = preranked_enrichment(scores, SETS, min_size=5, n_permutations=200)
    pd.testing.assert_frame_equal(table, repeated)


def test_preranked_of_topics():
    matrix = pd.DataFrame([planted_scores(), -planted_scores()], index=["up", "down"])
    table = preranked_enrichment(matrix, SETS, min_size=5, n_permutations=100)
    best = table.set_index(["topic", "term"])["nes"]
    assert best["up", "second"] > 1.5
    assert best["down", "second"] < -1.5


def test_bad_input():
    with pytest.raises(GeneOverlapError, match="same"):
        over_representation(["g001"], SETS)
    with pytest.raises(EmptyDataError, match="background"):
        over_representation(GENES[:3], SETS, background=[])
    with pytest.raises(GeneOverlapError, match="between 15 and 500"):
        preranked_enrichment({"a": 1.0, "b": 2.0}, SETS)
    with pytest.raises(NotFiniteError, match="'G001'"):
        preranked_enrichment({"G000": 1.0, "G001": np.nan}, SETS)
    with pytest.raises(EmptyDataError):
        preranked_enrichment({}, SETS)
    with pytest.raises(InputError, match="two scores"):
        preranked_enrichment(pd.Series([1.0, 2.0], ["a", "a"]), SETS)


def test_without_gseapy(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "gseapy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionalDependencyError, match=r"sczoo\[enrich\]"):
        over_representation(GENES[:3], SETS)
    with pytest.raises(OptionalDependencyError, match=r"sczoo\[enrich\]"):
        preranked_enrichment({"a": 1.0}, SETS)
