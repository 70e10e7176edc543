from __future__ import annotations

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances

from sczoo.errors import NotFiniteError, TooFewCellsError
from sczoo.graph import NeighbourLists, mutual_neighbours


def brute_lists(data, k, include_self=True):
    """The same construction with plain loops: mutual graph, then Kruskal's edges that join it."""
    distance = pairwise_distances(data.astype(np.float64))
    ranked = distance.copy()
    np.fill_diagonal(ranked, np.inf)
    near = np.argsort(ranked, axis=1, kind="stable")[:, : k - 1]
    n = len(data)
    directed = {(i, int(j)) for i in range(n) for j in near[i]}
    graph = networkx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from((i, j) for i, j in directed if (j, i) in directed)
    whole = networkx.Graph()
    whole.add_weighted_edges_from((i, j, distance[i, j]) for i, j in directed)
    tree = networkx.minimum_spanning_tree(whole)
    for i, j, _ in sorted(tree.edges(data="weight"), key=lambda edge: edge[2]):
        if not networkx.has_path(graph, i, j):
            graph.add_edge(i, j)
    longest = k if include_self else k - 1
    lists = []
    for i in range(n):
        order = sorted(graph[i], key=lambda j: (distance[i, j], j))
        lists.append(([i] if include_self else []) + order)
    return [found[:longest] for found in lists]


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("k", [3, 5, 15])
def test_equals_brute_force(k, include_self):
    rng = np.random.default_rng(k)
    data = np.concatenate([rng.normal(size=(40, 6)), rng.normal(size=(30, 6)) + 9]).astype("f")
    found = mutual_neighbours(data, k, include_self=include_self)
    expected = brute_lists(data, k, include_self)
    assert found.n_cells == 70
    assert [found.of(i).tolist() for i in range(70)] == expected


def test_far_groups_stay_apart_and_pieces_of_a_group_are_joined():
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.normal(size=(50, 10)), rng.normal(size=(50, 10)) + 500]).astype("f")
    found = mutual_neighbours(data, 4)
    graph = networkx.Graph()
    graph.add_edges_from((i, int(j)) for i in range(100) for j in found.of(i))
    groups = sorted(networkx.connected_components(graph), key=min)
    # the directed graph has no edge between the two groups, so that the tree has none either
    assert all(len({cell < 50 for cell in group}) == 1 for group in groups)


def test_duplicated_cells_are_neighbours():
    data = np.repeat(np.random.default_rng(1).normal(size=(10, 4)), 2, axis=0).astype("f")
    found = mutual_neighbours(data, 3)
    for cell in range(20):
        assert cell ^ 1 in found.of(cell)


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 60), st.integers(2, 8), st.integers(0, 1000))
def test_properties(n_cells, k, seed):
    data = np.random.default_rng(seed).normal(size=(n_cells, 3)).astype("f")
    found = mutual_neighbours(data, k)
    assert len(found.indptr) == n_cells + 1
    for cell in range(n_cells):
        listed = found.of(cell)
        assert listed[0] == cell
        assert len(set(listed.tolist())) == len(listed) <= k


def test_draw_is_uniform_over_the_list():
    lists = NeighbourLists(np.array([0, 3, 3, 4]), np.array([0, 1, 2, 0]))
    drawn = lists.draw(np.zeros(30_000, dtype=int), np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=3)
    assert counts.sum() == 30_000
    np.testing.assert_allclose(counts / 30_000, 1 / 3, atol=0.015)
    # a cell with an empty list gets itself, one with a single neighbour always that one
    assert lists.draw([1, 2, 1], np.random.default_rng(0)).tolist() == [1, 0, 1]


def test_draw_depends_on_its_generator_alone():
    data = np.random.default_rng(2).normal(size=(60, 5)).astype("f")
    lists = mutual_neighbours(data, 8)
    cells = np.arange(60)
    first = lists.draw(cells, np.random.default_rng(7))
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    assert np.array_equal(first, lists.draw(cells, np.random.default_rng(7)))
    assert all(drawn in lists.of(cell) for cell, drawn in zip(cells, first, strict=True))


def test_lists_without_neighbours():
    lists = NeighbourLists(np.zeros(4, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert lists.draw([2, 0], np.random.default_rng(0)).tolist() == [2, 0]


def test_bad_input():
    with pytest.raises(TooFewCellsError, match="5"):
        mutual_neighbours(np.zeros((4, 2), dtype="f"), 6)
    bad = np.zeros((9, 2), dtype="f")
    bad[3, 1] = np.nan
    with pytest.raises(NotFiniteError, match="cell 3"):
        mutual_neighbours(bad, 3)
