"""The part of the graph that a minibatch sees: seeds, sampled neighbours, and theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sczoo.model.scagc._adaptive_graph import gumbel_noise

if TYPE_CHECKING:
    from sczoo.model.scagc._memory import GraphMemory

__all__ = ["Candidates", "Subgraph", "Surroundings"]


@dataclass
class Subgraph:
    """Nodes and edges around the cells of a minibatch, which are the first nodes.

    Attributes
    ----------
    features
        Remembered features of the other nodes, nodes x features.
    edge_index
        Positions of source and target of each edge, 2 x edges; edges into the seeds come first.
    far_weight
        Weights of the edges that do not end in a seed.
    seed_weight
        Weights of those that do; ``None`` where the edges were drawn and the weights are not
        remembered.
    n_near
        How many of the other nodes, the first of them, are neighbours of seeds; edges end in
        seeds and in these alone.
    """

    features: torch.Tensor
    edge_index: torch.Tensor
    far_weight: torch.Tensor
    seed_weight: torch.Tensor | None
    n_near: int

    def to(self, device: torch.device) -> Subgraph:
        """Move to a device."""
        weight = None if self.seed_weight is None else self.seed_weight.to(device)
        return Subgraph(
            self.features.to(device),
            self.edge_index.to(device),
            self.far_weight.to(device),
            weight,
            self.n_near,
        )

    def wanted(self, n_seeds: int, n_hops: int) -> list[tuple[int, int]]:
        """Leading nodes and edges that each hop of a convolution of the seeds needs."""
        n_edges = self.edge_index.shape[1]
        first = (n_seeds, n_edges - len(self.far_weight))
        near = (n_seeds + self.n_near, n_edges)
        everything = (n_seeds + len(self.features), n_edges)
        return [first, near, *[everything] * n_hops][:n_hops]


@dataclass
class Candidates:
    """Candidates of the cells of a minibatch.

    Attributes
    ----------
    latent
        Remembered embedding, seeds x candidates x dimensions.
    bonus
        What is added to the similarity, seeds x candidates.
    noise
        Gumbel noise of the draw, seeds x candidates.
    """

    latent: torch.Tensor
    bonus: torch.Tensor
    noise: torch.Tensor

    def to(self, device: torch.device) -> Candidates:
        """Move to a device."""
        return Candidates(self.latent.to(device), self.bonus.to(device), self.noise.to(device))


class Surroundings:
    """What the memory can tell about the cells of a minibatch.

    Parameters
    ----------
    memory
        Graph and banks of all cells.
    cells
        Cells of the minibatch, without repeats.
    fan_out
        Most neighbours of a seed, and of a neighbour, that are sampled.
    generator
        Of the random numbers.
    """

    def __init__(
        self,
        memory: GraphMemory,
        cells: torch.Tensor,
        fan_out: tuple[int, int],
        generator: torch.Generator,
    ) -> None:
        self.memory, self.cells = memory, cells
        self.fan_out, self.generator = fan_out, generator
        self.adaptive = memory.settings.adaptive

    def sampled(self) -> Subgraph:
        """Sample neighbours on the current graph."""
        source, target, weight = self.memory.fan_out(self.cells, self.fan_out[0], self.generator)
        return self._around(source, target, weight)

    def candidates(self) -> Candidates:
        """Look up the candidates, with fresh noise."""
        memory, rows = self.memory, self.cells.numpy()
        near = torch.from_numpy(memory.candidates[rows].astype(np.int64))
        bonus = torch.from_numpy(memory.base[rows]) - torch.from_numpy(memory.prices)[near]
        noise = gumbel_noise(tuple(near.shape), self.generator)
        return Candidates(memory.latent[near], bonus, noise)

    def drawn(self, positions: torch.Tensor) -> Subgraph:
        """Build the neighbourhood of edges drawn from the candidates.

        Parameters
        ----------
        positions
            Columns of the candidates that were drawn, seeds x neighbours.
        """
        rows = self.cells.numpy()
        chosen = np.take_along_axis(self.memory.candidates[rows], positions.cpu().numpy(), axis=1)
        source = torch.from_numpy(chosen.astype(np.int64))
        target = self.cells[:, None].expand_as(source)
        return self._around(source.ravel(), target.ravel(), None)

    def _around(
        self, source: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
    ) -> Subgraph:
        """Add to edges into the seeds a sample of those into the seeds' neighbours."""
        memory = self.memory
        near = memory.without(torch.unique(source), self.cells)
        far, far_target, far_weight = memory.fan_out(near, self.fan_out[1], self.generator)
        nodes = torch.cat([self.cells, near])
        beyond = memory.without(torch.unique(far), nodes)
        others = torch.cat([near, beyond])
        position = memory.positions(torch.cat([self.cells, others]))
        return Subgraph(
            features=memory.hidden[others],
            edge_index=torch.stack(
                [
                    position[torch.cat([source, far])],
                    position[torch.cat([target, far_target])],
                ]
            ),
            far_weight=far_weight,
            seed_weight=weight,
            n_near=len(near),
        )
