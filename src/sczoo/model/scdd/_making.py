"""Making synthetic cells from training cells: codes at the start, codes moved, profiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.model.scdd._codes import initial_codes, nearest_groups, optimise_codes
from sczoo.model.scdd._emission import Emission
from sczoo.model.scdd._genes import telling_genes

if TYPE_CHECKING:
    from sczoo.model.scdd._codes import MatchSpace, Source
    from sczoo.model.scdd._flow_map import OneStep
    from sczoo.model.scdd._module import SCDDModule

__all__ = ["Beginning", "Candidate", "Maker", "class_correction", "pooled_shares", "real_lengths"]

_BLOCK = 1024


@dataclass(frozen=True)
class Candidate:
    """Codes, the standardised latents and shares of genes they give, depths, and the emission.

    `lengths`, `genes` and `noise_seed` are what the emission was judged with, so that it can be
    repeated.
    """

    codes: torch.Tensor
    latents: torch.Tensor
    shares: np.ndarray
    totals: np.ndarray
    emission: Emission
    init: str = "random"
    pool_weight: float = 0.0
    lengths: np.ndarray | None = None
    genes: dict[str, np.ndarray] | None = None
    noise_seed: int | None = None
    optimised: bool = False
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Say in plain values what was chosen."""
        found: dict[str, Any] = {
            "emission": self.emission.name,
            "emission_threshold": float(self.emission.threshold),
            "emission_depth": float(self.emission.depth),
            "emission_genes": int(self.emission.n_genes),
            "codes_optimised": bool(self.optimised),
            "init": self.init,
            "pool_weight": float(self.pool_weight),
        }
        if self.score is not None:
            found["score"] = float(self.score)
            found["scores"] = dict(self.scores)
        return found


@dataclass(frozen=True)
class Beginning:
    """Where codes begin: how, with what weight of pools, the codes, and the cells of each."""

    init: str
    pool_weight: float
    codes: torch.Tensor
    groups: list[np.ndarray] | None


