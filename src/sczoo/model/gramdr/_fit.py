"""Fitting: statistics, a start, then one pass over the cells per step until it converges."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import EmptyDataError
from sczoo.model.gramdr._operator import GramOperator
from sczoo.model.gramdr._pairwise import PairwiseOperator
from sczoo.model.gramdr._scree import n_components
from sczoo.model.gramdr._solver import BlockKrylov
from sczoo.model.gramdr._spectrum import positive_mass
from sczoo.model.gramdr._statistics import GeneScaling, fit_statistics

if TYPE_CHECKING:
    from sczoo.model.gramdr._rows import RowReader
    from sczoo.model.gramdr._state import GeneState, NormaliserName

__all__ = ["GramFit"]

logger = logging.getLogger(__name__)

_OVERSAMPLING, _START_SEED = 10, 0
# Up to this many genes the genes' covariance gives a start that is nearly the answer.
_MOST_GENES_FOR_COVARIANCE = 3000
_COVARIANCE_STEPS = 40
# An eigenvalue this small beside what was subtracted from the diagonal is noise.
_NOISE_FLOOR = 0.1


class GramFit:
    """A fit under way: call :meth:`step` until :attr:`converged`, then read :attr:`state`.

    Parameters
    ----------
    reader
        The cells.
    state
        Gene-side parameters, filled in place.
    normaliser
        How co-observation is estimated.
    n_latent
        Number of components, a share, ``"scree"`` or ``"all"``.
    n_computed
        Number of components to compute at most.
    gene_scaling, clip, centre, weight_power
        See :class:`~sczoo.model.GramDR`.
    tol
        Residual at which the fit has converged, relative to the largest eigenvalue.
    max_memory_gib
        Encoded cells are kept in memory if they fit.
    """

    def __init__(
        self,
        reader: RowReader,
        state: GeneState,
        normaliser: NormaliserName,
        *,
        n_latent: int | float | str,
        n_computed: int,
        gene_scaling: GeneScaling,
        clip: float | None,
        centre: bool,
        weight_power: float,
        tol: float,
        max_memory_gib: float,
    ) -> None:
        self.state = state
        self.n_latent = n_latent
        self.n_computed = n_computed
        self.tol = tol
        self.latent: np.ndarray | None = None
        fit_statistics(
            reader, state, normaliser, gene_scaling=gene_scaling, clip=clip, centre=centre
        )
        kind = PairwiseOperator if normaliser == "pairwise" else GramOperator
        self.operator = kind(
            reader,
            state,
            normaliser,
            clip=clip,
            weight_power=weight_power,
            max_memory_gib=max_memory_gib,
        )
        if not (self.operator.weight > 0).any():
            raise EmptyDataError("No cell has an observed value: there is nothing to embed.")
        n = reader.n_cells
        if normaliser == "depth":  # what the loadings are divided by: how much saw each gene
            mass = np.bincount(
                self.operator.batch, self.operator.weight**2, minlength=len(state.panel)
            )
            state.mass, state.co_observed = mass, state.panel * mass[:, None]
        self.n_wanted = min(n_computed, max(n - 1, 1), reader.n_genes)
        # The answer does not depend on the start: a fixed one gives the same digits every time.
        rng = np.random.default_rng(_START_SEED)
        width = min(self.n_wanted + _OVERSAMPLING, n)
        start = rng.standard_normal((n, width)).astype(self.operator.dtype)
        if normaliser != "pairwise" and reader.n_genes <= _MOST_GENES_FOR_COVARIANCE:
            start = self._covariance_start(start, rng)
        self.solver = BlockKrylov(self._apply, start, self.n_wanted)

    def _apply(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.operator(vectors)

    def _covariance_start(self, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        covariance = self.operator.gene_covariance()
        n_genes, width = len(covariance), min(start.shape[1], len(covariance))

        def apply(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return covariance @ vectors, np.zeros((0, vectors.shape[1]))

        solver = BlockKrylov(apply, rng.standard_normal((n_genes, width)), width)
        for _ in range(_COVARIANCE_STEPS):
            solver.step()
            if solver.residual() <= 0.1 * self.tol:
                break
        genes = solver.vectors(width)
        inverse = self.operator._inverse
        factors = np.repeat(genes[None], len(inverse), axis=0)
        return self.operator.right(factors)

    # --- steps --------------------------------------------------------------------------------

    @property
    def n_passes(self) -> int:
        """Number of steps made."""
        return self.solver.n_steps

    @property
    def residual(self) -> float:
        """Largest residual of the components, relative to the largest eigenvalue."""
        return self.solver.residual()

    @property
    def converged(self) -> bool:
        """Whether the residual has fallen to the tolerance."""
        return self.n_passes > 0 and self.residual <= self.tol

    def step(self) -> None:
        """Make one pass and bring :attr:`state` up to date, so that a run can stop anywhere."""
        self.solver.step()
        self._write_state()

    def _write_state(self) -> None:
        state, operator = self.state, self.operator
        values = self.solver.values[: self.n_wanted]
        seen = operator.weight > 0
        floor = _NOISE_FLOOR * float(operator._shrink[seen].mean())
        positive = values[values > max(floor, 1e-12 * max(float(values.max(initial=0)), 0.0))]
        kept = len(positive)
        if isinstance(self.n_latent, int | np.integer):
            n_kept = min(int(self.n_latent), kept)
        else:
            total = float(positive.sum())
            if isinstance(self.n_latent, float):
                total = self._positive_mass(total)
            n_kept = n_components(self.n_latent, positive, total)
        factors = self.solver.auxiliary(n_kept)
        vectors = self.solver.vectors(n_kept)
        root = np.sqrt(values[:n_kept])
        # the sign of a component is free: its largest loading is positive
        along = factors.sum(axis=0)
        largest = np.argmax(np.abs(along), axis=0) if n_kept else np.zeros(0, dtype=int)
        sign = np.where(along[largest, np.arange(n_kept)] < 0, -1.0, 1.0)
        state.loadings = np.zeros_like(state.loadings)
        state.loadings[:, :, :n_kept] = factors * (sign / root)
        state.eigenvalues = np.zeros_like(state.eigenvalues)
        state.eigenvalues[:n_kept] = values[:n_kept]
        inverse = np.divide(1.0, operator.weight, out=np.zeros_like(operator.weight), where=seen)
        state.latent_variance = np.zeros_like(state.latent_variance)
        squares = np.einsum("ik,ik,i->k", vectors, vectors, inverse**2)
        state.latent_variance[:n_kept] = values[:n_kept] * squares / len(vectors)
        if isinstance(operator, PairwiseOperator):
            self.latent = vectors * (sign * root) * inverse[:, None]
        state.n_kept = np.asarray(n_kept, dtype=np.int64)
        state.total = np.asarray(float(operator.diagonal.sum()))
        explained = float(values[:n_kept].sum())
        share = max(1.0 - explained / max(float(state.total), 1e-300), 0.0)
        mean_square = float(operator.diagonal[seen].sum() / (operator.weight[seen] ** 2).sum())
        state.residual_variance = np.asarray(share * max(mean_square, 0.0))
        state.signal_variance = np.asarray((1.0 - share) * max(mean_square, 0.0))

    def _positive_mass(self, found: float) -> float:
        if not hasattr(self, "_mass"):
            operator = self.operator
            self._mass = positive_mass(lambda v: operator(v)[0], operator.shape[0], _START_SEED)
        return max(self._mass[0], found)

    def finish(self) -> None:
        """Say what a user should know about the result."""
        kept = int(self.state.n_kept)
        if not self.converged:
            logger.warning(
                "The components have not converged: residual %.2g after %d passes (tolerance "
                "%.2g). Pass a larger max_epochs, or accept it if the scree is flat there.",
                self.residual,
                self.n_passes,
                self.tol,
            )
        wanted = self.n_latent if isinstance(self.n_latent, int) else kept
        if kept < wanted:
            logger.warning(
                "Only %d of %d components rise above the noise that was subtracted; the others "
                "are left out.",
                kept,
                wanted,
            )
        if kept == 0:
            raise EmptyDataError(
                "Not one component rises above the noise: the cells do not differ by more than "
                "chance. Check the mask and the values, or pass more genes."
            )
