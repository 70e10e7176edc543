"""What a scorer is: anything that gives each cell a score for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from sczoo.errors import InputError, NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["Scorer", "Scores", "check_classes", "check_scores", "is_probability"]

_ROW_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Scores:
    """Scores of cells.

    Attributes
    ----------
    values
        ``(n_cells, n_classes)``, float32, finite; a larger score is a better fit.
    classes
        Names of the classes.
    probability
        Whether each cell's scores are probabilities.
    notes
        What a reader of the labels should know, in words.
    """

    values: np.ndarray
    classes: tuple[str, ...]
    probability: bool
    notes: tuple[str, ...] = ()


@runtime_checkable
class Scorer(Protocol):
    """Gives each cell a score for each class; see :mod:`sczoo.model.grit.scorers`.

    Attributes
    ----------
    name
        A lower-case word.
    """

    name: str

    def score(self, adata: AnnData, *, layer: str | None = None) -> Scores:
        """Score the cells of `adata`, in their order."""
        ...


def check_classes(classes: Sequence[object], where: str) -> tuple[str, ...]:
    """Require at least two different names of classes."""
    names = tuple(str(name) for name in classes)
    if len(names) < 2:
        raise InputError(
            f"{where} names {len(names)} class(es); with fewer than two there is nothing to "
            "decide. Give the scores of all candidate types."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{where} names the class {twice[0]!r} twice. Class names are unique.")
    return names


def check_scores(values: object, n_cells: int, where: str) -> np.ndarray:
    """Require one finite row of numbers per cell; return float32."""
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} holds values that are not numbers: {error}") from error
    if array.ndim != 2 or len(array) != n_cells:
        raise InputError(
            f"{where} has shape {array.shape} for {n_cells} cells: it must have one row per cell "
            "and one column per class. Were the scores made for other cells?"
        )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = bad[0]
        raise NotFiniteError(
            f"{where} holds {array[row, column]} in row {row}, column {column}. Replace values "
            "that are not finite, or leave those cells out."
        )
    return array


def is_probability(values: np.ndarray) -> bool:
    """Whether rows are non-negative and sum to one."""
    return bool(
        values.size
        and values.min() >= -1e-6
        and np.abs(values.sum(axis=1) - 1.0).max() <= _ROW_SUM_TOLERANCE
    )