@torch.no_grad()
def class_correction(module: SCDDModule, source: Source, counts: Any) -> np.ndarray:
    r"""By how much the decoder is wrong about each gene, averaged over the cells of a class.

    :math:`r_{kg} = (\sum_{i\in k} c_{ig} + \tfrac12) /
    (\sum_{i\in k}\ell_i\hat\rho_{ig} + \tfrac12)`: a decoder of few parameters
    smooths, and what it smooths away are genes of single classes.

    Returns
    -------
    Factors, ``(n_classes, n_genes)``.
    """
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    factors = np.ones((len(source.labels), counts.shape[1]))
    for code in range(len(source.labels)):
        rows = np.flatnonzero(source.codes == code)
        fitted = np.zeros(counts.shape[1])
        for part in np.array_split(rows, max(1, len(rows) // _BLOCK)):
            latents = torch.as_tensor(source.latents[part], device=module.device)
            batch = torch.as_tensor(source.batch[part], device=module.device)
            shares = module.decode_standard(latents, batch if module.n_batch else None).exp()
            fitted += totals[part] @ shares.cpu().numpy().astype(np.float64)
        seen = np.asarray(counts[rows].sum(axis=0), dtype=np.float64).ravel()
        factors[code] = (seen + 0.5) / (fitted + 0.5)
    return factors


@torch.no_grad()
def pooled_shares(
    module: SCDDModule,
    source: Source,
    groups: list[np.ndarray],
    batch: torch.Tensor | None,
) -> np.ndarray:
    r"""Shares of the genes in the summed counts of each group of training cells.

    With batches, gene by gene times what the decoder says that the group would show in the batch
    of the synthetic cell, relative to what it shows in its own batches.

    Returns
    -------
    ``(n_groups, n_genes)``.
    """
    shares = np.zeros((len(groups), source.counts.shape[1]))
    totals = np.asarray(source.counts.sum(axis=1), dtype=np.float64).ravel()
    for number, rows in enumerate(groups):
        shares[number] = np.asarray(source.counts[rows].sum(axis=0), dtype=np.float64).ravel()
        if batch is not None:
            latents = torch.as_tensor(source.latents[rows], device=module.device)
            own = torch.as_tensor(source.batch[rows], device=module.device)
            there = batch[number].expand(len(rows))
            fitted = [
                totals[rows] @ module.decode_standard(latents, given).exp().cpu().numpy()
                for given in (there, own)
            ]
            shares[number] *= (fitted[0] + 0.5) / (fitted[1] + 0.5)
        if shares[number].sum() == 0:
            shares[number] = 1.0
    return shares / shares.sum(axis=1, keepdims=True)


def real_lengths(source: Source) -> np.ndarray:
    """Mean squared length of the log-normalised training cells of each class."""
    squares = np.asarray(source.log_values.multiply(source.log_values).sum(axis=1)).ravel()
    n = len(source.labels)
    sizes = np.maximum(np.bincount(source.codes, minlength=n), 1)
    return np.bincount(source.codes, squares, minlength=n) / sizes


@dataclass(frozen=True)
class Maker:
    """Makes candidates from some training cells.

    Attributes
    ----------
    module, one_step
        The networks.
    source
        Training cells.
    codes, conditions
        Class of each synthetic cell, alone and as the generator reads it.
    totals
        Depth of each synthetic cell.
    group_depth
        Give cells with pooled counts the median depth of their group instead.
    calibrate
        Scale the decoded genes by class, see :func:`class_correction`.
    matching, match_space, n_steps, lr
        As of :func:`optimise_codes`.
    emit_seed
        Seed of emissions with noise.
    rng, generator
        Sources of random numbers.
    """

    module: SCDDModule
    one_step: OneStep
    source: Source
    codes: np.ndarray
    conditions: torch.Tensor
    totals: np.ndarray
    group_depth: bool
    calibrate: bool
    matching: str
    match_space: MatchSpace
    n_steps: int
    lr: float
    emit_seed: int
    rng: np.random.Generator
    generator: torch.Generator

    @property
    def _batch(self) -> torch.Tensor | None:
        return self.conditions[:, 1] if self.module.n_batch else None

    def begin(self, init: str, pool_weight: float) -> Beginning:
        """Choose where codes begin."""
        codes, groups = initial_codes(
            self.module,
            self.one_step,
            self.source,
            self.codes,
            self.conditions,
            init,
            self.rng,
            self.generator,
        )
        return Beginning(init, pool_weight, codes, groups)

    def move(self, beginning: Beginning) -> torch.Tensor:
        """Move the codes so that what they generate matches the real cells."""
        moved, _ = optimise_codes(
            self.module,
            self.one_step,
            self.source,
            beginning.codes,
            self.codes,
            self.conditions,
            matching=self.matching,
            match_space=self.match_space,
            n_steps=self.n_steps,
            lr=self.lr,
            rng=self.rng,
            generator=self.generator,
        )
        return moved

    @torch.no_grad()
    def show(self, beginning: Beginning, moved: torch.Tensor | None = None) -> Candidate:
        """Generate and decode, calibrate, and add the pools; the emission is not chosen yet."""
        at = beginning.codes if moved is None else moved
        batch = self._batch
        latents = self.one_step(at, self.conditions)
        decoded = self.module.decode_standard(latents, batch).exp()
        shares = decoded.cpu().numpy().astype(np.float64)
        if self.calibrate:
            correction = class_correction(self.module, self.source, self.source.counts)
            shares *= correction[self.codes]
            shares /= shares.sum(axis=1, keepdims=True)
        totals, weight = self.totals, beginning.pool_weight
        if weight > 0:
            groups = beginning.groups
            if groups is None:
                groups = nearest_groups(self.source, latents.cpu().numpy(), self.codes)
            pooled = pooled_shares(self.module, self.source, groups, batch)
            shares = (1 - weight) * shares + weight * pooled
            if self.group_depth:
                depths = np.asarray(self.source.counts.sum(axis=1)).ravel()
                medians = np.array([np.median(depths[rows]) for rows in groups])
                totals = np.maximum(np.rint(medians), 1).astype(np.int64)
        return Candidate(
            at,
            latents,
            shares,
            totals,
            Emission(),
            beginning.init,
            weight,
            real_lengths(self.source),
            telling_genes(self.source),
            self.emit_seed,
            optimised=moved is not None,
        )
