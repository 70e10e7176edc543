"""Membership attacks: who was in the training data, cell by cell and donor by donor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo import _compat
from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

__all__ = ["Membership", "advantage_bound", "cell_scores", "donor_scores", "membership"]

_FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class Membership:
    """How well an attack tells members from others.

    Parameters
    ----------
    auc
        Probability that a member scores higher than another; 0.5 is chance.
    auc_ci95
        Bootstrap interval.
    tpr_at_1_fpr
        Share of members found when one in a hundred of the others is accused.
    tpr_ci95
        Bootstrap interval.
    n_members, n_others
        Numbers of units.
    """

    auc: float
    auc_ci95: tuple[float, float]
    tpr_at_1_fpr: float
    tpr_ci95: tuple[float, float]
    n_members: int
    n_others: int


def membership(
    members: Any,
    others: Any,
    *,
    n_bootstrap: int = 500,
    seed: int = 0,
    groups: tuple[Any, Any] | None = None,
) -> Membership:
    """Measure an attack by its scores.

    Parameters
    ----------
    members, others
        Score of each unit; higher means that it looks like a member.
    n_bootstrap
        Resamples for the intervals.
    seed
        Of the resampling.
    groups
        Group of each unit, such as the donor of a cell, of members and of others: the resampling
        then draws whole groups. Units of one group are alike, and intervals that take them for
        independent are too narrow.
    """
    inside, outside = np.asarray(members, dtype=float), np.asarray(others, dtype=float)
    if inside.ndim != 1 or outside.ndim != 1 or min(len(inside), len(outside)) < 2:
        raise InputError("At least two members and two others are needed.")
    if not (np.isfinite(inside).all() and np.isfinite(outside).all()):
        raise InputError("The attack's scores hold values that are not finite.")
    rng = np.random.default_rng(seed)
    draw_inside, draw_outside = (
        _resampling(len(values), None if groups is None else groups[side])
        for side, values in enumerate((inside, outside))
    )
    draws = np.array(
        [
            _measures(inside[draw_inside(rng)], outside[draw_outside(rng)])
            for _ in range(n_bootstrap)
        ]
    )
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    auc, tpr = _measures(inside, outside)
    return Membership(
        auc,
        (min(float(low[0]), auc), max(float(high[0]), auc)),
        tpr,
        (min(float(low[1]), tpr), max(float(high[1]), tpr)),
        len(inside),
        len(outside),
    )


def _resampling(n: int, groups: Any) -> Callable[[np.random.Generator], np.ndarray]:
    """Return a function that draws rows with replacement, whole groups if there are any."""
    if groups is None:
        return lambda rng: rng.integers(n, size=n)
    _, codes = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(codes) != n:
        raise InputError(f"groups names {len(codes)} units, but there are {n} scores.")
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return lambda rng: np.concatenate([rows[g] for g in rng.integers(len(rows), size=len(rows))])


def _measures(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float]:
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    upto = np.searchsorted(ordered, inside, side="right")
    auc = float((below + upto).mean() / (2 * len(ordered)))
    # accuse those above the (1 - 1 %) quantile of the others
    allowed = math.floor(_FALSE_POSITIVES * len(ordered))
    threshold = ordered[-1 - allowed]
    return auc, float((inside > threshold).mean())


def advantage_bound(epsilon: float, delta: float) -> float:
    """Return the largest AUC that any attack can have against (epsilon, delta)."""
    # the best attack's curve is three straight lines: through (0, delta), the corner on the
    # falling diagonal, (1 - delta, 1) and (1, 1)
    corner = (1.0 - delta) / (1.0 + math.exp(min(epsilon, 500.0)))
    fpr = np.array([0.0, corner, 1.0 - delta, 1.0])
    tpr = np.array([delta, 1.0 - corner, 1.0, 1.0])
    return float(np.trapezoid(tpr, fpr))


def cell_scores(model: Any, adata: AnnData, batch_size: int = 512) -> np.ndarray:
    """Score cells by how well a model knows them: minus the loss of each.

    Works with any scvi-tools model: the reconstruction loss of its module, per cell. A model with
    another idea of loss passes a function instead (see :func:`sczoo.privacy.audit`).

    Parameters
    ----------
    model
        A trained model of scvi-tools or of the zoo.
    adata
        Cells.
    batch_size
        Cells at a time.

    Returns
    -------
    Shape ``(cells,)``; higher means better known.
    """
    import torch

    if callable(model):
        return np.asarray(model(adata), dtype=float)
    module = getattr(model, "module", None)
    if module is None:
        raise InputError(
            f"A {type(model).__name__} is neither a model of scvi-tools nor a function that "
            "scores cells. Pass score=function(adata) instead."
        )
    was_training = module.training
    module.eval()
    parts = []
    try:
        with torch.inference_mode():
            for batch in _batches(model, adata, batch_size):
                inference = module.inference(**module._get_inference_input(batch))
                generative = module.generative(**module._get_generative_input(batch, inference))
                found = module.loss(batch, inference, generative).reconstruction_loss
                values = next(iter(found.values())) if isinstance(found, dict) else found
                values = values.reshape(len(values), -1).sum(1)
                parts.append(-values.double().cpu().numpy())
    finally:
        module.train(was_training)
    return np.concatenate(parts)


def _batches(model: Any, adata: AnnData, batch_size: int) -> Any:
    from sczoo.base import ZooModelClass

    if isinstance(model, ZooModelClass):
        return model._iter_batches(adata, None, batch_size)
    return _compat.data_loader(model, adata, batch_size)


def donor_scores(scores: Any, donors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Average the scores of the cells of each donor.

    Returns
    -------
    One score per donor, and the donors' names, sorted.
    """
    names, codes = np.unique(np.asarray(donors).astype(str), return_inverse=True)
    values = np.asarray(scores, dtype=float)
    return np.bincount(codes, values) / np.bincount(codes), names
