"""Losses that tie topics to what outside knowledge says about the same cells.

The published terms take soft assignments of cells to topics, cells x topics: ``theta`` from
expression and ``phi`` from the knowledge. Consistency works on logarithms, because the product of
two sharp assignments underflows. :func:`geometry` needs no assignment: it compares distances.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["balance", "consistency", "distillation", "geometry"]


def distillation(
    first: torch.Tensor, second: torch.Tensor, temperature: float = 0.5
) -> torch.Tensor:
    """Cluster-level contrast: the same topic of both assignments is a positive pair.

    Every topic is the vector of its cells' probabilities. The positive of a topic is the topic of
    the same index in the other assignment; all other topics of both are negatives.

    Parameters
    ----------
    first, second
        Assignments, cells x topics.
    temperature
        Divisor of the cosine similarity.
    """
    n_topics = first.shape[1]
    topics = F.normalize(torch.cat([first, second], dim=1).t(), dim=1)
    similarity = topics @ topics.t() / temperature
    itself = torch.eye(2 * n_topics, dtype=torch.bool, device=similarity.device)
    similarity = similarity.masked_fill(itself, float("-inf"))
    positive = torch.arange(2 * n_topics, device=similarity.device).roll(n_topics)
    return F.cross_entropy(similarity, positive)


def consistency(log_theta: torch.Tensor, log_phi: torch.Tensor) -> torch.Tensor:
    """Mean of ``-log <theta_i, phi_i>``: a cell should be in the same topic in both views.

    Parameters
    ----------
    log_theta, log_phi
        Logarithms of the assignments, cells x topics.
    """
    # the published code clamps the logarithm at -100
    return -torch.logsumexp(log_theta + log_phi, dim=1).clamp_min(-100.0).mean()


def balance(assignment: torch.Tensor) -> torch.Tensor:
    """Entropy of the mean assignment, to be maximised: no topic may swallow all cells.

    Parameters
    ----------
    assignment
        Probabilities, cells x topics.
    """
    usage = assignment.mean(dim=0)
    return -(usage * usage.clamp_min(1e-9).log()).sum()


def geometry(mean: torch.Tensor, knowledge: torch.Tensor) -> torch.Tensor:
    """Stress between two views of the same cells: how much their pairwise distances differ.

    Distances are taken relative to their mean in each view, so that neither the scale nor the
    width of the knowledge matters. Zero means that the arrangement of the cells is the same.

    Parameters
    ----------
    mean
        Topic logits, cells x topics.
    knowledge
        Outside knowledge, cells x width.
    """
    # pdist has no gradient at distance zero, and duplicated cells are common in batches of zeros
    own = _relative_distances(mean)
    with torch.no_grad():
        other = _relative_distances(knowledge)
    n_pairs = max(len(mean) * (len(mean) - 1), 1)
    return (own - other).square().sum() / n_pairs


def _relative_distances(rows: torch.Tensor) -> torch.Tensor:
    """Distances over their mean, cells x cells: whole, because picking a triangle costs more."""
    n_cells = len(rows)
    rows = rows - rows.mean(dim=0)
    squares = rows.square().sum(dim=1)
    squared = torch.addmm(squares[:, None] + squares[None, :], rows, rows.t(), alpha=-2.0)
    itself = torch.eye(n_cells, dtype=torch.bool, device=rows.device)
    # the root's slope at zero is infinite: cells with themselves are left out before it
    squared = squared.clamp_min(0.0).masked_fill(itself, 0.0)
    distance = (squared + 1e-12).sqrt()
    mean = distance.sum() / max(n_cells * (n_cells - 1), 1)
    return distance / mean.clamp_min(1e-6)
