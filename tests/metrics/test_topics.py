from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from sczoo.errors import EmptyDataError, GeneOverlapError, InputError, NotFiniteError
from sczoo.metrics import (
    interpretable_purity,
    max_topic_overlap,
    topic_coherence,
    topic_diversity,
    topic_quality,
)

SETS = {
    "interferon": ["ISG15", "IFI6", "MX1", "LY6E"],
    "antiviral": ["ISG15", "MX1", "OAS1"],
    "t_cell": ["CD3D", "CD3E", "LY6E"],
    "b_cell": ["CD79A", "MS4A1"],
}


def brute_coherence(topics, sets):
    """The definition, with a dense matrix of sets x genes."""
    genes = sorted({gene for topic in topics for gene in topic})
    dense = np.array([[gene in set(members) for gene in genes] for members in sets.values()])
    dense = dense.astype(float)
    values = []
    for topic in topics:
        pairs = []
        for one, other in combinations([genes.index(gene) for gene in topic], 2):
            p_one, p_other = dense[:, one].mean(), dense[:, other].mean()
            both = (dense[:, one] * dense[:, other]).mean()
            pairs.append(
                0 if both in (0, 1) else math.log(both / (p_one * p_other)) / -math.log(both)
            )
        values.append(np.mean(pairs))
    return np.array(values)


def test_coherence_by_hand():
    # ISG15 and MX1: each in 2 of 4 sets, always together -> ln(.5 / .25) / -ln(.5) = 1
    assert topic_coherence([["ISG15", "MX1"]], SETS) == pytest.approx(1)
    # ISG15 (2/4) and LY6E (2/4) share one set -> ln(.25 / .25) = 0
    assert topic_coherence([["ISG15", "LY6E"]], SETS) == pytest.approx(0)
    # ISG15 (2/4) and OAS1 (1/4) share one set -> ln(.25 / .125) / -ln(.25) = 1/2
    assert topic_coherence([["ISG15", "OAS1"]], SETS) == pytest.approx(0.5)
    # never together, or not in the collection
    assert topic_coherence([["ISG15", "CD3D"], ["MX1", "XIST"]], SETS) == 0
    both = topic_coherence([["ISG15", "MX1"], ["ISG15", "OAS1"]], SETS, per_topic=True)
    np.testing.assert_allclose(both, [1, 0.5])
    assert topic_coherence([["ISG15"]], SETS) == 0  # no pair


@given(
    topics=st.lists(
        st.lists(st.integers(0, 12), min_size=2, max_size=6, unique=True), min_size=1, max_size=5
    ),
    sets=st.lists(
        st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True), min_size=1, max_size=10
    ),
)
@settings(max_examples=150, deadline=None)
def test_coherence_equals_brute_force(topics, sets):
    collection = {f"set{number}": members for number, members in enumerate(sets)}
    if not {g for t in topics for g in t} & {g for s in sets for g in s}:
        with pytest.raises(GeneOverlapError):
            topic_coherence(topics, collection)
        return
    found = topic_coherence(topics, collection, per_topic=True)
    np.testing.assert_allclose(found, brute_coherence(topics, collection), atol=1e-12)
    assert (np.abs(found) <= 1 + 1e-12).all()


def test_all_forms_of_top_genes_agree():
    lists = [["ISG15", "MX1", "OAS1"], ["CD3D", "CD3E", "LY6E"]]
    long = pd.DataFrame(
        [
            {"topic": topic, "rank": rank, "gene": gene, "score": 1.0 - rank}
            for topic, genes in enumerate(lists)
            for rank, gene in enumerate(genes)
        ]
    )
    forms = [
        lists,
        long,
        long.sample(frac=1, random_state=0),
        pd.DataFrame(lists),
        np.array(lists),
        dict(enumerate(lists)),
    ]
    expected = brute_coherence(lists, SETS).mean()
    for form in forms:
        assert topic_coherence(form, SETS) == pytest.approx(expected)
        assert topic_diversity(form) == 1


def test_diversity_counts_genes_that_occur_once():
    assert topic_diversity([["a", "b"], ["c", "d"]]) == 1
    assert topic_diversity([["a", "b"], ["b", "c"]]) == 0.5  # b counts for neither
    assert topic_diversity([["a", "b"], ["a", "b"]]) == 0
    assert topic_diversity(np.array([[0, 1, 2], [2, 3, 4], [2, 5, 6]])) == pytest.approx(6 / 9)
    # names are compared whole: one token in the original's count, two genes here
    assert topic_diversity([["HLA-A"], ["HLA-B"]]) == 1


def test_quality_is_the_product():
    topics = [["ISG15", "MX1", "OAS1"], ["CD3D", "CD3E", "ISG15"]]
    expected = topic_coherence(topics, SETS) * topic_diversity(topics)
    assert topic_quality(topics, SETS) == expected
    assert expected > 0


def test_overlap():
    assert max_topic_overlap([["a", "b", "c"], ["d", "e", "f"]]) == 0
    assert max_topic_overlap([["a", "b", "c"], ["d", "e", "a"], ["a", "e", "g"]]) == 2 / 3
    assert max_topic_overlap([["a", "b"], ["b", "a"]]) == 1
    assert max_topic_overlap([["a", "b"]]) == 0


def test_purity():
    logits = np.array([[2, 0], [3, 1], [1, 0], [0, 5], [0, 1.0]])
    labels = ["T", "T", "B", "B", "B"]
    assert interpretable_purity(logits, labels) == pytest.approx(4 / 5)
    assert interpretable_purity(softmax(logits, axis=1), labels) == pytest.approx(4 / 5)
    assert interpretable_purity(pd.DataFrame(logits), pd.Categorical(labels)) == 4 / 5


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_purity_equals_a_cross_table(n_topics, n_labels, seed):
    rng = np.random.default_rng(seed)
    topics, labels = rng.normal(size=(50, n_topics)), rng.integers(n_labels, size=50)
    table = pd.crosstab(topics.argmax(1), labels)
    assert interpretable_purity(topics, labels) == pytest.approx(table.max(axis=1).sum() / 50)


def test_bad_input():
    with pytest.raises(GeneOverlapError, match="another case"):
        topic_coherence([["Isg15", "Mx1"]], SETS)
    with pytest.raises(GeneOverlapError, match="Ensembl"):
        topic_coherence([["ENSG00000187608", "ENSG00000157601"]], SETS)
    with pytest.raises(InputError, match="one list of genes per topic"):
        topic_diversity(["a", "b"])
    with pytest.raises(InputError, match="twice"):
        topic_diversity([["a", "a"]])
    for empty in ([], [[]], {}, pd.DataFrame(columns=["topic", "rank", "gene", "score"])):
        with pytest.raises(EmptyDataError):
            topic_diversity(empty)
    with pytest.raises(EmptyDataError, match="gene_sets"):
        topic_coherence([["a", "b"]], {})
    with pytest.raises(InputError, match="'one'"):
        topic_coherence([["a", "b"]], {"one": "a"})
    with pytest.raises(InputError, match="mapping"):
        topic_coherence([["a", "b"]], [["a", "b"]])
    with pytest.raises(InputError, match="5 cells"):
        interpretable_purity(np.ones((5, 2)), ["a"])
    with pytest.raises(NotFiniteError):
        interpretable_purity(np.full((2, 2), np.nan), ["a", "b"])
