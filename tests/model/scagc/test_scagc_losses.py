"""Likelihoods, contrast and clustering against other libraries and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sczoo.errors import TooFewCellsError
from sczoo.model.scagc._clustering import (
    by_size,
    centres_of,
    cluster_loss,
    initial_partition,
    soft_assignments,
    target_of,
)
from sczoo.model.scagc._contrast import info_nce
from sczoo.model.scagc._likelihood import zinb_loss
from sczoo.model.scagc._reference import published_zinb_loss


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_zinb_is_that_of_scvi_tools_with_its_gradients():
    from scvi.distributions import ZeroInflatedNegativeBinomial

    g = generator()
    x = torch.poisson(torch.rand(20, 15, generator=g) * 3, generator=g).double()
    x[0] = 0
    parts = {
        "log_mean": torch.randn(20, 15, generator=g, dtype=torch.float64),
        "log_theta": torch.randn(15, generator=g, dtype=torch.float64),
        "logit_pi": torch.randn(20, 15, generator=g, dtype=torch.float64),
    }
    leaves = {name: value.requires_grad_(True) for name, value in parts.items()}
    found = zinb_loss(x, **leaves)
    expected = -ZeroInflatedNegativeBinomial(
        mu=leaves["log_mean"].exp(),
        theta=leaves["log_theta"].exp(),
        zi_logits=leaves["logit_pi"],
    ).log_prob(x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    names = list(leaves)
    ours = torch.autograd.grad(found.sum(), list(leaves.values()), retain_graph=True)
    theirs = torch.autograd.grad(expected.sum(), list(leaves.values()))
    for name, own, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6, msg=name)


def test_zinb_survives_extremes():
    x = torch.tensor([[0.0, 1e6, 0.0, 3.0]])
    for log_mean in (-60.0, 30.0):
        log_theta = torch.tensor([-20.0, 20.0, 20.0, -20.0], requires_grad=True)
        loss = zinb_loss(
            x, torch.full((1, 4), log_mean), log_theta, torch.tensor([[40.0, -40.0, -40.0, 40.0]])
        )
        assert torch.isfinite(loss).all()
        loss.sum().backward()
        assert torch.isfinite(log_theta.grad).all()


def test_the_published_zinb_is_the_mixture_it_says():
    g = generator(1)
    mean, theta, pi = (torch.rand(8, 6, generator=g, dtype=torch.float64) for _ in range(3))
    y = torch.poisson(mean * 3, generator=g)
    found = published_zinb_loss(y, mean, theta, pi).numpy()
    nb = stats.nbinom.pmf(y.numpy(), theta.numpy(), (theta / (theta + mean)).numpy())
    density = (1 - pi.numpy()) * nb + pi.numpy() * (y.numpy() == 0)
    np.testing.assert_allclose(found, -np.log(density), rtol=1e-6, atol=1e-6)


def test_the_published_zinb_has_finite_gradients_at_negative_values():
    """Scaled values are mostly negative, where gamma functions have poles."""
    y = torch.tensor([[-2.0, -0.5, 0.0, 1.5]])
    theta = torch.tensor([[2.0, 0.5, 1.0, 1.0]], requires_grad=True)
    loss = published_zinb_loss(y, torch.ones(1, 4), theta, torch.full((1, 4), 0.3))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(theta.grad).all()


def test_contrast_is_the_cross_entropy_of_cosines():
    first = torch.randn(9, 4, generator=generator(), dtype=torch.float64)
    second = torch.randn(9, 4, generator=generator(1), dtype=torch.float64)
    a = first / first.norm(dim=1, keepdim=True)
    b = second / second.norm(dim=1, keepdim=True)
    odds = torch.exp(a @ b.T / 0.7)
    forward = -(odds.diag() / odds.sum(1)).log().mean()
    backward = -(odds.diag() / odds.sum(0)).log().mean()
    torch.testing.assert_close(info_nce(first, second, 0.7, symmetric=False), forward)
    torch.testing.assert_close(info_nce(first, second, 0.7), (forward + backward) / 2)
    torch.testing.assert_close(info_nce(5 * first, second, 0.7), info_nce(first, second, 0.7))


def test_assignments_targets_and_divergences():
    z = torch.randn(30, 3, generator=generator(), dtype=torch.float64)
    centres = torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    q = soft_assignments(z, centres)
    kernel = np.array(
        [[1 / (1 + ((a - b) ** 2).sum()) for b in centres.numpy()] for a in z.numpy()]
    )
    np.testing.assert_allclose(q, kernel / kernel.sum(1, keepdims=True))
    p = target_of(q)
    weight = q.numpy() ** 2 / q.numpy().sum(0)
    np.testing.assert_allclose(p, weight / weight.sum(1, keepdims=True))
    expected = np.mean([stats.entropy(a, b) for a, b in zip(p.numpy(), q.numpy(), strict=True)])
    assert cluster_loss(q, p).item() == pytest.approx(expected, rel=1e-5)
    reverse = np.mean([stats.entropy(b, a) for a, b in zip(p.numpy(), q.numpy(), strict=True)])
    assert cluster_loss(q, p, published=True).item() == pytest.approx(reverse, rel=1e-5)


def test_a_step_on_the_divergence_sharpens_the_clusters():
    z = torch.randn(60, 2, generator=generator(), dtype=torch.float64)
    z[:30] += 3
    centres = torch.stack([z[:30].mean(0), z[30:].mean(0)]) + 0.3
    leaf = centres.clone().requires_grad_(True)
    before = cluster_loss(soft_assignments(z, leaf), target_of(soft_assignments(z, centres)))
    before.backward()
    moved = centres - 0.5 * leaf.grad
    after = cluster_loss(soft_assignments(z, moved), target_of(soft_assignments(z, centres)))
    assert after < before


def test_clusters_are_numbered_by_size():
    np.testing.assert_array_equal(by_size(np.array([7, 3, 3, 3, 9, 9])), [2, 0, 0, 0, 1, 1])


def test_a_cluster_without_cells_starts_far_from_the_others():
    z = np.array([[0.0, 0], [0, 1], [9, 9], [0, 0.5]], dtype=np.float32)
    centres = centres_of(z, np.array([0, 0, 0, 0]), 2)
    np.testing.assert_allclose(centres[0], z.mean(0))
    np.testing.assert_allclose(centres[1], [9, 9])


def test_more_clusters_than_cells_is_refused():
    from scipy import sparse

    z = np.zeros((4, 2), dtype=np.float32)
    with pytest.raises(TooFewCellsError, match="5 clusters"):
        initial_partition(z, sparse.csr_matrix((4, 4)), 5, seed=0)


def test_the_first_partition_is_a_fixed_point_of_kmeans_from_wards_groups():
    from scipy import sparse
    from scipy.cluster.hierarchy import fcluster, ward
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    z = np.random.default_rng(0).normal(size=(150, 4)).astype(np.float32)
    groups = fcluster(ward(z), 6, "maxclust")
    start = np.stack([z[groups == group].mean(axis=0) for group in range(1, 7)])
    expected = KMeans(6, init=start, n_init=1).fit_predict(z)
    for seed in (0, 1):
        found = initial_partition(z, sparse.csr_matrix((150, 150)), 6, seed=seed)
        assert adjusted_rand_score(found, expected) == 1.0


def test_many_cells_are_partitioned_from_a_draw_of_them():
    from scipy import sparse

    rng = np.random.default_rng(0)
    kind = rng.choice(4, size=6_000, p=[0.7, 0.2, 0.07, 0.03])
    z = (rng.normal(size=(6_000, 3)) + 20 * kind[:, None]).astype(np.float32)
    found = initial_partition(z, sparse.csr_matrix((6_000, 6_000)), 4, seed=0)
    np.testing.assert_array_equal(found, by_size(kind))
