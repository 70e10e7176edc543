"""The solver against dense linear algebra, and the identities of the refinement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from sczoo.errors import InputError
from sczoo.model.grit._graph import one_hop
from sczoo.model.grit._solver import build_system, solve

LAPLACIANS = ("sym", "rw", "comb")


def random_graph(n, seed, density=0.15, isolated=0):
    rng = np.random.default_rng(seed)
    weights = sparse.random(
        n, n, density, random_state=rng, data_rvs=lambda k: rng.uniform(0.1, 1, k)
    )
    graph = weights.maximum(weights.T).tolil()
    graph.setdiag(0)
    for cell in range(isolated):
        graph[cell, :] = 0
        graph[:, cell] = 0
    graph = graph.tocsr()
    graph.eliminate_zeros()
    return graph


def dense_solution(graph, scores, lam, laplacian, weights=None, coupling=None, mu=0.0):
    """Solve in double precision, by the definition."""
    w = graph.toarray().astype(np.float64)
    degree = w.sum(1)
    g = np.ones(len(w)) if weights is None else np.asarray(weights, np.float64)
    if laplacian == "sym":
        root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
        lap = np.diag((degree > 0).astype(float)) - root[:, None] * w * root
    else:
        unit = degree[degree > 0].mean() if (degree > 0).any() else 1.0
        lap = (np.diag(degree) - w) / unit
        if laplacian == "rw":
            g = g * np.where(degree > 0, degree / unit, 1.0)
    matrix = np.diag(g) + lam * lap
    if coupling is None:
        return np.linalg.solve(matrix, g[:, None] * scores)
    n, c = scores.shape
    full = np.kron(matrix, np.eye(c)) + mu * np.kron(np.diag(g), coupling)
    return np.linalg.solve(full, (g[:, None] * scores).ravel()).reshape(n, c)


def refine(graph, scores, lam, laplacian, *, tol=1e-12, dtype=torch.float64, **kwargs):
    weights = kwargs.pop("weights", None)
    system = build_system(graph, lam, laplacian=laplacian, weights=weights, dtype=dtype)
    return solve(system, np.asarray(scores, np.float64), tol=tol, **kwargs).scores


cases = st.tuples(
    st.integers(3, 40),
    st.integers(1, 6),
    st.integers(0, 2**16),
    st.floats(0.01, 50),
    st.sampled_from(LAPLACIANS),
)


def drawn(n, c, seed, isolated=0):
    rng = np.random.default_rng(seed)
    return random_graph(n, seed, isolated=isolated), rng.normal(size=(n, c))


@given(cases, st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_equal_to_a_dense_solve_in_double_precision(case, isolated):
    n, c, seed, lam, laplacian = case
    graph, scores = drawn(n, c, seed, isolated)
    expected = dense_solution(graph, scores, lam, laplacian)
    assert np.abs(refine(graph, scores, lam, laplacian) - expected).max() < 1e-8
    # the tolerance and precision of large data
    fast = refine(graph, scores, lam, laplacian, tol=1e-7, dtype=torch.float32)
    assert np.abs(fast - expected).max() < 1e-5 * max(1.0, np.abs(scores).max()) * (1 + lam)


@given(cases)
@settings(max_examples=30, deadline=None)
def test_confidence_weights_equal_a_dense_solve(case):
    n, c, seed, lam, laplacian = case
    graph, scores = drawn(n, c, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 2, n)
    expected = dense_solution(graph, scores, lam, laplacian, weights)
    found = refine(graph, scores, lam, laplacian, weights=weights)
    assert np.abs(found - expected).max() < 1e-8


@given(cases, st.floats(0.1, 3))
@settings(max_examples=20, deadline=None)
def test_coupled_classes_equal_a_dense_solve_of_the_whole_system(case, mu):
    n, c, seed, lam, laplacian = case
    graph, scores = drawn(min(n, 15), c, seed)
    similarity = np.random.default_rng(seed).uniform(0, 1, (c, c))
    similarity = (similarity + similarity.T) / 2
    np.fill_diagonal(similarity, 0)
    coupling = np.diag(similarity.sum(1)) - similarity
    expected = dense_solution(graph, scores, lam, laplacian, coupling=coupling, mu=mu)
    found = refine(graph, scores, lam, laplacian, class_laplacian=coupling, mu=mu)
    assert np.abs(found - expected).max() < 1e-7


@given(cases)
@settings(max_examples=30, deadline=None)
def test_symmetric_refinement_is_personalised_pagerank(case):
    """(I + lam L)^-1 = (1 - a) sum_t a^t S^t with a = lam / (1 + lam): APPNP's propagation."""
    n, c, seed, lam, _ = case
    lam = min(lam, 10.0)
    graph, scores = drawn(n, c, seed)
    degree = np.asarray(graph.sum(1)).ravel()
    connected = degree > 0
    root = np.where(connected, 1 / np.sqrt(np.where(connected, degree, 1)), 0)
    s = sparse.diags(root) @ graph @ sparse.diags(root)
    a, z = lam / (1 + lam), scores.copy()
    for _ in range(600):
        z = a * (s @ z) + (1 - a) * scores
    # APPNP shrinks a cell without neighbours; the refinement keeps its scores
    z[~connected] = scores[~connected]
    assert np.abs(refine(graph, scores, lam, "sym") - z).max() < 1e-7


