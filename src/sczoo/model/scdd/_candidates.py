"""Choosing codes and emission by what classifiers learn from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.model.scdd._classifiers import CLASSIFIERS, fit_predict
from sczoo.model.scdd._emission import (
    EMISSIONS_OF_FEW,
    EMISSIONS_OF_MORE,
    Emission,
    emit,
    expected_log,
)
from sczoo.model.scdd._making import Candidate, Maker

if TYPE_CHECKING:
    import torch

    from sczoo.model.scdd._codes import Source
    from sczoo.model.scdd._flow_map import OneStep
    from sczoo.model.scdd._module import SCDDModule

__all__ = ["AUTO_POOL", "choose_candidate", "judges", "score"]

_MOST_JUDGES = 80
_MANY_CELLS, _SOME_CELLS = 20, 5
_FINALISTS = 2
# halfway between the generator's profiles, which differ too little among the cells of a class,
# and the pools', which differ too much
AUTO_POOL = 0.5


def judges(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the training cells that candidates are judged by, at most 80 of each class.

    They are among the cells that candidates are made of: a few cells of each class cannot hold
    thousands, while putting cells aside costs the pools more than the choice gains.
    """
    found = [
        rng.permutation(np.flatnonzero(codes == code))[:_MOST_JUDGES] for code in np.unique(codes)
    ]
    return np.sort(np.concatenate(found))


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
    judge = judges(source.codes, rng)
    emit_seed = int(rng.integers(2**31))
    theta = module.log_theta.detach().exp().cpu().numpy()
    seen, truth = source.counts[judge], source.codes[judge]

    maker = Maker(
        module,
        one_step,
        source,
        codes,
        conditions,
        totals,
        group_depth=group_depth,
        calibrate=calibrate,
        matching=matching,
        match_space=match_space,
        n_steps=n_steps,
        lr=lr,
        emit_seed=emit_seed,
        rng=rng,
        generator=generator,
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
                lengths=candidate.lengths,
                typical=typical,
                genes=candidate.genes,
            )
            value = score(made, codes, seen, truth)
            found.append(replace(candidate, emission=how, score=value))
        return found

    per_class = len(codes) / len(source.labels)
    emissions = _emissions(emission, per_class)
    plain = matching == "none" or n_steps == 0
    ways = _beginnings(init, pool_weight, per_class)
    if emission == "nb":
        ways = ways[:1]  # noisy cells have no use for the noise of pools
    if plain and len(emissions) == 1:
        return replace(maker.show(maker.begin(*ways[0])), emission=emissions[0])
    beginnings = [maker.begin(*way) for way in ways]
    entrants: list[Candidate] = []
    optimised: list[Candidate] = []
    for beginning in beginnings:
        found = sorted(judged(maker.show(beginning), emissions), key=_score, reverse=True)
        entrants += found
        if not plain:
            finalists = tuple(one.emission for one in found[:_FINALISTS])
            optimised += judged(maker.show(beginning, maker.move(beginning)), finalists)
    entrants = optimised if accept == "always" and not plain else entrants + optimised
    # of equal scores the first: what is simpler
    best = max(entrants, key=_score)
    names = {
        f"{'moved' if one.optimised else 'start'}, {one.init}: {one.emission}": _score(one)
        for one in entrants
    }
    return replace(best, scores=names)


def _beginnings(init: str, pool_weight: float | str, per_class: float) -> list[tuple[str, float]]:
    """Which beginnings to compare, with the weight of the pools in the profiles."""
    if init == "auto" and per_class >= _SOME_CELLS:
        init, pool_weight = "pools", AUTO_POOL if pool_weight == "auto" else pool_weight
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
    # a way that is not among those for so many cells is taken as it is for others
    for ways in (several, EMISSIONS_OF_FEW + EMISSIONS_OF_MORE):
        if named := tuple(one for one in ways if one.name == name):
            return named
    return (Emission(name),)
