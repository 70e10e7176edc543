from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sczoo.nn import sinkhorn

settings.register_profile("sinkhorn", deadline=None, max_examples=40)
settings.load_profile("sinkhorn")


def random_cost(n_rows, n_columns, seed, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(n_rows, n_columns, generator=generator, dtype=torch.float64)


def pot_plan(cost, rows, columns, epsilon):
    return ot.sinkhorn(
        rows,
        columns,
        cost.numpy(),
        epsilon,
        method="sinkhorn_log",
        stopThr=1e-13,
        numItermax=100_000,
    )


@pytest.mark.parametrize(("n_rows", "n_columns"), [(5, 40), (30, 300), (1, 7), (12, 4)])
def test_plan_equals_pot(n_rows, n_columns):
    cost = random_cost(n_rows, n_columns, seed=n_rows)
    rows, columns = np.full(n_rows, 1 / n_rows), np.full(n_columns, 1 / n_columns)
    found = sinkhorn(cost, epsilon=0.05, tol=1e-11, max_iter=100_000)
    expected = pot_plan(cost, rows, columns, 0.05)
    np.testing.assert_allclose(found.plan.numpy(), expected, rtol=1e-5, atol=1e-12)
    assert not found.log_domain


def test_plan_equals_pot_with_other_marginals():
    rng = np.random.default_rng(3)
    rows, columns = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(50))
    cost = random_cost(6, 50, seed=9)
    found = sinkhorn(
        cost,
        epsilon=0.1,
        row_marginal=torch.from_numpy(rows),
        column_marginal=torch.from_numpy(columns),
        tol=1e-11,
        max_iter=100_000,
    )
    expected = pot_plan(cost, rows, columns, 0.1)
    np.testing.assert_allclose(found.plan.numpy(), expected, rtol=1e-5, atol=1e-12)


@given(
    n_rows=st.integers(1, 12),
    n_columns=st.integers(1, 60),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-3, 1.0, 10.0]),
    warm=st.booleans(),
)
def test_marginals(n_rows, n_columns, seed, scale, warm):
    cost = random_cost(n_rows, n_columns, seed, scale)
    start = torch.linspace(-3, 3, n_rows, dtype=torch.float64) if warm else None
    found = sinkhorn(cost, epsilon=0.05, tol=1e-4, max_iter=20_000, log_scaling=start)
    plan = found.plan
    assert torch.isfinite(plan).all()
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(0), torch.full((n_columns,), 1 / n_columns).double())
    error = float((plan.sum(1) - 1 / n_rows).abs().sum())
    assert error == pytest.approx(found.error, abs=1e-9)
    if found.n_iterations < 20_000:
        assert error <= 1e-4 + 1e-9


def test_a_constant_added_to_a_column_changes_nothing():
    cost = random_cost(8, 30, seed=1)
    shifted = cost + torch.linspace(0, 500, 30, dtype=torch.float64)[None, :]
    options = {"epsilon": 0.05, "tol": 1e-11, "max_iter": 100_000}
    torch.testing.assert_close(
        sinkhorn(cost, **options).plan, sinkhorn(shifted, **options).plan, rtol=1e-7, atol=1e-12
    )


def test_underflow_falls_back_to_the_log_domain():
    # the last row is far from every column: exp(-cost / epsilon) is zero in single precision
    cost = random_cost(4, 25, seed=2).float()
    cost[3] += 20.0
    found = sinkhorn(cost, epsilon=0.05, tol=1e-4, max_iter=5000)
    assert found.log_domain
    assert torch.isfinite(found.plan).all()
    expected = pot_plan(cost.double(), np.full(4, 0.25), np.full(25, 0.04), 0.05)
    np.testing.assert_allclose(found.plan.numpy(), expected, atol=1e-5)


def test_warm_start_needs_no_iteration():
    cost = random_cost(10, 80, seed=4)
    first = sinkhorn(cost, epsilon=0.05, tol=1e-6, max_iter=10_000)
    again = sinkhorn(cost, epsilon=0.05, tol=1e-6, max_iter=10_000, log_scaling=first.log_scaling)
    assert first.n_iterations > 0
    assert again.n_iterations == 0
    torch.testing.assert_close(first.plan, again.plan, rtol=1e-4, atol=1e-9)


def test_a_broken_start_is_ignored():
    cost = random_cost(5, 20, seed=6)
    broken = torch.full((5,), float("nan"), dtype=torch.float64)
    found = sinkhorn(cost, epsilon=0.05, tol=1e-8, max_iter=10_000, log_scaling=broken)
    fresh = sinkhorn(cost, epsilon=0.05, tol=1e-8, max_iter=10_000)
    torch.testing.assert_close(found.plan, fresh.plan)


def test_no_gradient_is_recorded():
    cost = random_cost(3, 9, seed=5).requires_grad_()
    assert not sinkhorn(cost, epsilon=0.05).plan.requires_grad
