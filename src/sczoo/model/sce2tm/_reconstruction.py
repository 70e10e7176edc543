"""Cross-entropy of gene frequencies, without a cells x genes matrix of its own.

On a CPU the arithmetic of a step is cheaper than the memory that its temporaries touch, so the
loss and its gradient are computed together, a few cells at a time, in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

__all__ = ["Target", "cross_entropy"]

Target = Callable[[slice], torch.Tensor]
"""Weights of the genes in some of the cells, rows x genes, in memory of their own."""

# rows of a block: 32 x 5,000 float32 values stay in the cache of a core
_BLOCK_ON_CPU = 32


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: Target) -> torch.Tensor:
        loss = logits.new_empty(len(logits))
        for rows in _blocks(logits):
            part, weight = logits[rows], target(rows)
            total = weight.sum(dim=1)
            highest = part.amax(dim=1, keepdim=True)
            share = (part - highest).exp_()
            size = share.sum(dim=1)
            loss[rows] = total * (size.log() + highest[:, 0]) - part.mul_(weight).sum(dim=1)
            # d/dlogits: total * softmax - target, in the memory of the logits
            torch.sub(share.mul_((total / size)[:, None]), weight, out=part)
        ctx.gradient = logits
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        if ctx.gradient is None:
            raise RuntimeError("the gradient of this loss was already taken")
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(gradients[0][:, None]), None


def _blocks(logits: torch.Tensor) -> list[slice]:
    n_cells = len(logits)
    size = _BLOCK_ON_CPU if logits.device.type == "cpu" else max(n_cells, 1)
    return [slice(start, start + size) for start in range(0, n_cells, size)]


def cross_entropy(logits: torch.Tensor, target: Target) -> torch.Tensor:
    r"""Weighted cross-entropy :math:`-\sum_j t_{ij}\log\mathrm{softmax}(l_i)_j` of each cell.

    Parameters
    ----------
    logits
        Unnormalised log-frequencies, cells x genes. **Where a gradient is asked for, their memory
        is used for it**: they are not to be read afterwards.
    target
        Non-negative weights of the genes for a slice of the cells. No gradient flows to them.

    Returns
    -------
    One value per cell.
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        return _CrossEntropy.apply(logits.clone() if logits.is_leaf else logits, target)
    loss = logits.new_empty(len(logits))
    for rows in _blocks(logits):
        part, weight = logits[rows], target(rows)
        loss[rows] = weight.sum(1) * torch.logsumexp(part, dim=1) - (weight * part).sum(1)
    return loss
