"""How well a predicted perturbation agrees with an observed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import EmptyDataError, InputError, MissingKeyError, NotFiniteError
from sczoo.metrics._inputs import codes, embedding, same_length

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def perturbation_correlation(
    predicted_change: ArrayLike, observed_change: ArrayLike
) -> float | NDArray[np.float64]:
    """Pearson correlation over genes of a predicted and an observed mean change.

    Compute both within one cell type, and the observed one on cells that the model has not seen.

    Parameters
    ----------
    predicted_change, observed_change
        Mean change of each gene (for example of log-normalised expression), or a matrix with one
        row per cell type. Two pandas objects are matched by gene name.

    Returns
    -------
    Between -1 and 1; one value per row for matrices.

    Raises
    ------
    sczoo.errors.InputError
        The two are not about the same genes, or a change is constant over genes, so that its
        correlation is not defined.
    """
    predicted, observed = _aligned(predicted_change, observed_change)
    if predicted.shape != observed.shape or predicted.ndim not in (1, 2):
        raise InputError(
            f"predicted_change has shape {predicted.shape} and observed_change "
            f"{observed.shape}: both must be about the same genes."
        )
    if predicted.shape[-1] < 2:
        raise EmptyDataError("A correlation over genes needs at least two genes.")
    names = ("predicted_change", "observed_change")
    for name, change in zip(names, (predicted, observed), strict=True):
        if not np.isfinite(change).all():
            raise NotFiniteError(f"{name} holds NaN or infinity. Leave such genes out of both.")
        if (np.ptp(change, axis=-1) == 0).any():
            raise InputError(f"{name} is the same for all genes: its correlation is not defined.")
    centred = [change - change.mean(axis=-1, keepdims=True) for change in (predicted, observed)]
    unit = [change / np.linalg.norm(change, axis=-1, keepdims=True) for change in centred]
    correlation = (unit[0] * unit[1]).sum(axis=-1)
    return float(correlation) if correlation.ndim == 0 else correlation


def nearest_condition_fraction(
    cells: ArrayLike,
    reference: ArrayLike,
    conditions: ArrayLike,
    target: Any,
    *,
    n_neighbors: int = 1,
) -> float:
    """Return the fraction of cells whose nearest reference cells are in a condition.

    Parameters
    ----------
    cells
        The perturbed cells, cells x dimensions.
    reference
        Observed cells of all conditions, in the same dimensions.
    conditions
        Condition of each reference cell.
    target
        The condition that the perturbation aims at.
    n_neighbors
        With more than one, more than half of them must be in the target condition.

    Returns
    -------
    Between 0 and 1.
    """
    from sczoo.graph import knn

    known = embedding(reference, "reference")
    code, kinds = codes(conditions, "conditions")
    same_length(len(known), len(code), ("reference", "conditions"))
    hits = np.flatnonzero(kinds == target)
    if len(hits) == 0:
        raise MissingKeyError(
            f"No reference cell is in condition {target!r}. There are: "
            f"{', '.join(map(str, kinds))}."
        )
    near = knn(known, n_neighbors, query=embedding(cells, "cells")).indices
    return float(((code[near] == hits[0]).mean(axis=1) > 0.5).mean())


def _aligned(
    predicted: ArrayLike, observed: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import pandas as pd

    tables = pd.Series | pd.DataFrame
    if isinstance(predicted, tables) and isinstance(observed, tables):
        what = ("genes",) if predicted.ndim == 1 else ("rows", "genes")
        for name, one, other in zip(what, predicted.axes, observed.axes, strict=False):
            if not (one.is_unique and other.is_unique):
                raise InputError(f"The {name} of a change are not unique: rename them.")
            if set(one) != set(other):
                raise InputError(
                    f"predicted_change and observed_change have different {name}: take those "
                    "that both have."
                )
        if predicted.ndim == observed.ndim:
            observed = observed.loc[tuple(predicted.axes)]
    return np.asarray(predicted, dtype=np.float64), np.asarray(observed, dtype=np.float64)
