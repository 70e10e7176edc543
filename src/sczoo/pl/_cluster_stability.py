"""Which clusters come back in other runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import InputError
from sczoo.pl._colours import BLUE
from sczoo.pl._figure import QUIET, finish, look, single_axes

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from matplotlib.axes import Axes


def cluster_stability(
    table: pd.DataFrame,
    *,
    threshold: float | None = 0.6,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes:
    """Draw how well each cluster was found again, and how many cells it has.

    Parameters
    ----------
    table
        What ``model.stability(...)`` returned: columns ``n_cells``, ``overlap``, ``recurs``.
    threshold
        Overlap from which clusters count as the same, drawn as a line; ``None`` for none.
    ax
        Axes to draw into.
    show
        Call ``matplotlib.pyplot.show()``. By default nothing is shown.
    save
        Path of a picture to write.

    Returns
    -------
    The Axes.
    """
    missing = {"n_cells", "overlap", "recurs"} - set(getattr(table, "columns", ()))
    if missing:
        raise InputError(
            f"The table has no column {sorted(missing)[0]!r}: pass what model.stability(...) gave."
        )
    ordered = table.sort_values("overlap")
    with look():
        axes = single_axes(ax, 4.2, 0.8 + 0.27 * len(ordered))
        colours = [BLUE if recurs else QUIET for recurs in ordered["recurs"]]
        places = np.arange(len(ordered))
        axes.barh(places, ordered["overlap"].fillna(0.0), color=colours, height=0.7)
        names = [f"{name} ({size} cells)" for name, size in ordered["n_cells"].items()]
        axes.set_yticks(places, names)
        axes.set_xlim(0, 1)
        axes.set_xlabel("overlap with the nearest cluster of another run (Jaccard)")
        if threshold is not None:
            axes.axvline(threshold, color=QUIET, linewidth=1, linestyle=":")
    return finish(axes, show, save)
