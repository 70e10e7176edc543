"""Cross-entropy of gene frequencies, without a cells x genes matrix of its own.

On a CPU the arithmetic of a step is cheaper than the memory that its temporaries touch, so the
loss and its gradient are computed together, a few cells at a time, in place.
:func:`decoded_cross_entropy` also decodes a few cells at a time: the logits of a minibatch never
exist as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

__all__ = ["Target", "cross_entropy", "decoded_cross_entropy"]

Target = Callable[[slice], torch.Tensor]
"""Weights of the genes in some of the cells, rows x genes, in memory of their own."""

# rows of a block: 32 x 5,000 float32 values stay in the cache of a core
_BLOCK_ON_CPU = 32
# with the matrix products in the loop, longer blocks pay
_DECODED_BLOCK_ON_CPU = 128


# logits whose exponentials sum to something within these bounds need no shift
_SMALLEST, _LARGEST = 1e-25, 1e25


def _loss_and_gradient(
    part: torch.Tensor, weight: torch.Tensor, share: torch.Tensor | None = None
) -> torch.Tensor:
    """Loss of some cells; its negative gradient takes the place of their logits.

    The gradient ends up in the memory of the logits, ``part``, that of ``share`` is used too.
    """
    total = weight.sum(dim=1)
    share = torch.exp(part, out=share)
    size = share.sum(dim=1)
    log_size = size.log()
    if not bool(((size > _SMALLEST) & (size < _LARGEST)).all()):
        highest = part.amax(dim=1, keepdim=True)
        share = torch.sub(part, highest, out=share).exp_()
        size = share.sum(dim=1)
        log_size = size.log() + highest[:, 0]
    products = part.mul_(weight).sum(dim=1)
    # minus d/dlogits: target - total * softmax
    torch.addcmul(weight, share, (total / size)[:, None], value=-1.0, out=part)
    return total * log_size - products


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: Target) -> torch.Tensor:
        loss = logits.new_empty(len(logits))
        for rows in _blocks(logits):
            loss[rows] = _loss_and_gradient(logits[rows], target(rows))
        ctx.gradient = logits
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        if ctx.gradient is None:
            raise RuntimeError("the gradient of this loss was already taken")
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(-gradients[0][:, None]), None


class _DecodedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, theta: torch.Tensor, programs: torch.Tensor, target: Target
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n_cells, n_genes = len(theta), programs.shape[1]
        loss = theta.new_empty(n_cells)
        of_theta, of_programs = torch.empty_like(theta), torch.zeros_like(programs)
        blocks = _blocks(theta, _DECODED_BLOCK_ON_CPU)
        longest = max((rows.stop - rows.start for rows in blocks), default=0)
        memory = theta.new_empty(2, longest, n_genes)
        for rows in blocks:
            some = theta[rows]
            part, share = memory[0, : len(some)], memory[1, : len(some)]
            torch.mm(some, programs, out=part)
            for few in _blocks(part):
                these = slice(rows.start + few.start, rows.start + few.stop)
                loss[these] = _loss_and_gradient(part[few], target(these), share[few])
            torch.mm(part, programs.t(), out=of_theta[rows])
            of_programs.addmm_(some.t(), part)
        ctx.gradients = of_theta, of_programs
        ctx.n_cells = n_cells
        ctx.mark_non_differentiable(loss)
        return loss.mean(), loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        if ctx.gradients is None:
            raise RuntimeError("the gradient of this loss was already taken")
        (of_theta, of_programs), ctx.gradients = ctx.gradients, None
        factor = -gradients[0] / ctx.n_cells
        return of_theta.mul_(factor), of_programs.mul_(factor), None


def _blocks(logits: torch.Tensor, on_cpu: int = _BLOCK_ON_CPU) -> list[slice]:
    n_cells = len(logits)
    size = on_cpu if logits.device.type == "cpu" else max(n_cells, 1)
    return [slice(start, min(start + size, n_cells)) for start in range(0, n_cells, size)]


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


def decoded_cross_entropy(
    theta: torch.Tensor, programs: torch.Tensor, target: Target
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Cross-entropy of the logits ``theta @ programs``, decoded a few cells at a time.

    Parameters
    ----------
    theta
        Topic proportions, cells x topics.
    programs
        Unnormalised log-frequencies of the topics, topics x genes.
    target
        As of :func:`cross_entropy`.

    Returns
    -------
    The mean over the cells, which carries the gradient to ``theta`` and ``programs``, and one
    value per cell, which does not.
    """
    if torch.is_grad_enabled() and (theta.requires_grad or programs.requires_grad):
        mean, each = _DecodedCrossEntropy.apply(theta, programs, target)
        return mean, each
    each = cross_entropy(theta @ programs, target)
    return each.mean(), each
