"""Samplers against a diffusion whose answers are known: Gaussian cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sczoo.model.scdd._diffusion import (
    T_LAST,
    Denoiser,
    ancestral,
    clean_estimate,
    ddim,
    diffusion_loss,
    schedule,
)
from sczoo.model.scdd._flow_map import OneStep, codes_for, flow_map_pairs, jacobian_norm

MEAN, SD = 1.5, 0.6


class GaussianDenoiser(torch.nn.Module):
    """The exact velocity for cells drawn from N(mean, sd^2)."""

    def forward(self, z, t, conditions):
        alpha, sigma = (part[:, None] for part in schedule(t))
        gain = alpha * SD**2 / (alpha**2 * SD**2 + sigma**2)
        clean = MEAN + gain * (z - alpha * MEAN)
        return (alpha * z - clean) / sigma


@pytest.fixture
def noise():
    return torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def none(z):
    return torch.zeros(len(z), 1, dtype=torch.long)


def test_the_flow_maps_noise_to_the_gaussian(noise):
    found = ddim(GaussianDenoiser(), noise, none(noise), 400)
    # the flow map of a Gaussian is linear: mean + sd * noise
    torch.testing.assert_close(found, MEAN + SD * noise, rtol=0, atol=0.02)


def test_the_flow_can_be_followed_back(noise):
    net = GaussianDenoiser()
    cells = ddim(net, noise, none(noise), 200)
    back = ddim(net, cells, none(noise), 200, inverse=True)
    torch.testing.assert_close(back, noise, rtol=0, atol=0.08)


def test_the_stochastic_chain_has_the_right_distribution_and_forgets(noise):
    generator = torch.Generator().manual_seed(1)
    found = ancestral(GaussianDenoiser(), noise, none(noise), 200, generator)
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(found.std()) == pytest.approx(SD, abs=0.03)
    assert abs(np.corrcoef(found.ravel(), noise.ravel())[0, 1]) < 0.05


def test_gradients_of_one_step_of_the_flow_and_of_a_chain(noise):
    """The reason for a flow-map student, where everything is known."""
    net, codes = GaussianDenoiser(), noise[:200]
    conditions = none(codes)
    probes = torch.Generator().manual_seed(2)

    def gradient(function):
        return jacobian_norm(function, codes, probes, 16)

    flow = gradient(lambda u: ddim(net, u, conditions, 100))
    assert flow == pytest.approx(SD, rel=0.1)
    chain = torch.Generator().manual_seed(3)
    assert gradient(lambda u: ancestral(net, u, conditions, 50, chain)) < 0.02
    # asked once at the noisy end, the denoiser answers with the mean and ignores the code
    assert gradient(lambda u: clean_estimate(net, u, T_LAST, conditions)) < 0.02
    middle = gradient(lambda u: clean_estimate(net, u, 0.5, conditions))
    alpha, sigma = (float(part) for part in schedule(0.5))
    assert middle == pytest.approx(alpha * SD**2 / (sigma**2 + alpha**2 * SD**2), rel=0.15)


def test_jacobian_norm_of_a_matrix():
    matrix = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = jacobian_norm(
        lambda u: u @ matrix.T,
        torch.zeros(400, 5, dtype=torch.float64),
        torch.Generator().manual_seed(5),
        64,
    )
    assert found == pytest.approx(float(matrix.norm()) / 5**0.5, rel=0.03)


def test_a_denoiser_learns_two_classes_and_conditions_can_be_left_out():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = Denoiser(2, (2,), 32, 2)
    codes = torch.arange(512) % 2
    cells = torch.where(codes[:, None] == 0, -1.0, 1.0) + 0.2 * torch.randn(
        512, 2, generator=generator
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(400):
        rows = torch.randint(512, (256,), generator=generator)
        loss = diffusion_loss(net, cells[rows], codes[rows, None], 0.2, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        start = torch.randn(400, 2, generator=generator)
        given = (torch.arange(400) % 2)[:, None]
        made = ddim(net, start, given, 40)
        assert abs(float(made[given[:, 0] == 0].mean()) + 1) < 0.2
        assert abs(float(made[given[:, 0] == 1].mean()) - 1) < 0.2
        free = ddim(net, start, torch.full_like(given, -1), 40)
        assert 0.2 < float((free.mean(1) > 0).float().mean()) < 0.8


def test_codes_are_found_for_given_cells():
    """The student stands in for the flow; here it is the flow's exact map."""

    class Exact(torch.nn.Module):
        def forward(self, z, t, conditions):
            alpha, sigma = (part[:, None] for part in schedule(t))
            return (alpha * z - (MEAN + SD * z)) / sigma

    one_step = OneStep(Exact(), "student", 0.5)
    targets = MEAN + SD * torch.randn(30, 4, generator=torch.Generator().manual_seed(6))
    generator = torch.Generator().manual_seed(7)
    codes = codes_for(one_step, GaussianDenoiser(), targets, none(targets), generator)
    found = one_step(codes, none(targets))
    assert float(((found - targets) ** 2).mean()) < 1e-3


def test_pairs_are_the_ends_of_one_flow():
    generator = torch.Generator().manual_seed(8)
    conditions = torch.zeros(3000, 1, dtype=torch.long)
    noise, ends = flow_map_pairs(GaussianDenoiser(), conditions, 2, 100, generator)
    assert noise.shape == ends.shape == (3000, 2)
    torch.testing.assert_close(ends, MEAN + SD * noise, rtol=0, atol=0.06)
