"""Choosing codes and emission by what classifiers learn from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.model.scdd._classifiers import CLASSIFIERS, fit_predict
from sczoo.model.scdd._codes import Source, initial_codes, nearest_groups, optimise_codes
from sczoo.model.scdd._emission import (
    EMISSIONS_OF_FEW,
    EMISSIONS_OF_MORE,
    Emission,
    emit,
    expected_log,
)

if TYPE_CHECKING:
    from sczoo.model.scdd._flow_map import OneStep
    from sczoo.model.scdd._module import SCDDModule

__all__ = [
    "AUTO_POOL",
    "Candidate",
    "choose_candidate",
    "class_correction",
    "pooled_shares",
    "put_aside",
    "real_lengths",
    "score",
]

# Smaller classes are too precious to put cells aside.
_SMALLEST_SPLIT = 40
_ASIDE, _MOST_ASIDE = 0.25, 80
_MANY_CELLS, _SOME_CELLS = 20, 5
_FINALISTS = 2
# halfway between the generator's profiles, which differ too little among the cells of a class,
# and the pools', which differ too much
AUTO_POOL = 0.5
_BLOCK = 1024


@dataclass(frozen=True)
class Candidate:
    """Codes, the standardised latents and shares of genes they give, depths, and the emission.

    `lengths` and `noise_seed` are what the emission was judged with, so that it can be repeated.
    """

    codes: torch.Tensor
    latents: torch.Tensor
    shares: np.ndarray
    totals: np.ndarray
    emission: Emission
    init: str = "random"
    pool_weight: float = 0.0
    lengths: np.ndarray | None = None
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
            "codes_optimised": bool(self.optimised),
            "init": self.init,
            "pool_weight": float(self.pool_weight),
        }
        if self.score is not None:
            found["score"] = float(self.score)
            found["scores"] = dict(self.scores)
        return found


def put_aside(codes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split training cells into those to learn from and those to judge by.

    A quarter of each class, at most 80 cells, is put aside; classes of fewer than 40 cells serve
    for both.
    """
    learn, judge = [], []
    for code in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        n = min(int(_ASIDE * len(rows)), _MOST_ASIDE)
        if len(rows) < _SMALLEST_SPLIT:
            learn.append(rows)
            judge.append(rows)
        else:
            learn.append(rows[n:])
            judge.append(rows[:n])
    return np.sort(np.concatenate(learn)), np.sort(np.concatenate(judge))


def score(counts: np.ndarray, codes: np.ndarray, real: Any, real_codes: np.ndarray) -> float:
    """Mean balanced accuracy of four classifiers that learn from `counts`."""
    from scipy import sparse
    from sklearn.metrics import balanced_accuracy_score

    cells = sparse.csr_matrix(counts)
    return float(
        np.mean(
            [
                balanced_accuracy_score(
                    real_codes, fit_predict(name, cells, codes, [real], quick=True)[0]
                )
                for name in CLASSIFIERS
            ]
        )
    )


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
class _Family:
    """A way to begin, and what came of it."""

    init: str
    weight: float
    start: torch.Tensor
    groups: list[np.ndarray] | None


