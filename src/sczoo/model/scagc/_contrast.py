"""Contrast between the same cells on two graphs."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["info_nce"]


def info_nce(
    first: torch.Tensor,
    second: torch.Tensor,
    temperature: float,
    *,
    symmetric: bool = True,
) -> torch.Tensor:
    """Loss that is small where a cell is nearest to itself in the other view.

    Parameters
    ----------
    first, second
        Two representations of the same cells, cells x dimensions.
    temperature
        Divisor of the cosines.
    symmetric
        Average over both directions; the published loss looks from the first to the second.

    Returns
    -------
    Mean cross-entropy, a scalar.
    """
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    target = torch.arange(len(logits), device=logits.device)
    forward = F.cross_entropy(logits, target)
    if not symmetric:
        return forward
    return 0.5 * (forward + F.cross_entropy(logits.T, target))
