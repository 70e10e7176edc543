"""Drawing edges: what is drawn, with what probability, and which gradient comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sczoo.model.scagc._adaptive_graph import (
    balanced_rows,
    degree_gini,
    gumbel_noise,
    jaccard,
    sample_edges,
    similarity_logits,
    union_graph,
)
from sczoo.model.scagc._reference import dense_draw, dense_normalised


def noise_of(*shape, seed=0):
    return gumbel_noise(shape, torch.Generator().manual_seed(seed))


def cells(n=30, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the graph of all pairs, as published ------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 40), st.integers(1, 8), st.integers(0, 1000))
def test_the_drawn_graph_is_undirected_and_has_no_loops(n_cells, n_neighbors, seed):
    n_neighbors = min(n_neighbors, n_cells - 1)
    graph = dense_draw(
        cells(n_cells, seed=seed), noise_of(n_cells, n_cells, seed=seed), n_neighbors, 0.5
    )
    values = graph.numpy()
    np.testing.assert_allclose(values, values.round(), atol=1e-9)
    np.testing.assert_array_equal(values.round(), values.round().T)
    assert not np.diag(values.round()).any()
    assert values.round().sum(axis=1).min() >= n_neighbors


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_the_graph_does_not_depend_on_the_temperature(temperature):
    z, noise = cells(), noise_of(30, 30).double()
    expected = dense_draw(z, noise, 6, 0.5)
    np.testing.assert_allclose(dense_draw(z, noise, 6, temperature), expected, atol=1e-9)
    logits, other = similarity_logits(z, z[None].expand(30, -1, -1), 10.0), noise_of(30, 30)
    positions, values = sample_edges(logits, other, 6, temperature)
    assert torch.equal(positions, sample_edges(logits, other, 6, 1.0)[0])
    torch.testing.assert_close(values, torch.ones_like(values))


def test_gradients_pass_through_the_drawn_edges_as_in_a_plain_computation():
    """The contrast's gradient through the edges, against finite differences of the softmax."""
    z, noise = cells(12, 4), noise_of(12, 12).double()
    weight = cells(12, 3, seed=5)
    temperature, k = 0.5, 3

    def passed(adjacency):
        return (dense_normalised(adjacency) @ weight).square().sum()

    leaf = z.clone().requires_grad_(True)
    passed(dense_draw(leaf, noise, k, temperature)).backward()
    assert leaf.grad.abs().max() > 1e-4

    # by hand: value hard, derivative that of the softmax, row by row
    unit = z / z.norm(dim=1, keepdim=True)
    diagonal = torch.eye(12, dtype=torch.bool)
    logits = (unit @ unit.T + noise).masked_fill(diagonal, -torch.inf)
    hard = torch.zeros(12, 12, dtype=torch.float64).scatter(1, logits.topk(k).indices, 1.0)
    at = torch.clamp_max(hard + hard.T, 1.0).requires_grad_(True)
    degree = at.sum(1)
    exists = (at.detach() > 0.5).double()
    ((at * exists / (degree[:, None] * degree[None]).sqrt()) @ weight).square().sum().backward()
    # min(A + A^T, 1) passes gradients on where the sum is at most one
    outer = at.grad * ((hard + hard.T) <= 1.0)
    outer = outer + outer.T

    def soft_value(values):
        unit = values / values.norm(dim=1, keepdim=True)
        scores = (unit @ unit.T + noise).masked_fill(diagonal, -torch.inf)
        return (outer * torch.softmax(scores / temperature, dim=1)).sum()

    step, expected = 1e-6, torch.zeros_like(z)
    for row in range(12):
        for column in range(4):
            for sign in (1, -1):
                moved = z.clone()
                moved[row, column] += sign * step
                expected[row, column] += sign * soft_value(moved) / (2 * step)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-7)


# --- drawing from candidates --------------------------------------------------------------------


def test_gradients_of_the_draw_from_candidates_in_double_precision():
    z, others = cells(6, 4), cells(6 * 9, 4, seed=3).reshape(6, 9, 4)
    noise = noise_of(6, 9).double()
    coefficient = cells(6, 3, seed=7)

    def forward(values, soft_only=False):
        logits = similarity_logits(values, others, 10.0)
        positions, drawn = sample_edges(logits, noise, 3, 0.7)
        if soft_only:
            drawn = torch.softmax((logits + noise) / 0.7, dim=1).gather(1, fixed)
        return positions, (drawn * coefficient).sum()

    leaf = z.clone().requires_grad_(True)
    fixed, value = forward(leaf)
    value.backward()
    assert leaf.grad.abs().max() > 1e-3
    expected, step = torch.zeros_like(z), 1e-6
    for place in np.ndindex(*z.shape):
        for sign in (1, -1):
            moved = z.clone()
            moved[place] += sign * step
            expected[place] += sign * forward(moved, soft_only=True)[1] / (2 * step)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-8)


