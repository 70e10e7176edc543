r"""Diffusion in the latent space: the denoiser, its loss, and samplers.

The variance-preserving cosine schedule :math:`\alpha(t) = \cos(\pi t/2)`,
:math:`\sigma(t) = \sin(\pi t/2)` with velocity prediction,

.. math::

    z_t = \alpha z_0 + \sigma\varepsilon,\qquad v = \alpha\varepsilon - \sigma z_0,\qquad
    \hat z_0 = \alpha z_t - \sigma\hat v,\qquad \hat\varepsilon = \sigma z_t + \alpha\hat v.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "T_FIRST",
    "T_LAST",
    "Denoiser",
    "ancestral",
    "clean_estimate",
    "ddim",
    "diffusion_loss",
    "schedule",
    "velocity",
]

# The ends are left out: at 1 nothing of the cell is left, at 0 no noise.
T_FIRST, T_LAST = 0.001, 0.999
_TIME_WIDTH = 64


def schedule(t: torch.Tensor | float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the share of signal and of noise at time `t`."""
    angle = torch.as_tensor(t) * (math.pi / 2)
    return torch.cos(angle), torch.sin(angle)


class Denoiser(nn.Module):
    """Residual blocks whose scale and shift follow the time and the conditions.

    Each condition (class, batch) has a table of embeddings with one more row, for "not given":
    conditions are left out at random in training, each independently, so that any of them may be
    left out later.

    Parameters
    ----------
    n_latent
        Latent dimensions.
    n_conditions
        Number of categories of each condition.
    n_hidden, n_layers
        Width and number of the residual blocks.
    """

    def __init__(
        self, n_latent: int, n_conditions: tuple[int, ...], n_hidden: int, n_layers: int
    ) -> None:
        super().__init__()
        self.n_conditions = n_conditions
        self.inputs = nn.Linear(n_latent, n_hidden)
        self.time = nn.Sequential(
            nn.Linear(_TIME_WIDTH, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden)
        )
        self.tables = nn.ModuleList(nn.Embedding(n + 1, n_hidden) for n in n_conditions)
        self.norms = nn.ModuleList(
            nn.LayerNorm(n_hidden, elementwise_affine=False) for _ in range(n_layers)
        )
        self.film = nn.ModuleList(nn.Linear(n_hidden, 2 * n_hidden) for _ in range(n_layers))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden))
            for _ in range(n_layers)
        )
        self.outputs = nn.Linear(n_hidden, n_latent)
        nn.init.zeros_(self.outputs.weight)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, z: torch.Tensor, t: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """Predict the velocity.

        Parameters
        ----------
        z
            Noisy latents, ``(n, n_latent)``.
        t
            Times, ``(n,)``.
        conditions
            Codes, ``(n, n_conditions)``; -1 where not given.
        """
        frequency = torch.exp(
            torch.linspace(0, math.log(1000.0), _TIME_WIDTH // 2, dtype=z.dtype, device=z.device)
        )
        phase = t[:, None] * frequency
        context = self.time(torch.cat([phase.sin(), phase.cos()], dim=1))
        for position, table in enumerate(self.tables):
            codes = conditions[:, position]
            n = self.n_conditions[position]
            context = context + table(torch.where((codes < 0) | (codes >= n), n, codes))
        context = F.silu(context)
        hidden = self.inputs(z)
        for norm, film, block in zip(self.norms, self.film, self.blocks, strict=True):
            scale, shift = film(context).chunk(2, dim=1)
            hidden = hidden + block(norm(hidden) * (1 + scale) + shift)
        return self.outputs(hidden)


def velocity(
    net: nn.Module, z: torch.Tensor, t: float, conditions: torch.Tensor, guidance: float = 0.0
) -> torch.Tensor:
    r"""Velocity at one time, guided by :math:`(1 + w)\hat v(y) - w\hat v(\varnothing)`."""
    times = torch.full((len(z),), t, dtype=z.dtype, device=z.device)
    found = net(z, times, conditions)
    if guidance:
        free = net(z, times, torch.full_like(conditions, -1))
        found = (1 + guidance) * found - guidance * free
    return found


def clean_estimate(
    net: nn.Module, z: torch.Tensor, t: float, conditions: torch.Tensor, guidance: float = 0.0
) -> torch.Tensor:
    """Estimate the noiseless latents in one call of the network."""
    alpha, sigma = schedule(t)
    return alpha * z - sigma * velocity(net, z, t, conditions, guidance)


def diffusion_loss(
    net: nn.Module,
    z: torch.Tensor,
    conditions: torch.Tensor,
    p_uncond: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Mean squared error of the velocity at random times, conditions left out at random."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator).to(z)

    t = T_FIRST + (T_LAST - T_FIRST) * draw(len(z))
    noise = torch.randn(z.shape, generator=generator).to(z)
    alpha, sigma = (part[:, None] for part in schedule(t))
    dropped = draw(*conditions.shape) < p_uncond
    found = net(alpha * z + sigma * noise, t, torch.where(dropped, -1, conditions))
    return F.mse_loss(found, alpha * noise - sigma * z)


def ddim(
    net: nn.Module,
    z: torch.Tensor,
    conditions: torch.Tensor,
    n_steps: int,
    *,
    guidance: float = 0.0,
    inverse: bool = False,
) -> torch.Tensor:
    """Follow the deterministic flow from noise to cells, or back with ``inverse=True``.

    Parameters
    ----------
    net
        The denoiser.
    z
        Where the flow begins, ``(n, n_latent)``.
    conditions
        Codes, ``(n, n_conditions)``.
    n_steps
        Steps.
    guidance
        Weight of the guidance.
    inverse
        From cells to noise.
    """
    times = torch.linspace(T_LAST, T_FIRST, n_steps + 1).tolist()
    times = times[::-1] if inverse else times
    for now, then in itertools.pairwise(times):
        (alpha, sigma), (alpha_to, sigma_to) = schedule(now), schedule(then)
        v = velocity(net, z, now, conditions, guidance)
        z = alpha_to * (alpha * z - sigma * v) + sigma_to * (sigma * z + alpha * v)
    return z


def ancestral(
    net: nn.Module,
    z: torch.Tensor,
    conditions: torch.Tensor,
    n_steps: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Sample with fresh noise in every step, which forgets where it began."""
    times = torch.linspace(T_LAST, T_FIRST, n_steps + 1).tolist()
    for now, then in itertools.pairwise(times):
        (alpha, sigma), (alpha_to, sigma_to) = schedule(now), schedule(then)
        v = velocity(net, z, now, conditions)
        clean, noise = alpha * z - sigma * v, sigma * z + alpha * v
        # the posterior of the forward chain, written as a DDIM step with its full variance
        step = (sigma_to / sigma) * torch.sqrt((1 - (alpha / alpha_to) ** 2).clamp(min=0.0))
        rest = torch.sqrt((sigma_to**2 - step**2).clamp(min=0.0))
        fresh = torch.randn(z.shape, generator=generator).to(z)
        z = alpha_to * clean + rest * noise + step * fresh
    return z
