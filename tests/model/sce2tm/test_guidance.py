from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sczoo.model.sce2tm._guidance import balance, consistency, distillation, geometry


@pytest.fixture
def assignments():
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.dirichlet(np.full(6, 0.3), size=17)) for _ in range(2)]


def test_distillation_equals_loops(assignments):
    first, second = (a.numpy() for a in assignments)
    columns = [*first.T, *second.T]
    columns = [column / np.linalg.norm(column) for column in columns]
    total = 0.0
    for a, column in enumerate(columns):
        positive = (a + 6) % 12
        scores = [math.exp(float(column @ other) / 0.5) for other in columns]
        others = sum(score for b, score in enumerate(scores) if b not in (a, positive))
        total -= math.log(scores[positive] / (scores[positive] + others))
    assert float(distillation(*assignments)) == pytest.approx(total / 12, rel=1e-12)


def test_distillation_is_symmetric_and_prefers_the_right_pairs(assignments):
    first, second = assignments
    assert float(distillation(first, second)) == pytest.approx(
        float(distillation(second, first)), rel=1e-12
    )
    assert distillation(first, first) < distillation(first, second)
    assert distillation(first, first) < distillation(first, first.roll(1, dims=1))


def test_consistency_equals_loops(assignments):
    first, second = (a.numpy() for a in assignments)
    expected = -np.mean([math.log(float(a @ b)) for a, b in zip(first, second, strict=True)])
    found = consistency(assignments[0].log(), assignments[1].log())
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_consistency_of_sharp_assignments_is_finite():
    # the product of these probabilities underflows in single precision
    one = torch.tensor([[0.0, -200.0], [-200.0, 0.0]], requires_grad=True)
    other = torch.tensor([[-200.0, 0.0], [0.0, -200.0]])
    found = consistency(one, other)
    assert float(found) == pytest.approx(100.0)  # clamped, as published
    found.backward()
    assert torch.isfinite(one.grad).all()


def test_balance_equals_loops(assignments):
    usage = assignments[0].numpy().mean(axis=0)
    expected = -sum(float(p) * math.log(float(p)) for p in usage)
    assert float(balance(assignments[0])) == pytest.approx(expected, rel=1e-12)
    collapsed = torch.zeros(5, 6)
    collapsed[:, 2] = 1.0
    assert float(balance(collapsed)) == pytest.approx(0.0, abs=1e-9)
    assert float(balance(torch.full((5, 6), 1 / 6))) == pytest.approx(math.log(6))


def loop_geometry(mean, knowledge):
    n = len(mean)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]

    def distances(rows):
        found = [
            math.sqrt(sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)))
            for i, j in pairs
        ]
        return [d / (sum(found) / len(found)) for d in found]

    own, other = distances(mean), distances(knowledge)
    return sum((a - b) ** 2 for a, b in zip(own, other, strict=True)) / len(pairs)


def test_geometry_equals_loops():
    rng = np.random.default_rng(1)
    mean, knowledge = rng.normal(size=(13, 4)), rng.normal(size=(13, 9)) * 50 + 100
    found = geometry(torch.from_numpy(mean), torch.from_numpy(knowledge))
    assert float(found) == pytest.approx(loop_geometry(mean, knowledge), rel=1e-6)


def test_geometry_ignores_scale_rotation_and_place():
    rng = np.random.default_rng(2)
    mean = rng.normal(size=(20, 5))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    moved = torch.from_numpy(mean @ rotation * 7 + 3)
    assert float(geometry(torch.from_numpy(mean), moved)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("n_cells", [2, 30])
def test_geometry_of_duplicates_has_a_finite_gradient(n_cells):
    mean = torch.zeros(n_cells, 3, requires_grad=True)
    knowledge = torch.randn(n_cells, 4, generator=torch.Generator().manual_seed(0))
    found = geometry(mean, knowledge)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(mean.grad).all()
