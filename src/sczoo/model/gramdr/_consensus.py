"""Which zeros are missing: a vote of several clusterings, kept as gene-side tables.

A zero counts as true if nearly all cells of its cluster are zero for that gene, in at least half
of the clusterings (section 4 of the paper). New cells are given to the nearest centre.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

from sczoo.model.gramdr._solver import BlockKrylov

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sczoo.model.gramdr._rows import RowReader

__all__ = ["ConsensusState", "fit_consensus", "observed_by_vote"]

CLUSTERS = (4, 6, 8, 10, 12)
_RUNS_PER_SIZE = 2
_TRUE_ZERO_SHARE = 0.85
_N_PCS = 50
_KMEANS_RESTARTS = 5
_MINIBATCH_ABOVE = 20_000
_POWER_STEPS = 5


@dataclass
class ConsensusState:
    """Clusterings by their centres, with the genes whose zeros they hold for true.

    Attributes
    ----------
    mean
        Mean of the values, ``(D,)``.
    axes
        Principal axes, ``(D, 50)``.
    centres
        Centres of all clusters of all runs, ``(80, 50)``.
    run
        The run of each cluster, ``(80,)``.
    true_zero
        1 where zeros of a gene are true in a cluster, ``(80, D)``.
    """

    mean: np.ndarray
    axes: np.ndarray
    centres: np.ndarray
    run: np.ndarray
    true_zero: np.ndarray

    @classmethod
    def empty(cls, n_genes: int) -> ConsensusState:
        """Return the state before training."""
        sizes = [size for size in CLUSTERS for _ in range(_RUNS_PER_SIZE)]
        total = sum(sizes)
        return cls(
            mean=np.zeros(n_genes),
            axes=np.zeros((n_genes, _N_PCS)),
            centres=np.zeros((total, _N_PCS)),
            run=np.repeat(np.arange(len(sizes)), sizes),
            true_zero=np.zeros((total, n_genes), dtype=np.uint8),
        )

    @classmethod
    def names(cls) -> list[str]:
        """Names of the arrays."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> ConsensusState:
        """Build the state from a mapping of arrays."""
        return cls(**{name: np.asarray(arrays[name]) for name in cls.names()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {name: np.asarray(getattr(self, name)) for name in self.names()}


def observed_by_vote(values: np.ndarray, state: ConsensusState) -> np.ndarray:
    """Say which values count as observed: all that are not zero, and the zeros held for true.

    Parameters
    ----------
    values
        ``(m, D)``, dense, not negative.
    state
        Clusterings.
    """
    scores = (values - state.mean) @ state.axes
    member = _membership(scores, state)
    votes = member @ state.true_zero.astype(np.float32)
    n_runs = int(state.run.max()) + 1
    return (values != 0) | (votes >= n_runs / 2)


def _membership(scores: np.ndarray, state: ConsensusState) -> np.ndarray:
    """Clusters of each cell, one per run, as zeros and ones; ``(m, 80)``."""
    distance = (state.centres**2).sum(axis=1) - 2 * scores @ state.centres.T
    member = np.zeros(distance.shape, dtype=np.float32)
    for run in range(int(state.run.max()) + 1):
        columns = np.flatnonzero(state.run == run)
        nearest = columns[np.argmin(distance[:, columns], axis=1)]
        member[np.arange(len(scores)), nearest] = 1.0
    return member


def fit_consensus(reader: RowReader, n_genes: int, seed: int) -> ConsensusState:
    """Cluster the cells and find the genes whose zeros are true in each cluster.

    Parameters
    ----------
    reader
        Reader that takes every value as observed (``mask="explicit"`` without a layer).
    n_genes
        Number of genes.
    seed
        Seed of the clusterings.
    """
    state = ConsensusState.empty(n_genes)
    n = reader.n_cells
    total = np.zeros(n_genes)
    for block in reader:
        total += np.asarray(block.values.sum(axis=0)).ravel()
    state.mean = total / n
    rng = np.random.default_rng(seed)
    n_axes = max(min(_N_PCS, n - 1, n_genes), 1)
    scores, axes = _principal_axes(reader, state.mean, n_axes, rng)
    state.axes[:, :n_axes] = axes
    for run in range(int(state.run.max()) + 1):
        chosen = np.flatnonzero(state.run == run)
        size = min(len(chosen), len(np.unique(scores.round(9), axis=0)))
        kind = MiniBatchKMeans if n > _MINIBATCH_ABOVE else KMeans
        clusters = kind(size, n_init=_KMEANS_RESTARTS, random_state=seed % 2**31 + run).fit(scores)
        state.centres[chosen[:size], :n_axes] = clusters.cluster_centers_
        # clusters beyond the number of distinct cells stay empty, far from everything
        state.centres[chosen[size:], 0] = 1e6 * (1 + np.abs(scores).max())
    zeros = np.zeros(state.true_zero.shape)
    cells = np.zeros(len(zeros))
    for block in reader:
        values = block.values if isinstance(block.values, np.ndarray) else block.values.toarray()
        member = _membership((values - state.mean) @ state.axes, state)
        zeros += member.T @ (values == 0).astype(np.float32)
        cells += member.sum(axis=0)
    share = np.divide(zeros, cells[:, None], out=np.zeros_like(zeros), where=cells[:, None] > 0)
    state.true_zero = (share >= _TRUE_ZERO_SHARE).astype(np.uint8)
    return state


def _principal_axes(
    reader: RowReader, mean: np.ndarray, n_axes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``(n, k)`` and axes ``(D, k)`` of plain PCA, streamed."""

    def apply(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = np.zeros_like(vectors)
        for block in reader:
            product = np.asarray(block.values @ vectors) - mean @ vectors
            out += np.asarray(block.values.T @ product) - np.outer(mean, product.sum(axis=0))
        return out, np.zeros((0, vectors.shape[1]))

    width = min(n_axes + 10, len(mean))
    solver = BlockKrylov(apply, rng.standard_normal((len(mean), width)), n_axes)
    for _ in range(_POWER_STEPS):
        solver.step()
    axes = solver.vectors(n_axes)
    scores = np.concatenate([np.asarray(b.values @ axes) - mean @ axes for b in reader])
    return scores, axes
