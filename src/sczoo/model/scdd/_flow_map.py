r"""The single-step generator: from a latent code to a cell in one call of a network.

A denoiser asked once at the noisy end answers with the mean of the class and ignores the code
(its gradient is :math:`\\alpha/\\sigma^2` times the covariance of the cells given the code, which
vanishes there). A stochastic chain forgets its start. The map along the deterministic flow does
neither, and a student that has learned it needs one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional as F

from sczoo.model.scdd._diffusion import T_LAST, clean_estimate, ddim, schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = [
    "GeneratorName",
    "OneStep",
    "codes_for",
    "flow_map_loss",
    "flow_map_pairs",
    "jacobian_norm",
]

GeneratorName = Literal["student", "x0_t"]
_REFINE_STEPS, _REFINE_RATE = 60, 0.02


class OneStep:
    r"""The generator: codes and conditions to standardised latents.

    ``"student"``: the flow-map student, asked once at the noisy end. ``"x0_t"``: the teacher,
    asked once at time :math:`t^*`, so that the code plays a cell with noise.

    Parameters
    ----------
    net
        The student's or the teacher's network.
    kind
        Which of the two.
    t_star
        Time of the second.
    guidance
        Weight of the guidance.
    """

    def __init__(
        self, net: nn.Module, kind: GeneratorName, t_star: float, guidance: float = 0.0
    ) -> None:
        self.net = net
        self.kind = kind
        self.time = T_LAST if kind == "student" else t_star
        self.guidance = guidance

    def __call__(self, codes: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """Generate; ``(n, n_latent)`` to ``(n, n_latent)``, differentiable in the codes."""
        return clean_estimate(self.net, codes, self.time, conditions, self.guidance)


@torch.no_grad()
def flow_map_pairs(
    teacher: nn.Module,
    conditions: torch.Tensor,
    n_latent: int,
    n_steps: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw noise and follow the teacher's flow; returns both ends of it."""
    noise = torch.randn(len(conditions), n_latent, generator=generator).to(conditions.device)
    ends = [
        ddim(teacher, part, given, n_steps)
        for part, given in zip(noise.split(2048), conditions.split(2048), strict=True)
    ]
    return noise, torch.cat(ends)


def flow_map_loss(
    net: nn.Module, noise: torch.Tensor, ends: torch.Tensor, conditions: torch.Tensor
) -> torch.Tensor:
    """Mean squared distance between the student's single step and the teacher's flow."""
    return F.mse_loss(clean_estimate(net, noise, T_LAST, conditions), ends)


def codes_for(
    one_step: OneStep,
    teacher: nn.Module,
    targets: torch.Tensor,
    conditions: torch.Tensor,
    generator: torch.Generator,
    n_steps: int = 50,
) -> torch.Tensor:
    """Find codes that the generator maps to given latents.

    The flow is followed backwards from the targets; what the single step then misses is taken
    back by a few gradient steps on the codes.

    Parameters
    ----------
    one_step
        The generator.
    teacher
        The denoiser.
    targets
        Standardised latents, ``(n, n_latent)``.
    conditions
        Codes of the conditions, ``(n, n_conditions)``.
    generator
        Source of the noise that the codes of ``"x0_t"`` carry.
    n_steps
        Steps of the flow.
    """
    with torch.no_grad():
        if one_step.kind == "student":
            codes = ddim(teacher, targets, conditions, n_steps, inverse=True)
        else:
            alpha, sigma = schedule(one_step.time)
            noise = torch.randn(targets.shape, generator=generator).to(targets)
            codes = alpha * targets + sigma * noise
    if one_step.kind != "student":
        return codes
    codes = codes.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([codes], lr=_REFINE_RATE)
    for _ in range(_REFINE_STEPS):
        missed = ((one_step(codes, conditions) - targets) ** 2).sum()
        (gradient,) = torch.autograd.grad(missed, codes)
        codes.grad = gradient
        optimizer.step()
    return codes.detach()


def jacobian_norm(
    function: Callable[[torch.Tensor], Any],
    codes: torch.Tensor,
    generator: torch.Generator,
    n_probes: int = 4,
) -> float:
    r"""Estimate :math:`\lVert J\rVert_F/\sqrt d`, averaged over the codes, by Hutchinson's probes.

    Parameters
    ----------
    function
        From codes ``(n, d)`` to latents ``(n, d)``, each row by itself.
    codes
        Where.
    generator
        Source of the probes.
    n_probes
        Probes of each code.
    """
    codes = codes.detach().clone().requires_grad_(True)
    outputs = function(codes)
    total = torch.zeros(len(codes), dtype=codes.dtype, device=codes.device)
    for _ in range(n_probes):
        probe = torch.randn(outputs.shape, generator=generator).to(outputs)
        (product,) = torch.autograd.grad((outputs * probe).sum(), codes, retain_graph=True)
        # E ||J^T p||^2 = ||J||_F^2
        total += (product**2).sum(dim=1) / n_probes
    return float((total / codes.shape[1]).sqrt().mean())
