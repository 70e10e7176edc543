from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from sczoo.model.sce2tm._ecr import (
    EmbeddingClustering,
    even_shares,
    squared_distances,
    unrolled_plan,
)


def embeddings(n_topics, n_genes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = [
        torch.nn.functional.normalize(
            torch.randn(n, 32, generator=generator, dtype=torch.float64), dim=1
        )
        for n in (n_topics, n_genes)
    ]
    return [row.to(dtype) for row in rows]


def loop_unrolled(cost, epsilon=0.05, tol=0.005):
    """The published iterations, one step per line, in double precision."""
    n_topics, n_genes = cost.shape
    kernel = np.exp(-cost / epsilon)
    u, v = np.full(n_topics, 1 / n_topics), np.zeros(n_genes)
    for iteration in range(1, 1001):
        v = (1 / n_genes) / (kernel.T @ u + 1e-16)
        u = (1 / n_topics) / (kernel @ v + 1e-16)
        tested = iteration == 1 or (iteration - 1) % 50 == 0
        if tested and np.abs(v * (kernel.T @ u) - 1 / n_genes).sum() <= tol:
            break
    return u[:, None] * kernel * v[None, :], iteration


def test_squared_distances():
    topics, genes = embeddings(7, 40)
    expected = ((topics[:, None] - genes[None]) ** 2).sum(-1)
    torch.testing.assert_close(squared_distances(topics, genes), expected)
    assert float(squared_distances(topics, topics).diagonal().abs().max()) < 1e-12


@pytest.mark.parametrize(("n_topics", "n_genes"), [(10, 100), (30, 400)])
def test_unrolled_equals_the_published_iterations(n_topics, n_genes):
    cost = squared_distances(*embeddings(n_topics, n_genes))
    found, n_iterations = unrolled_plan(cost)
    expected, expected_iterations = loop_unrolled(cost.numpy())
    assert n_iterations == expected_iterations
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_cost_at_initialisation_has_the_published_size():
    # specification, section 3.5: random unit rows, 100 topics, 5,000 genes, weight 100: 170.7
    generator = torch.Generator().manual_seed(1)
    topics = torch.nn.functional.normalize(torch.randn(100, 200, generator=generator), dim=1)
    genes = torch.nn.functional.normalize(torch.randn(5000, 200, generator=generator), dim=1)
    cost = squared_distances(topics, genes)
    published = EmbeddingClustering(100, solver="unrolled")(cost)
    ours = EmbeddingClustering(100)(cost)
    assert float(100 * published) == pytest.approx(170.7, abs=0.5)
    assert float(ours) == pytest.approx(float(published), rel=2e-3)


def test_both_solvers_agree_with_pot():
    cost = squared_distances(*embeddings(12, 150))
    uniform = [np.full(n, 1 / n) for n in cost.shape]
    expected = ot.sinkhorn(
        *uniform, cost.numpy(), 0.05, method="sinkhorn_log", stopThr=1e-13, numItermax=100_000
    )
    unrolled, _ = unrolled_plan(cost, tol=1e-9, max_iter=5001)
    detached = EmbeddingClustering(12, tol=1e-10, max_iter=100_000).double().plan(cost)
    np.testing.assert_allclose(detached.numpy(), expected, rtol=1e-5, atol=1e-10)
    # the published 1e-16 in the denominators is not negligible beside a kernel of about 1e-17
    np.testing.assert_allclose(unrolled.numpy(), expected, rtol=2e-2, atol=1e-6)


def regularised_cost(cost, epsilon=0.05):
    """Optimal value of the regularised problem, through the dual, by many iterations."""
    n_topics, n_genes = cost.shape
    a = torch.full((n_topics,), 1 / n_topics, dtype=cost.dtype)
    b = torch.full((n_genes,), 1 / n_genes, dtype=cost.dtype)
    f = torch.zeros_like(a)
    for _ in range(3000):
        g = -epsilon * torch.logsumexp((f[:, None] - cost) / epsilon + a.log()[:, None], dim=0)
        f = -epsilon * torch.logsumexp((g[None, :] - cost) / epsilon + b.log()[None, :], dim=1)
    return (f * a).sum() + (g * b).sum()


def test_gradient_of_the_detached_form_is_the_envelope_gradient():
    topics, genes = embeddings(4, 12)
    cost = squared_distances(topics, genes).requires_grad_()
    EmbeddingClustering(4, tol=1e-12, max_iter=100_000).double()(cost).backward()
    # finite differences of the optimal value itself
    step = 1e-4
    for k, j in [(0, 0), (1, 5), (3, 11)]:
        values = []
        for sign in (1, -1):
            moved = cost.detach().clone()
            moved[k, j] += sign * step
            values.append(float(regularised_cost(moved)))
        assert float(cost.grad[k, j]) == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-9
        )


def test_potentials_are_kept_between_steps_but_not_saved():
    ecr = EmbeddingClustering(10)
    cost = squared_distances(*embeddings(10, 200, dtype=torch.float32))
    ecr.train()
    ecr(cost)
    first = ecr.n_iterations
    ecr(cost + 1e-3)
    assert ecr.n_iterations < first
    assert ecr.state_dict() == {}
    kept = ecr.log_scaling.clone()
    ecr.eval()
    ecr(cost.flip(0))
    assert torch.equal(ecr.log_scaling, kept)


def test_unknown_solver():
    with pytest.raises(ValueError, match="solver"):
        EmbeddingClustering(3, solver="exact")


def test_even_shares_give_every_topic_its_genes():
    topics, genes = embeddings(12, 240)
    # genes around a few topics, as trained embeddings are: the nearest topic is far from even
    genes[:150] = torch.nn.functional.normalize(genes[:150] + 2 * topics[0], dim=1)
    cost = squared_distances(topics, genes)
    nearest = np.bincount(cost.argmin(dim=0).numpy(), minlength=12)
    owner = even_shares(cost).argmax(dim=0).numpy()
    assert nearest.max() > 100
    assert np.abs(np.bincount(owner, minlength=12) - 20).max() <= 2
    exact = ot.emd(np.full(12, 1 / 12), np.full(240, 1 / 240), cost.numpy())
    assert (owner == exact.argmax(axis=0)).mean() > 0.95


def test_even_shares_of_far_embeddings_are_finite():
    topics, genes = embeddings(5, 60)
    assert torch.isfinite(even_shares(squared_distances(30 * topics, 30 * genes))).all()
