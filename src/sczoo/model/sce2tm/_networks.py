"""The encoders and decoders of scE2TM."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "AffineDecoder",
    "KnowledgeHead",
    "LinearEncoder",
    "NormalisedDecoder",
    "PerceptronEncoder",
    "unit_rows",
]


def unit_rows(n_rows: int, n_columns: int) -> nn.Parameter:
    """Embeddings of unit length in random directions."""
    rows = torch.empty(n_rows, n_columns)
    nn.init.trunc_normal_(rows, std=0.02)
    return nn.Parameter(F.normalize(rows, dim=1))


class PerceptronEncoder(nn.Module):
    """The published encoder: a perceptron shared by mean and log-variance of the topic logits."""

    def __init__(self, n_genes: int, n_hidden: int, n_topics: int, dropout_rate: float) -> None:
        super().__init__()
        self.first = nn.Linear(n_genes, n_hidden)
        self.trunk = nn.Sequential(
            nn.BatchNorm1d(n_hidden),
            nn.Tanh(),
            # no activation follows this layer in the publication
            nn.Linear(n_hidden, n_hidden),
            nn.Dropout(dropout_rate),
        )
        self.mean = nn.Sequential(nn.Linear(n_hidden, n_topics), nn.BatchNorm1d(n_topics))
        self.log_variance = nn.Sequential(nn.Linear(n_hidden, n_topics), nn.BatchNorm1d(n_topics))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance, both cells x topics."""
        hidden = self.trunk(self.first(x))
        return self.mean(hidden), self.log_variance(hidden)

    def input_weight(self) -> torch.Tensor:
        """Weights of the layer that reads the genes, outputs x genes."""
        return self.first.weight


class LinearEncoder(nn.Module):
    """Topic logits as weighted sums of log-normalised genes.

    A linear map of the expression carries over to new patients better than a perceptron, and its
    weights can be read. The uncertainty of a cell is a small perceptron of its topic logits. No
    batch normalisation: the cells of a minibatch do not influence one another.
    """

    def __init__(self, n_genes: int, n_hidden: int, n_topics: int, dropout_rate: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout_rate)
        self.mean = nn.Linear(n_genes, n_topics)
        self.log_variance = nn.Sequential(
            nn.Linear(n_topics, n_hidden), nn.Tanh(), nn.Linear(n_hidden, n_topics)
        )

    def forward(self, x: torch.Tensor, centre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance, both cells x topics, of what sets ``x`` off from ``centre``."""
        if self.training and self.dropout.p > 0:
            mean = self.mean(self.dropout(x - centre))
        else:
            # W (x - c) + b as W x + (b - W c): no second cells x genes matrix
            weight = self.mean.weight
            mean = F.linear(x, weight, self.mean.bias - weight @ centre)
        return mean, self.log_variance(mean)

    def input_weight(self) -> torch.Tensor:
        """Weights of the layer that reads the genes, outputs x genes."""
        return self.mean.weight


class NormalisedDecoder(nn.Module):
    """The published decoder: batch normalisation of ``theta beta`` over the cells of a batch."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_genes)

    def forward(self, theta: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        """Unnormalised log-frequencies, cells x genes."""
        return self.norm(theta @ beta)


class AffineDecoder(nn.Module):
    """Log-frequencies as background plus gene-wise scaled ``theta beta``.

    Nothing depends on the other cells of a minibatch, so that perturbed cells are decoded as
    they are in training.
    """

    def __init__(self, n_genes: int, initial_scale: float = 10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((n_genes,), initial_scale).log())
        self.background = nn.Parameter(torch.zeros(n_genes))

    def forward(self, theta: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        """Unnormalised log-frequencies, cells x genes."""
        return theta @ self.programs(beta)

    def programs(self, beta: torch.Tensor) -> torch.Tensor:
        """Unnormalised log-frequencies of cells of one topic, topics x genes."""
        scale = self.log_scale.exp()
        # The mean of beta over topics is 1/K for every gene: a uniform cell is at the background.
        # Proportions sum to one, so that what is added to all topics is added to every cell,
        # without a pass of its own over cells x genes.
        return beta * scale + (self.background - scale / beta.shape[0])


class KnowledgeHead(nn.Module):
    """From outside knowledge to logarithms of topic probabilities."""

    def __init__(self, n_knowledge: int, n_hidden: int, n_topics: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_knowledge, n_hidden),
            nn.BatchNorm1d(n_hidden),
            nn.Tanh(),
            nn.Linear(n_hidden, n_topics),
        )

    def forward(self, knowledge: torch.Tensor) -> torch.Tensor:
        """Logarithm of the assignment, cells x topics."""
        return F.log_softmax(self.layers(knowledge), dim=1)
