"""How many cells each class gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sczoo.errors import InputError, TooFewCellsError
from sczoo.model.scdd._arguments import real_number, whole_number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ClassShares", "class_budget", "class_codes"]

ClassShares = Literal["balanced", "proportional", "sqrt"]


def class_codes(labels: pd.Series, where: str) -> tuple[np.ndarray, list]:
    """Give each class that occurs a number; return codes and categories.

    Raises
    ------
    InputError
        There are fewer than two classes.
    """
    values = labels.astype("category").cat.remove_unused_categories()
    categories = list(values.cat.categories)
    if len(categories) < 2:
        raise InputError(
            f"{where} holds {len(categories)} class(es): a training set needs at least two. "
            "Choose the column with the labels that a classifier is to learn."
        )
    return values.cat.codes.to_numpy().astype(np.int64), categories


def class_budget(
    sizes: np.ndarray,
    n_cells_per_class: int | None,
    fraction: float | None = None,
    class_shares: ClassShares = "balanced",
) -> np.ndarray:
    """Share a number of cells out among the classes.

    Parameters
    ----------
    sizes
        Cells of each class.
    n_cells_per_class
        Average number of cells of a class; the budget is this times the number of classes.
    fraction
        The budget as a share of all cells, instead.
    class_shares
        ``"balanced"``: the same number for each class. ``"proportional"`` and ``"sqrt"``: in
        proportion to the size of the class or its square root; every class gets at least one.

    Returns
    -------
    Cells for each class, ``(n_classes,)``, at least 1 where the class has cells.
    """
    if class_shares not in get_args(ClassShares):
        raise InputError(
            f"class_shares={class_shares!r} is not known; choose one of {get_args(ClassShares)}."
        )
    if (n_cells_per_class is None) == (fraction is None):
        raise InputError("Say how many cells: either n_cells_per_class or fraction, not both.")
    present = sizes > 0
    n_cells = int(sizes.sum())
    if fraction is not None:
        fraction = real_number("fraction", fraction, 0, 1, above=True, below=True)
        total = max(round(fraction * n_cells), int(present.sum()))
    else:
        total = whole_number("n_cells_per_class", n_cells_per_class) * int(present.sum())
    if total >= n_cells:
        raise TooFewCellsError(
            f"{total} cells are asked for, but there are {n_cells}: a distilled set must be "
            "smaller than its source. Ask for fewer cells per class, or use the data themselves."
        )
    weights = {
        "balanced": present.astype(float),
        "proportional": sizes.astype(float),
        "sqrt": np.sqrt(sizes),
    }[class_shares]
    exact = weights / weights.sum() * total
    budget = np.maximum(np.floor(exact).astype(np.int64), present.astype(np.int64))
    order = np.argsort(budget - exact, kind="stable")
    for position in order[: max(0, total - int(budget.sum()))]:
        budget[position] += present[position]
    return budget
