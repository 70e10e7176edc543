"""What all plots share: their look, a grid of panels, showing and saving."""

from __future__ import annotations

from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

INK = "#262626"
QUIET = "#8a8a8a"
RULE = "#d9d9d9"

_LOOK: Any = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "font.size": 9.0,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
}
# text stays text in vector files
_FILE: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}


@contextmanager
def look() -> Iterator[None]:
    """Set the look of what is drawn inside, and nothing outside."""
    import matplotlib as mpl

    with mpl.rc_context(_LOOK):
        yield


def single_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the given Axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def panel_grid(
    n_panels: int, ax: Axes | None, width: float, height: float, n_columns: int
) -> list[Axes]:
    """Return one Axes per panel: in a new figure, or inside the given Axes."""
    n_columns = max(1, min(n_columns, n_panels))
    n_rows = -(-n_panels // n_columns)
    if ax is not None:
        if n_panels == 1:
            return [ax]
        ax.set_axis_off()
        wide, high = 1 / n_columns, 1 / n_rows
        return [
            ax.inset_axes(
                (
                    (panel % n_columns) * wide,
                    1 - (panel // n_columns + 1) * high,
                    wide * 0.92,
                    high * 0.86,
                )
            )
            for panel in range(n_panels)
        ]
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = plt.figure(
        figsize=(width * n_columns, height * n_rows),
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
    )
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    panels = grid.ravel().tolist()
    for spare in panels[n_panels:]:
        spare.remove()
    return panels[:n_panels]


def finish(axes: Axes | list[Axes], show: bool | None, save: str | PathLike[str] | None) -> Any:
    """Save and show where asked; return one Axes, or an array of them."""
    import matplotlib as mpl

    first = axes[0] if isinstance(axes, list) else axes
    figure: Any = first.figure.figure  # of a subfigure, the whole
    if save is not None:
        if not isinstance(save, str | PathLike):
            raise InputError(f"save={save!r}: give the path of the picture, such as 'topics.pdf'.")
        with mpl.rc_context(_FILE):
            figure.savefig(save, dpi=200, bbox_inches="tight")
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    if isinstance(axes, list):
        return np.array(axes, dtype=object)
    return axes