@given(cases)
@settings(max_examples=30, deadline=None)
def test_sums_of_cells_and_of_classes(case):
    n, c, seed, lam, _ = case
    graph, scores = drawn(n, c + 1, seed, isolated=1)
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for laplacian in ("rw", "comb"):
        found = refine(graph, probabilities, lam, laplacian)
        assert np.allclose(found.sum(1), 1, atol=1e-8)
        assert found.min() > -1e-8  # a mixture of probabilities, by the maximum principle
        assert found.max() < 1 + 1e-8
    assert np.allclose(refine(graph, scores, lam, "comb").sum(0), scores.sum(0), atol=1e-6)
    constant = np.tile(scores[:1], (n, 1))
    for laplacian in ("rw", "comb"):
        assert np.allclose(refine(graph, constant, lam, laplacian), constant, atol=1e-8)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
@given(st.integers(3, 40), st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_weak_limit_keeps_the_scores(laplacian, n, seed):
    graph, scores = drawn(n, 3, seed)
    assert np.array_equal(refine(graph, scores, 0.0, laplacian), scores)
    assert np.abs(refine(graph, scores, 1e-7, laplacian) - scores).max() < 1e-4


@pytest.mark.parametrize("laplacian", LAPLACIANS)
@given(st.integers(3, 30), st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_strong_limit_is_one_vote_per_component(laplacian, n, seed):
    """lam to infinity: the mean of each component, by degree for rw; sym is along D^1/2."""
    graph, scores = drawn(n, 3, seed)
    found = refine(graph, scores, 1e7, laplacian, tol=1e-13)
    degree = np.asarray(graph.sum(1)).ravel()
    _, component = connected_components(graph, directed=False)
    for name in np.unique(component):
        cells = component == name
        if not degree[cells].any():
            assert np.allclose(found[cells], scores[cells])
            continue
        if laplacian == "sym":
            direction = np.sqrt(degree[cells])[:, None]
            expected = direction * (direction * scores[cells]).sum(0) / degree[cells].sum()
        else:
            weight = degree[cells] if laplacian == "rw" else np.ones(cells.sum())
            mean = np.average(scores[cells], axis=0, weights=weight)
            expected = np.broadcast_to(mean, found[cells].shape)
        assert np.abs(found[cells] - expected).max() < 1e-3


@given(cases)
@settings(max_examples=25, deadline=None)
def test_order_of_cells_and_of_classes_does_not_matter(case):
    n, c, seed, lam, laplacian = case
    graph, scores = drawn(n, c, seed, isolated=1)
    rng = np.random.default_rng(seed + 1)
    cells, classes = rng.permutation(n), rng.permutation(c)
    found = refine(graph[cells][:, cells].tocsr(), scores[cells][:, classes], lam, laplacian)
    assert np.allclose(found, refine(graph, scores, lam, laplacian)[cells][:, classes], atol=1e-7)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
def test_two_cells_by_hand(laplacian):
    graph = sparse.csr_matrix(np.array([[0.0, 0.5], [0.5, 0.0]]))
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    # all three Laplacians of two connected cells are [[1, -1], [-1, 1]]
    lam = 3.0
    expected = np.array([[1 + lam, lam], [lam, 1 + lam]]) / (1 + 2 * lam)
    assert np.allclose(refine(graph, scores, lam, laplacian), expected, atol=1e-10)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
def test_scale_of_the_weights_does_not_matter(laplacian):
    graph, scores = drawn(40, 4, 0)
    again = refine((graph * 1e3).tocsr(), scores, 3.0, laplacian)
    assert np.allclose(refine(graph, scores, 3.0, laplacian), again, atol=1e-9)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
def test_components_do_not_speak_to_each_other(laplacian):
    one, two = random_graph(15, 1), random_graph(12, 2)
    both = sparse.block_diag([one, two]).tocsr()
    scores = np.random.default_rng(0).normal(size=(27, 3))
    other = scores.copy()
    other[15:] += 5
    first, second = (refine(both, s, 2.0, laplacian)[:15] for s in (scores, other))
    assert np.allclose(first, second, atol=1e-9)


def test_residuals_fall_below_the_tolerance_and_are_true():
    graph, scores = drawn(200, 5, 3)
    system = build_system(graph, 3.0)
    found = solve(system, scores, tol=1e-6)
    assert found.residuals[-1] <= 1e-6 < found.residuals[0]
    x, right = torch.as_tensor(found.scores), system.fidelity * torch.as_tensor(scores)
    gap = (right - system.apply(x, torch.zeros(5, dtype=torch.float64))).norm(dim=0)
    assert float((gap / right.norm(dim=0)).max()) == pytest.approx(found.residuals[-1], rel=1e-3)
    assert found.n_iterations < 40


def test_many_classes_are_solved_in_blocks_alike():
    graph, scores = drawn(50, 150, 4)
    expected = dense_solution(graph, scores, 2.0, "rw")
    assert np.abs(refine(graph, scores, 2.0, "rw") - expected).max() < 1e-8


def test_a_column_of_zeros_and_no_edges():
    graph = sparse.csr_matrix((5, 5))
    scores = np.zeros((5, 2))
    scores[:, 1] = np.arange(5)
    for laplacian in LAPLACIANS:
        assert np.array_equal(refine(graph, scores, 3.0, laplacian), scores)
    assert np.array_equal(one_hop(graph, scores), scores)


def test_unknown_laplacian_is_refused():
    with pytest.raises(InputError, match="laplacian"):
        build_system(random_graph(5, 0), 1.0, laplacian="other")
