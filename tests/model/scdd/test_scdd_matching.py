"""The matching losses against loops, numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from sczoo.errors import InputError
from sczoo.model.scdd._matching import (
    check_matching,
    descend,
    distribution_loss,
    gradient_loss,
    kernel_ridge_loss,
    new_classifier,
    shell_loss,
    trajectory_loss,
)


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    codes, real_codes = torch.arange(6) % 3, torch.arange(30) % 3
    centres = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    made = centres[codes] + 0.3 * torch.randn(6, 7, generator=generator, dtype=torch.float64)
    real = centres[real_codes] + 0.5 * torch.randn(30, 7, generator=generator, dtype=torch.float64)
    return made, codes, real, real_codes


def test_distribution_loss_by_loops(sets):
    made, codes, real, real_codes = (part.numpy() for part in sets)
    gaps = [
        ((made[codes == k].mean(0) - real[real_codes == k].mean(0)) ** 2).sum() for k in range(3)
    ]
    expected = np.mean(gaps) / real.var(axis=0).sum()
    assert float(distribution_loss(*sets)) == pytest.approx(expected)


def test_kernel_ridge_loss_is_scikit_learns(sets):
    made, codes, real, real_codes = (part.numpy() for part in sets)
    centre = real.mean(axis=0)
    a, b = made - centre, real - centre
    alpha = 1e-3 * len(a) * np.diag(a @ a.T).mean() + 1e-8
    model = KernelRidge(alpha=alpha, kernel="linear").fit(a, np.eye(3)[codes] - 1 / 3)
    expected = ((model.predict(b) - (np.eye(3)[real_codes] - 1 / 3)) ** 2).mean()
    assert float(kernel_ridge_loss(*sets)) == pytest.approx(expected, rel=1e-6)


def test_losses_fall_when_their_gradient_is_followed(sets):
    made, codes, real, real_codes = sets
    generator = torch.Generator().manual_seed(1)
    weights = [w.double().detach().requires_grad_(True) for w in new_classifier(7, 3, generator)]
    end = descend(weights, real, real_codes, 0.1, 10)
    losses = {
        "dm": lambda x: distribution_loss(x, codes, real, real_codes),
        "krr": lambda x: kernel_ridge_loss(x, codes, real, real_codes),
        "gm": lambda x: gradient_loss(weights, x, codes, real, real_codes),
        "tm": lambda x: trajectory_loss(weights, end, x, codes, 0.1, 10),
    }
    start = made + 1.0
    for name, loss in losses.items():
        x = start.clone().requires_grad_(True)
        before = float(loss(x).detach())
        for _ in range(30):
            (step,) = torch.autograd.grad(loss(x), x)
            x = (x - 0.3 * step / (step.norm() + 1e-12)).detach().requires_grad_(True)
        assert float(loss(x).detach()) < before, name


def test_equal_sets_match_in_every_way(sets):
    _, _, real, real_codes = sets
    generator = torch.Generator().manual_seed(2)
    weights = [w.double().detach().requires_grad_(True) for w in new_classifier(7, 3, generator)]
    assert float(distribution_loss(real, real_codes, real, real_codes)) == 0
    assert float(gradient_loss(weights, real, real_codes, real, real_codes)) < 1e-6
    end = descend(weights, real, real_codes, 0.1, 5)
    assert float(trajectory_loss(weights, end, real, real_codes, 0.1, 5)) < 1e-12


def test_shell():
    assert float(shell_loss(torch.ones(4, 9))) == 0
    assert float(shell_loss(torch.zeros(4, 9))) == 1


def test_names():
    assert check_matching("dm+krr") == ("dm", "krr")
    assert check_matching("none") == ()
    with pytest.raises(InputError, match="'mtt'"):
        check_matching("mtt")