def test_edges_are_drawn_without_replacement_in_proportion():
    """First choice of the Gumbel top-k follows the softmax of the logits."""
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20_000, -1)
    positions, _ = sample_edges(logits, noise_of(20_000, 4, seed=1), 1, 1.0)
    share = torch.bincount(positions.ravel(), minlength=4) / 20_000
    torch.testing.assert_close(share, torch.softmax(logits[0], 0), atol=0.015, rtol=0)
    several, _ = sample_edges(logits, noise_of(20_000, 4, seed=2), 3, 1.0)
    assert all(len(set(row)) == 3 for row in several[:50].tolist())


def test_the_published_scale_makes_a_graph_at_chance():
    """Three groups that lie far apart: at a scale of 1 edges ignore them, at 10 they do not."""
    kind = np.repeat(np.arange(3), 60)
    centre = 4 * torch.eye(3, 6, dtype=torch.float64)
    z = cells(180, 6) * 0.5 + centre[kind]
    same = []
    for scale in (1.0, 10.0):
        graph = dense_draw(z, noise_of(180, 180).double(), 15, 0.5, scale).numpy().round()
        row, column = np.nonzero(graph)
        same.append((kind[row] == kind[column]).mean())
    assert same[0] < 0.65  # chance is a third; e^2 are the largest odds there can be
    assert same[1] > 0.95


# --- even degrees --------------------------------------------------------------------------------


def hub_problem(n=300, seed=0):
    """Two cells that everybody likes best, and others nearly as good."""
    rng = np.random.default_rng(seed)
    candidates = np.stack([rng.choice(np.delete(np.arange(n), i), 20, False) for i in range(n)])
    candidates[:, 0], candidates[:, 1] = 7, 11
    candidates[7, 0], candidates[11, 1] = 100, 101
    logits = rng.normal(scale=0.3, size=candidates.shape)
    logits[:, :2] += 2
    return logits.astype(np.float32), candidates.astype(np.int32)


def test_prices_take_edges_from_hubs():
    logits, candidates = hub_problem()
    zero = np.zeros(300, dtype=np.float32)
    plain, _ = balanced_rows(logits, candidates, 5, zero, n_rounds=0, rate=0.0)
    even, prices = balanced_rows(logits, candidates, 5, zero, n_rounds=40, rate=0.5)
    assert not zero.any()
    degree = [np.diff(union_graph(rows).indptr) for rows in (plain, even)]
    assert degree[0].max() > 250
    assert degree[1].max() < 30
    assert degree_gini(degree[1]) < 0.5 * degree_gini(degree[0])
    assert prices[[7, 11]].min() > np.quantile(prices, 0.9)


def test_without_rounds_the_most_similar_are_chosen():
    logits, candidates = hub_problem()
    rows, _ = balanced_rows(logits, candidates, 5, np.zeros(300, np.float32), n_rounds=0, rate=0.0)
    best = np.take_along_axis(candidates, np.argsort(-logits, axis=1)[:, :5], axis=1)
    np.testing.assert_array_equal(rows, np.sort(best, axis=1))


def test_union_graph_is_symmetric_with_an_empty_diagonal():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.choice(np.delete(np.arange(50), i), 4, False) for i in range(50)])
    dense = union_graph(rows).toarray()
    expected = np.zeros((50, 50))
    expected[np.repeat(np.arange(50), 4), rows.ravel()] = 1
    np.testing.assert_array_equal(dense, np.maximum(expected, expected.T))


def test_gini_and_jaccard_of_known_cases():
    assert degree_gini(np.full(10, 7)) == pytest.approx(0)
    assert degree_gini(np.r_[np.zeros(9), 1]) == pytest.approx(0.9)
    values = np.random.default_rng(0).integers(1, 30, 40)
    apart = np.abs(values[:, None] - values).sum() / (2 * 40**2 * values.mean())
    assert degree_gini(values) == pytest.approx(apart)
    first = np.array([[1, 2], [0, 2], [0, 1], [0, 1]])
    second = np.array([[2, 1], [0, 3], [0, 1], [0, 1]])
    assert jaccard(first, second) == pytest.approx(7 / 9)
