"""Embedding clustering regularisation: genes are shared out evenly among the topics.

The regulariser is the cost of transporting gene embeddings (uniform weights over genes) to topic
embeddings (uniform weights over topics). It pulls every topic to its own group of genes, so that
topics can neither collapse onto each other nor stay empty.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from sczoo.nn import sinkhorn

__all__ = [
    "EmbeddingClustering",
    "Solver",
    "even_shares",
    "squared_distances",
    "unrolled_plan",
]

Solver = Literal["detached", "unrolled"]


def squared_distances(topics: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances, topics x genes, by the expansion of the square.

    One matrix product instead of a topics x genes x dimensions array; the squares ride in two
    further columns of it. Rounding can make the distance of equal points slightly negative, which
    is cut off.
    """
    left = torch.cat(
        [topics, (topics * topics).sum(1, keepdim=True), torch.ones_like(topics[:, :1])], 1
    )
    right = torch.cat(
        [-2.0 * genes, torch.ones_like(genes[:, :1]), (genes * genes).sum(1, keepdim=True)], 1
    )
    return (left @ right.t()).relu_()


def unrolled_plan(
    cost: torch.Tensor, *, epsilon: float = 0.05, tol: float = 5e-3, max_iter: int = 1000
) -> tuple[torch.Tensor, int]:
    """Plan of the published algorithm, with gradients through every iteration.

    Kept for parity: exponential domain, start at the uniform row scaling, 1e-16 added to every
    denominator, column marginal looked at after iterations 1, 51, 101 and so on.

    Returns
    -------
    The plan (topics x genes) and the number of iterations.
    """
    n_topics, n_genes = cost.shape
    kernel = torch.exp(-cost / epsilon)
    rows = cost.new_full((n_topics,), 1.0 / n_topics)
    columns = cost.new_full((n_genes,), 1.0 / n_genes)
    scaling = rows
    column_scaling = columns
    n_iterations = 0
    while n_iterations < max_iter:
        column_scaling = columns / (scaling @ kernel + 1e-16)
        scaling = rows / (kernel @ column_scaling + 1e-16)
        n_iterations += 1
        if n_iterations % 50 == 1:
            error = (column_scaling * (scaling @ kernel) - columns).abs().sum()
            if float(error.detach()) <= tol:
                break
    return scaling[:, None] * kernel * column_scaling[None, :], n_iterations


@torch.no_grad()
def even_shares(cost: torch.Tensor, *, epsilon: float = 0.01) -> torch.Tensor:
    """Logarithm of the plan that shares the genes out evenly, up to a constant for each gene.

    With a fifth of the entropy of the training's plan nearly every gene is of one topic, and all
    topics have equally many genes. A plain nearest topic would leave some topics with few.

    Parameters
    ----------
    cost
        Squared distances, topics x genes.
    epsilon
        Strength of the entropy term.

    Returns
    -------
    Topics x genes, float64.
    """
    cost = cost.double()
    found = sinkhorn(cost, epsilon=epsilon, tol=1e-3, max_iter=2000)
    return found.log_scaling[:, None] - cost / epsilon


class EmbeddingClustering(nn.Module):
    """Entropic transport cost between topic and gene embeddings.

    Parameters
    ----------
    n_topics
        Number of topics.
    epsilon
        Strength of the entropy term (1/20 in the publication).
    solver
        ``"detached"`` computes the plan without gradients, starting from the last step's
        potentials; ``"unrolled"`` is the published algorithm.
    tol
        L1 error of the marginals at which the iterations stop.
    max_iter
        Largest number of iterations in one step.
    """

    log_scaling: torch.Tensor

    def __init__(
        self,
        n_topics: int,
        *,
        epsilon: float = 0.05,
        solver: Solver = "detached",
        tol: float = 5e-3,
        max_iter: int = 1000,
    ) -> None:
        super().__init__()
        if solver not in get_args(Solver):
            raise ValueError(f"solver must be one of {get_args(Solver)}, not {solver!r}")
        self.epsilon = epsilon
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.n_iterations = 0
        # Where the last step's iterations ended. Scratch state, so it is not saved.
        self.register_buffer("log_scaling", torch.zeros(n_topics), persistent=False)

    def plan(self, cost: torch.Tensor) -> torch.Tensor:
        """Transport plan, topics x genes, for a cost matrix of the same shape."""
        if self.solver == "unrolled":
            plan, self.n_iterations = unrolled_plan(
                cost, epsilon=self.epsilon, tol=self.tol, max_iter=self.max_iter
            )
            return plan
        result = sinkhorn(
            cost.detach(),
            epsilon=self.epsilon,
            log_scaling=self.log_scaling,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        self.n_iterations = result.n_iterations
        if self.training:
            self.log_scaling.copy_(result.log_scaling)
        return result.plan

    def forward(self, cost: torch.Tensor) -> torch.Tensor:
        """Transport cost ``sum(plan * cost)``, a scalar."""
        return (self.plan(cost) * cost).sum()
