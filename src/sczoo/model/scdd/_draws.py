"""Batches and metadata of synthetic cells, and that none of them is a copy of a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo.errors import InputError, MissingKeyError
from sczoo.model.scdd._membership import exact_copies
from sczoo.model.scdd._selection import MIN_POOL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["allot", "check_columns", "draw_columns", "draw_copies_again"]

_ATTEMPTS = 20


def allot(shares: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give cells categories in proportion to their class's shares, in random order.

    As near to the shares as whole cells can be; which cell gets which is drawn.

    Parameters
    ----------
    shares
        Share of each category in each class, ``(n_classes, n_categories)``.
    codes
        Class of each cell.
    rng
        Source of draws.
    """
    found = np.zeros(len(codes), dtype=np.int64)
    for code in np.unique(codes):
        ours = np.flatnonzero(codes == code)
        share = shares[code] + 1e-12
        exact = share / share.sum() * len(ours)
        given = np.floor(exact).astype(np.int64)
        rest = np.maximum(exact - given, 0.0)
        missing = len(ours) - int(given.sum())
        if missing > 0:
            # systematic sampling of the fractional parts keeps the expected shares
            edges = np.cumsum(rest)
            picks = (np.arange(missing) + rng.random()) / missing * edges[-1]
            places = np.minimum(np.searchsorted(edges, picks), len(given) - 1)
            np.add.at(given, places, 1)
        found[ours] = rng.permutation(np.repeat(np.arange(len(given)), given))
    return found


def check_columns(obs: pd.DataFrame, keys: Sequence[str] | str, taken: Sequence[str]) -> list[str]:
    """Return the names of the columns if they can be drawn without pointing at single cells.

    Parameters
    ----------
    obs
        Table of the training cells.
    keys
        A column, or several.
    taken
        Columns that every distilled set has.

    Raises
    ------
    MissingKeyError
        There is no such column.
    InputError
        The name is taken, or the values are measurements or names of single cells.
    """
    names = [keys] if isinstance(keys, str) else list(keys)
    for name in names:
        if name not in obs:
            raise MissingKeyError(
                f"adata.obs has no column {name!r}; metadata_keys are columns of adata.obs."
            )
        if name in taken:
            raise InputError(
                f"metadata_keys: a distilled set has a column {name!r} of its own; rename yours."
            )
        n_values = obs[name].nunique()
        if n_values > max(1, len(obs) // MIN_POOL):
            raise InputError(
                f"adata.obs[{name!r}] has {n_values} values for {len(obs)} cells: a value drawn "
                "from it would point at single cells. Put its values into a few groups first, as "
                "with pandas.cut, or leave it out of metadata_keys."
            )
    return names


def draw_columns(
    obs: pd.DataFrame,
    real_codes: np.ndarray,
    codes: np.ndarray,
    keys: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, pd.Categorical]:
    """Draw each column by its frequencies in the class; columns are drawn independently.

    A missing value is drawn as often as any other.
    """
    drawn = {}
    for key in keys:
        values = obs[key].astype("category").cat.remove_unused_categories()
        n_values = len(values.cat.categories)
        places = values.cat.codes.to_numpy().astype(np.int64)
        table = np.zeros((int(real_codes.max()) + 1, n_values + 1))
        np.add.at(table, (real_codes, np.where(places < 0, n_values, places)), 1.0)
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1.0)
        found = allot(table, codes, rng)
        drawn[key] = pd.Categorical.from_codes(
            np.where(found == n_values, -1, found), categories=values.cat.categories
        )
    return drawn


def draw_copies_again(counts: np.ndarray, source: Any) -> np.ndarray:
    """Change cells that are verbatim copies of a source cell: one count of one gene is moved.

    A copy of a shallow cell can arise by chance. The count moves from the gene with the most to
    the next gene without any, so that depth and class stay.
    """
    if source is None:
        return counts
    counts = counts.copy()
    for attempt in range(_ATTEMPTS):
        copied = np.flatnonzero(exact_copies(counts, source))
        if not len(copied):
            break
        for row in copied:
            silent = np.flatnonzero(counts[row] == 0)
            largest = int(np.argmax(counts[row]))
            target = (
                int(silent[attempt % len(silent)])
                if len(silent)
                else (largest + 1) % len(counts[row])
            )
            if counts[row, largest] > 1:
                counts[row, largest] -= 1
            counts[row, target] += 1
    return counts
