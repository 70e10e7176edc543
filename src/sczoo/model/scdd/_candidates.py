"""Choosing codes and emission by what classifiers learn from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.model.scdd._classifiers import CLASSIFIERS, fit_predict
from sczoo.model.scdd._codes import Source, initial_codes, optimise_codes
from sczoo.model.scdd._emission import EMISSIONS, Emission, emit

if TYPE_CHECKING:
    from sczoo.model.scdd._flow_map import OneStep
    from sczoo.model.scdd._module import SCDDModule

__all__ = ["Candidate", "choose_candidate", "class_correction", "put_aside", "score"]

# Smaller classes are too precious to put cells aside.
_SMALLEST_SPLIT = 40
_ASIDE, _MOST_ASIDE = 0.25, 80
_MANY_CELLS = 20
_FINALISTS = 3
_BLOCK = 1024


@dataclass(frozen=True)
class Candidate:
    """Codes, the standardised latents and shares of genes they give, and the emission."""

    codes: torch.Tensor
    latents: torch.Tensor
    shares: np.ndarray
    emission: Emission
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


def choose_candidate(
    module: SCDDModule,
    one_step: OneStep,
    source: Source,
    counts: Any,
    *,
    codes: np.ndarray,
    conditions: torch.Tensor,
    totals: np.ndarray,
    emission: str,
    matching: str,
    match_space: Any,
    init: Any,
    accept: str,
    n_steps: int,
    lr: float,
    calibrate: bool,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Candidate:
    """Make codes, move them, and keep what serves classifiers best.

    Emissions are compared on the codes at the start; the best three then on the moved codes.
    The moved codes are kept only if they score higher, unless ``accept="always"``.
    """
    learn, judge = put_aside(source.codes, rng)
    part = replace(
        source,
        latents=source.latents[learn],
        codes=source.codes[learn],
        batch=source.batch[learn],
        log_values=source.log_values[learn],
    )
    batch = conditions[:, 1] if module.n_batch else None
    theta = module.log_theta.detach().exp().cpu().numpy()
    emit_seed = int(rng.integers(2**31))

    correction = class_correction(module, part, counts[learn]) if calibrate else None

    def judged(candidate: Candidate) -> Candidate:
        noise = np.random.default_rng(emit_seed)
        made = emit(candidate.emission, candidate.shares, totals, theta, codes, noise)
        return replace(candidate, score=score(made, codes, counts[judge], source.codes[judge]))

    @torch.no_grad()
    def generated(start: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        latents = one_step(start, conditions)
        shares = module.decode_standard(latents, batch).exp().cpu().numpy().astype(np.float64)
        if correction is not None:
            shares *= correction[codes]
            shares /= shares.sum(axis=1, keepdims=True)
        return latents, shares

    start = initial_codes(module, one_step, part, codes, conditions, init, rng, generator)
    latents, shares = generated(start)
    emissions = _emissions(emission, len(codes) / len(source.labels))
    plain = matching == "none" or n_steps == 0
    if plain and len(emissions) == 1:
        return Candidate(start, latents, shares, emissions[0])
    entrants = [judged(Candidate(start, latents, shares, how)) for how in emissions]
    entrants.sort(key=_score, reverse=True)
    if not plain:
        moved, _ = optimise_codes(
            module,
            one_step,
            part,
            start,
            codes,
            conditions,
            matching=matching,
            match_space=match_space,
            n_steps=n_steps,
            lr=lr,
            rng=rng,
            generator=generator,
        )
        latents, shares = generated(moved)
        optimised = [
            judged(Candidate(moved, latents, shares, entrant.emission, optimised=True))
            for entrant in entrants[:_FINALISTS]
        ]
        entrants = optimised if accept == "always" else entrants + optimised
    # of equal scores the first: what is simpler
    best = max(entrants, key=_score)
    names = {
        f"{'moved' if one.optimised else 'start'}: {one.emission}": _score(one) for one in entrants
    }
    return replace(best, scores=names)


def _score(candidate: Candidate) -> float:
    assert candidate.score is not None
    return candidate.score


def _emissions(name: str, per_class: float) -> tuple[Emission, ...]:
    if name == "auto":
        return EMISSIONS + ((Emission("half"),) if per_class >= _MANY_CELLS else ())
    if name == "typical":
        return tuple(one for one in EMISSIONS if one.name == "typical")
    return (Emission(name),)