def choose_candidate(
    module: SCDDModule,
    one_step: OneStep,
    source: Source,
    *,
    codes: np.ndarray,
    conditions: torch.Tensor,
    totals: np.ndarray,
    emission: str,
    matching: str,
    match_space: Any,
    init: str,
    pool_weight: float | str,
    group_depth: bool,
    accept: str,
    n_steps: int,
    lr: float,
    calibrate: bool,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Candidate:
    """Make codes, move them, and keep what serves classifiers best.

    Emissions are compared on the codes of each beginning, the best two then also on the codes
    moved from there. Moved codes are kept only if they score higher, unless ``accept="always"``.
    """
    learn, judge = put_aside(source.codes, rng)
    part = replace(
        source,
        latents=source.latents[learn],
        codes=source.codes[learn],
        batch=source.batch[learn],
        log_values=source.log_values[learn],
        counts=source.counts[learn],
    )
    batch = conditions[:, 1] if module.n_batch else None
    theta = module.log_theta.detach().exp().cpu().numpy()
    emit_seed = int(rng.integers(2**31))
    correction = class_correction(module, part, part.counts) if calibrate else None
    lengths = real_lengths(part)
    depths = np.asarray(part.counts.sum(axis=1)).ravel()
    unseen, truth = source.counts[judge], source.codes[judge]

    @torch.no_grad()
    def generated(family: _Family, at: torch.Tensor, optimised: bool) -> Candidate:
        latents = one_step(at, conditions)
        shares = module.decode_standard(latents, batch).exp().cpu().numpy().astype(np.float64)
        if correction is not None:
            shares *= correction[codes]
            shares /= shares.sum(axis=1, keepdims=True)
        cell_totals = totals
        if family.weight > 0:
            groups = family.groups or nearest_groups(part, latents.cpu().numpy(), codes)
            pooled = pooled_shares(module, part, groups, batch)
            shares = (1 - family.weight) * shares + family.weight * pooled
            if group_depth:
                medians = np.array([np.median(depths[rows]) for rows in groups])
                cell_totals = np.maximum(np.rint(medians), 1).astype(np.int64)
        return Candidate(
            at,
            latents,
            shares,
            cell_totals,
            Emission(),
            family.init,
            family.weight,
            lengths,
            emit_seed,
            optimised=optimised,
        )

    def judged(candidate: Candidate, ways: tuple[Emission, ...]) -> list[Candidate]:
        typical = expected_log(candidate.shares, candidate.totals, theta)
        found = []
        for how in ways:
            made = emit(
                how,
                candidate.shares,
                candidate.totals,
                theta,
                codes,
                np.random.default_rng(emit_seed),
                lengths=lengths,
                typical=typical,
            )
            value = score(made, codes, unseen, truth)
            found.append(replace(candidate, emission=how, score=value))
        return found

    emissions = _emissions(emission, len(codes) / len(source.labels))
    plain = matching == "none" or n_steps == 0
    beginnings = _beginnings(init, pool_weight)
    if emission == "nb" or (plain and len(emissions) == 1):
        beginnings = beginnings[:1]  # noisy cells have no use for the noise of pools
    families = [
        _Family(kind, weight, *begin)
        for kind, weight in beginnings
        for begin in [
            initial_codes(module, one_step, part, codes, conditions, kind, rng, generator)
        ]
    ]
    if plain and len(emissions) == 1:
        return replace(generated(families[0], families[0].start, False), emission=emissions[0])
    entrants = []
    for family in families:
        entrants += judged(generated(family, family.start, False), emissions)
    entrants.sort(key=_score, reverse=True)
    optimised: list[Candidate] = []
    for family in families if not plain else []:
        moved, _ = optimise_codes(
            module,
            one_step,
            part,
            family.start,
            codes,
            conditions,
            matching=matching,
            match_space=match_space,
            n_steps=n_steps,
            lr=lr,
            rng=rng,
            generator=generator,
        )
        finalists = [one.emission for one in entrants if one.init == family.init][:_FINALISTS]
        optimised += judged(generated(family, moved, True), tuple(finalists))
    entrants = optimised if accept == "always" and not plain else entrants + optimised
    # of equal scores the first: what is simpler
    best = max(entrants, key=_score)
    names = {
        f"{'moved' if one.optimised else 'start'}, {one.init}: {one.emission}": _score(one)
        for one in entrants
    }
    return replace(best, scores=names)


def _beginnings(init: str, pool_weight: float | str) -> list[tuple[str, float]]:
    """Which beginnings to compare, with the weight of the pools in the profiles."""
    if init == "auto":
        weights = (0.0, AUTO_POOL) if pool_weight == "auto" else (pool_weight, pool_weight)
        return list(zip(("kmeans", "pools"), map(float, weights), strict=True))
    return [(init, 0.0 if pool_weight == "auto" else float(pool_weight))]


def _score(candidate: Candidate) -> float:
    assert candidate.score is not None
    return candidate.score


def _emissions(name: str, per_class: float) -> tuple[Emission, ...]:
    several = EMISSIONS_OF_MORE if per_class >= _SOME_CELLS else EMISSIONS_OF_FEW
    if name == "auto":
        return several + ((Emission("half"),) if per_class >= _MANY_CELLS else ())
    if name == "mixed":
        return tuple(one for one in EMISSIONS_OF_MORE if one.name == name)
    if name in ("typical", "level"):
        return tuple(one for one in several if one.name == name)
    return (Emission(name),)
