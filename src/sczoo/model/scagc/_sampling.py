"""The part of the graph that a minibatch sees: seeds, sampled neighbours, and theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from sczoo.model.scagc._memory import GraphMemory

__all__ = ["StepGraph", "sample_step"]


@dataclass
class StepGraph:
    """A sampled subgraph around the cells of a minibatch.

    Attributes
    ----------
    n_seeds
        The first nodes are the cells of the minibatch.
    features
        Remembered features of the nodes, nodes x hidden; the seeds' are replaced by fresh ones.
    seed_source, seed_target, seed_weight
        Edges into the seeds on the current graph.
    far_source, far_target, far_weight
        Edges into the neighbours.
    candidate_source
        Node of each candidate of each seed, seeds x candidates.
    candidate_latent
        Remembered embedding of each candidate, seeds x candidates x dimensions.
    candidate_bonus
        What is added to the similarity of each candidate, seeds x candidates.
    noise
        Gumbel noise of the draw.
    """

    n_seeds: int
    features: torch.Tensor
    seed_source: torch.Tensor
    seed_target: torch.Tensor
    seed_weight: torch.Tensor
    far_source: torch.Tensor
    far_target: torch.Tensor
    far_weight: torch.Tensor
    candidate_source: torch.Tensor | None = None
    candidate_latent: torch.Tensor | None = None
    candidate_bonus: torch.Tensor | None = None
    noise: torch.Tensor | None = None

    def to(self, device: torch.device) -> StepGraph:
        """Move to a device."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        return self


def sample_step(
    memory: GraphMemory,
    cells: torch.Tensor,
    fan_out: tuple[int, int],
    generator: torch.Generator,
    *,
    draw: bool,
) -> StepGraph:
    """Sample the neighbourhood of a minibatch.

    Parameters
    ----------
    memory
        Graph and banks of all cells.
    cells
        Cells of the minibatch, without repeats.
    fan_out
        Most neighbours of a seed, and of a neighbour.
    generator
        Of the random numbers.
    draw
        Whether edges will be drawn from the candidates.
    """
    from sczoo.model.scagc._adaptive_graph import gumbel_noise

    near, target, weight = memory.fan_out(cells, fan_out[0], generator)
    reached = [near]
    candidates = None
    if draw:
        candidates = torch.from_numpy(memory.candidates[cells.numpy()].astype(np.int64))
        reached.append(candidates.ravel())
    others = torch.unique(torch.cat(reached))
    others = others[~torch.isin(others, cells)]
    # only neighbours on the graph pass on what they get from their own neighbours
    inner = torch.unique(near)
    inner = inner[~torch.isin(inner, cells)]
    far, far_target, far_weight = memory.fan_out(others if draw else inner, fan_out[1], generator)
    nodes = torch.cat([cells, others])
    beyond = torch.unique(far)
    beyond = beyond[~torch.isin(beyond, nodes)]
    nodes = torch.cat([nodes, beyond])
    near, target, far, far_target = memory.local(nodes, near, target, far, far_target)
    step = StepGraph(
        n_seeds=len(cells),
        features=memory.hidden[nodes],
        seed_source=near,
        seed_target=target,
        seed_weight=weight,
        far_source=far,
        far_target=far_target,
        far_weight=far_weight,
    )
    if candidates is not None:
        (step.candidate_source,) = memory.local(nodes, candidates)
        step.candidate_latent = memory.latent[candidates]
        step.candidate_bonus = (
            torch.from_numpy(memory.base[cells.numpy()])
            - torch.from_numpy(memory.prices)[candidates]
        )
        step.noise = gumbel_noise(tuple(candidates.shape), generator)
    return step
