"""What training remembers of all cells, so that a minibatch need not encode their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.graph import knn
from sczoo.model.scagc._adaptive_graph import (
    averaging_adjacency,
    balanced_rows,
    jaccard,
    union_graph,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

__all__ = ["GraphMemory", "GraphSettings"]

_VALUES_AT_ONCE = 50_000_000
_LEADING = 15
_AUCTION_CELLS = 2_000_000


@dataclass(frozen=True)
class GraphSettings:
    """How the graph learns.

    Attributes
    ----------
    n_neighbors, n_candidates
        Edges drawn per cell, and from how many.
    similarity_scale
        Factor of the cosine.
    balance
        First step of the prices that even the degrees out; 0 for none.
    adaptive
        Whether the graph changes at all.
    """

    n_neighbors: int
    n_candidates: int
    similarity_scale: float
    balance: float
    adaptive: bool = True
    base_scale: float = 1.0
    balance_rounds: int = 20


class GraphMemory:
    """Candidates, banks of embeddings and the current graph of all cells.

    Nothing here is a parameter, and nothing is saved with a model.

    Parameters
    ----------
    components
        Principal components of the cells, from which the first graph is made.
    n_hidden, n_latent
        Widths of the banks.
    settings
        How the graph learns.
    exact_up_to
        Number of cells up to which neighbours are searched exhaustively.
    """

    def __init__(
        self,
        components: NDArray[np.float32],
        n_hidden: int,
        n_latent: int,
        settings: GraphSettings,
    ) -> None:
        n_cells = len(components)
        self.settings = settings
        self.components = components
        self.near = knn(components, settings.n_neighbors, quick=True).indices.astype(np.int32)
        self._static = union_graph(self.near)
        self.rows = np.sort(self.near, axis=1)
        self.next_rows = self.rows.copy()
        self.hidden = torch.zeros(n_cells, n_hidden)
        self.latent = torch.zeros(n_cells, n_latent)
        self.prices = np.zeros(n_cells, dtype=np.float32)
        self.history: dict[str, list[float]] = {"jaccard": []}
        self._position = torch.zeros(n_cells, dtype=torch.int64)
        self._marked = torch.zeros(n_cells, dtype=torch.bool)
        self.adopt(1.0)
        self.candidates = self.near
        if settings.adaptive:
            # cells are compared where single cells' noise is averaged out
            self._smooth = self._smoothed(components[:, :_LEADING])
            found = knn(self._smooth, settings.n_candidates, quick=True)
            self._smooth_near = found.indices.astype(np.int32)
            width = found.distances[:, settings.n_neighbors - 1]
            self._width = np.maximum(width, 1e-3 * max(float(width.mean()), 1e-12))
            self._merge(self._smooth_near)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.rows)

    # --- the graph of an epoch ----------------------------------------------------------------

    def adopt(self, prior: float) -> None:
        """Make the rows drawn last the current graph, mixed with the first one.

        Parameters
        ----------
        prior
            Weight of the first, static graph (lambda of the user guide).
        """
        if prior >= 1.0 or not self.settings.adaptive:
            mixed = self._static
        elif prior <= 0:
            mixed = union_graph(self.rows)
        else:
            mixed = (prior * self._static + (1.0 - prior) * union_graph(self.rows)).tocsr()
        self.adjacency: csr_matrix = averaging_adjacency(mixed)
        self._indptr = torch.from_numpy(self.adjacency.indptr.astype(np.int64))
        self._indices = torch.from_numpy(self.adjacency.indices)
        self._values = torch.from_numpy(self.adjacency.data)

    def end_epoch(self) -> float:
        """Take over the rows that the epoch drew; returns how many edges stayed (Jaccard)."""
        if self.settings.adaptive:
            same = jaccard(self.rows, self.next_rows)
            self.rows = np.sort(self.next_rows, axis=1)
            self.next_rows = self.rows.copy()
        else:
            same = 1.0
        self.history["jaccard"].append(same)
        return same

    # --- sampling -----------------------------------------------------------------------------

    def fan_out(
        self, cells: torch.Tensor, most: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample neighbours of `cells` on the current graph, at most `most` each.

        Weights are scaled so that sums over the sample estimate those over all neighbours.

        Returns
        -------
        Source, target (both numbers of cells) and weight of each edge.
        """
        start = self._indptr[cells]
        degree = self._indptr[cells + 1] - start
        taken = degree.clamp_max(most)
        # a window of a random start, around the end of the row: without replacement
        begin = (torch.rand(len(cells), generator=generator) * degree).long()
        offset = (begin[:, None] + torch.arange(most)) % degree.clamp_min(1)[:, None]
        valid = torch.arange(most) < taken[:, None]
        place = (start[:, None] + offset)[valid]
        target = cells[:, None].expand(-1, most)[valid]
        factor = (degree / taken.clamp_min(1)).to(torch.float32)[:, None].expand(-1, most)[valid]
        return self._indices[place].long(), target, self._values[place] * factor

    def without(self, cells: torch.Tensor, excluded: torch.Tensor) -> torch.Tensor:
        """Cells that are not among those excluded."""
        self._marked[excluded] = True
        kept = cells[~self._marked[cells]]
        self._marked[excluded] = False
        return kept

    def positions(self, nodes: torch.Tensor) -> torch.Tensor:
        """Position of each cell in `nodes`; only those of `nodes` mean anything."""
        self._position[nodes] = torch.arange(len(nodes))
        return self._position

    # --- refreshing ---------------------------------------------------------------------------

    def _smoothed(self, components: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average cells with their neighbours, twice."""
        for _ in range(2):
            components = 0.5 * (components + self.adjacency @ components)
        return components.astype(np.float32)

    def all_logits(self) -> NDArray[np.float32]:
        """Similarities of every cell and its candidates, without prices."""
        z = self.latent.numpy()
        unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        out = np.empty(self.candidates.shape, dtype=np.float32)
        step = max(1, _VALUES_AT_ONCE // (self.candidates.shape[1] * unit.shape[1]))
        for begin in range(0, len(unit), step):
            part = slice(begin, begin + step)
            out[part] = np.einsum("id,ijd->ij", unit[part], unit[self.candidates[part]])
        return self.settings.similarity_scale * out + self.base

    def refresh_candidates(self) -> None:
        """Search candidates again, in the latent space; the first graph's neighbours stay."""
        if self.settings.adaptive:
            half = self.settings.n_candidates - self.settings.n_neighbors
            found = knn(self.latent.numpy(), max(1, half // 2), quick=True).indices.astype(
                np.int32
            )
            self._merge(found, self._smooth_near)

    def _merge(self, *found: NDArray[np.int32]) -> None:
        """Put candidates together, each once, the first graph's neighbours first."""
        merged = np.concatenate([self.near, *found], axis=1)
        order = np.argsort(merged, axis=1, kind="stable")
        ordered = np.take_along_axis(merged, order, axis=1)
        again = np.zeros(merged.shape, dtype=bool)
        np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        first = np.argsort(again, axis=1, kind="stable")[:, : self.settings.n_candidates]
        self.candidates = np.take_along_axis(merged, first, axis=1)
        u, width = self._smooth, self._width
        self.base = np.empty(self.candidates.shape, dtype=np.float32)
        step = max(1, _VALUES_AT_ONCE // (self.candidates.shape[1] * u.shape[1]))
        for begin in range(0, len(u), step):
            part = slice(begin, begin + step)
            near = self.candidates[part]
            squared = ((u[part, None] - u[near]) ** 2).sum(axis=2)
            self.base[part] = (
                -self.settings.base_scale * squared / (width[part, None] * width[near])
            )

    def balance_prices(self) -> None:
        """Let the auction adjust prices to the current embedding."""
        if self.settings.balance > 0 and self.settings.adaptive:
            _, self.prices = balanced_rows(
                self.all_logits(),
                self.candidates,
                self.settings.n_neighbors,
                self.prices,
                n_rounds=self._rounds,
                rate=self.settings.balance,
            )

    @property
    def _rounds(self) -> int:
        """Rounds of the auction: with very many cells, few."""
        return max(3, min(self.settings.balance_rounds, _AUCTION_CELLS // self.n_cells))

    def settle(self) -> None:
        """Replace the drawn graph by the most probable one."""
        if self.settings.adaptive:
            self.rows, self.prices = balanced_rows(
                self.all_logits(),
                self.candidates,
                self.settings.n_neighbors,
                self.prices,
                n_rounds=2 * self._rounds if self.settings.balance else 0,
                rate=self.settings.balance,
            )
        self.next_rows = self.rows.copy()

    def graph(self) -> csr_matrix:
        """Undirected graph of the current rows, without the first one mixed in."""
        return union_graph(self.rows) if self.settings.adaptive else self._static

    def static_graph(self) -> Any:
        """Return the first graph: nearest neighbours in principal components."""
        return self._static
