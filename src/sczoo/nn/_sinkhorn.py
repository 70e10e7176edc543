"""Entropic optimal transport between two small sets of points.

Solves ``min <P, C> - epsilon * H(P)`` over plans ``P`` with given marginals. The plan is computed
without gradients: by the envelope theorem the gradient of the optimal value with respect to the
cost is the plan itself, so ``(plan * cost).sum()`` with the plan detached has the right gradient,
and nothing has to be stored for a backward pass through the iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["SinkhornResult", "sinkhorn"]


@dataclass(frozen=True)
class SinkhornResult:
    """What :func:`sinkhorn` found."""

    plan: torch.Tensor
    """Transport plan, rows x columns. Its column sums are exact, its row sums within ``tol``."""
    log_scaling: torch.Tensor
    """Logarithm of the row scaling, the state for a warm start."""
    n_iterations: int
    """Sinkhorn iterations made."""
    error: float
    """L1 distance of the row sums from the row marginal."""
    log_domain: bool
    """Whether the safe but slower log-domain iterations were needed."""


def _iterate_exp(
    kernel: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    scaling: torch.Tensor,
    tol: float,
    max_iter: int,
    check_every: int,
) -> tuple[torch.Tensor, torch.Tensor, int, float]:
    error = float("inf")
    n_iterations = 0
    column_scaling = columns
    while True:
        column_scaling = columns / (scaling @ kernel)
        transported = kernel @ column_scaling
        if n_iterations % check_every == 0 or n_iterations >= max_iter:
            error = float((scaling * transported - rows).abs().sum())
            # NaN compares false with everything: it ends the loop and the caller sees it
            if not error > tol or n_iterations >= max_iter:
                break
        scaling = rows / transported
        n_iterations += 1
    return scaling, column_scaling, n_iterations, error


def _iterate_log(
    log_kernel: torch.Tensor,
    log_rows: torch.Tensor,
    log_columns: torch.Tensor,
    log_scaling: torch.Tensor,
    tol: float,
    max_iter: int,
    check_every: int,
) -> tuple[torch.Tensor, torch.Tensor, int, float]:
    error = float("inf")
    n_iterations = 0
    while True:
        log_column_scaling = log_columns - torch.logsumexp(
            log_kernel + log_scaling[:, None], dim=0
        )
        log_transported = torch.logsumexp(log_kernel + log_column_scaling[None, :], dim=1)
        if n_iterations % check_every == 0 or n_iterations >= max_iter:
            error = float(((log_scaling + log_transported).exp() - log_rows.exp()).abs().sum())
            if not error > tol or n_iterations >= max_iter:
                break
        log_scaling = log_rows - log_transported
        n_iterations += 1
    return log_scaling, log_column_scaling, n_iterations, error


@torch.no_grad()
def sinkhorn(
    cost: torch.Tensor,
    *,
    epsilon: float,
    row_marginal: torch.Tensor | None = None,
    column_marginal: torch.Tensor | None = None,
    log_scaling: torch.Tensor | None = None,
    tol: float = 5e-3,
    max_iter: int = 1000,
    check_every: int = 5,
) -> SinkhornResult:
    """Entropic optimal transport plan.

    The iterations run in the exponential domain on a cost whose column minimum was subtracted:
    that changes neither the plan nor its marginals, and keeps every column of the kernel from
    underflowing. When numbers still leave the range of the data type, the computation is repeated
    in the log domain.

    Parameters
    ----------
    cost
        Cost matrix, rows x columns. Its data type decides the precision.
    epsilon
        Strength of the entropy term, in units of the cost.
    row_marginal, column_marginal
        Positive weights that sum to one. Uniform by default.
    log_scaling
        Row scaling to start from, usually that of the last call.
    tol
        Largest L1 distance of the row sums from ``row_marginal``.
    max_iter
        Largest number of iterations.
    check_every
        How often the error is looked at.
    """
    n_rows, n_columns = cost.shape
    if row_marginal is None:
        row_marginal = cost.new_full((n_rows,), 1.0 / n_rows)
    if column_marginal is None:
        column_marginal = cost.new_full((n_columns,), 1.0 / n_columns)
    if log_scaling is None or not bool(torch.isfinite(log_scaling).all()):
        log_scaling = cost.new_zeros(n_rows)
    log_scaling = log_scaling.to(cost)
    log_scaling = log_scaling - log_scaling.max()

    lowest = cost.amin(dim=0, keepdim=True)
    kernel = (lowest - cost).mul_(1.0 / epsilon).exp_()
    scaling, column_scaling, n_iterations, error = _iterate_exp(
        kernel, row_marginal, column_marginal, log_scaling.exp(), tol, max_iter, check_every
    )
    in_range = (
        bool(torch.isfinite(scaling).all())
        and bool(torch.isfinite(column_scaling).all())
        and bool((scaling > 0).all())
    )
    if in_range:
        plan = kernel.mul_(scaling[:, None]).mul_(column_scaling[None, :])
        return SinkhornResult(plan, scaling.log(), n_iterations, error, log_domain=False)
    log_kernel = (lowest - cost) / epsilon
    log_scaling, log_column_scaling, n_iterations, error = _iterate_log(
        log_kernel,
        row_marginal.log(),
        column_marginal.log(),
        log_scaling,
        tol,
        max_iter,
        check_every,
    )
    plan = (log_scaling[:, None] + log_kernel + log_column_scaling[None, :]).exp()
    return SinkhornResult(plan, log_scaling, n_iterations, error, log_domain=True)
