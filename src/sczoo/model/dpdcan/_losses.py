"""The losses of DPDCAN, each of one cell at a time."""

from __future__ import annotations

import torch
from scvi.distributions import ZeroInflatedNegativeBinomial
from torch.nn import functional as F

__all__ = ["agreement", "cluster_divergence", "soft_assignments", "spread", "zinb"]


def zinb(
    counts: torch.Tensor, mean: torch.Tensor, dispersion: torch.Tensor, zero_logits: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of zero-inflated counts, mean over genes.

    Parameters
    ----------
    counts, mean, zero_logits
        Shape ``(..., genes)``.
    dispersion
        Inverse dispersion, broadcast to the same shape.

    Returns
    -------
    Shape ``(...)``.
    """
    distribution = ZeroInflatedNegativeBinomial(
        mu=mean, theta=dispersion, zi_logits=zero_logits, validate_args=False
    )
    return -distribution.log_prob(counts).mean(-1)


def agreement(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return one minus the cosine of the two views of each cell, shape ``(...)``.

    Per cell: the published code takes the cosine across the minibatch, which couples its cells.
    """
    return 1.0 - F.cosine_similarity(one, other, dim=-1, eps=1e-6)


def soft_assignments(distances: torch.Tensor) -> torch.Tensor:
    """Student's t kernel of squared distances, normalised over centres."""
    kernel = 1.0 / (1.0 + distances)
    return kernel / kernel.sum(-1, keepdim=True)


def cluster_divergence(
    assignments: torch.Tensor, frequencies: torch.Tensor | None = None
) -> torch.Tensor:
    """Kullback-Leibler divergence of sharpened assignments from the assignments, per cell.

    Parameters
    ----------
    assignments
        Shape ``(..., centres)``.
    frequencies
        Sums over all cells by which the published target is divided. ``None`` leaves them out:
        they couple the cells.
    """
    target = assignments.square()
    if frequencies is not None:
        target = target / frequencies
    target = (target / target.sum(-1, keepdim=True)).detach()
    return (target * (torch.log(target + 1e-12) - torch.log(assignments + 1e-6))).sum(-1)


def spread(centres: torch.Tensor) -> torch.Tensor:
    """Mean cosine of all pairs of centres; it sees no data."""
    unit = F.normalize(centres, dim=-1)
    return (unit @ unit.T).mean()
