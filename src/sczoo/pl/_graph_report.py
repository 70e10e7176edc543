"""The learned graph of cells beside the nearest neighbours that it started from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError
from sczoo.pl._colours import BLUE, VERMILLION
from sczoo.pl._figure import QUIET, finish, look, panel_grid, single_axes

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes

_COLOURS = {"learned": BLUE, "nearest neighbours": VERMILLION}


def graph_report(
    model: Any,
    labels_key: str | None = None,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw what a model's graph report says: degrees, evenness, homophily and change.

    Parameters
    ----------
    model
        A trained model with ``get_graph_report``, or such a report.
    labels_key
        Column of ``obs`` with known cell types, for the homophily; only with a model.
    ax
        Axes to draw into; the panels share its space.
    show
        Call ``matplotlib.pyplot.show()``. By default nothing is shown.
    save
        Path of a picture to write.

    Returns
    -------
    Array of Axes: degrees, scores, change.
    """
    report = _report(model, labels_key)
    with look():
        panels = panel_grid(3, ax, 3.2, 2.6, 3)
        _degrees(panels[0], report)
        _scores(panels[1], report)
        _change(panels[2], report)
    return finish(panels, show, save)


def degree_distribution(
    model: Any,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes:
    """Draw how many edges the cells have, in the learned graph and in the one it started from.

    Parameters
    ----------
    model
        A trained model with ``get_graph_report``, or such a report.
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
    report = _report(model, None)
    with look():
        axes = single_axes(ax, 3.6, 2.8)
        _degrees(axes, report)
    return finish(axes, show, save)


def _report(model: Any, labels_key: str | None) -> Any:
    if hasattr(model, "get_graph_report"):
        return model.get_graph_report(labels_key)
    if not hasattr(model, "degrees") or not hasattr(model, "table"):
        raise InputError(
            f"{type(model).__name__} has no graph: pass a model with get_graph_report, or what "
            "that returned."
        )
    return model


def _degrees(ax: Axes, report: Any) -> None:
    """Outlines of the two distributions, over the same bins."""
    largest = max(int(degree.max()) for degree in report.degrees.values())
    bins = np.linspace(-0.5, largest + 0.5, min(largest + 2, 60)).tolist()
    for name, degree in report.degrees.items():
        gini = report.table.loc[name, "degree_gini"]
        ax.hist(
            degree,
            bins=bins,
            histtype="stepfilled",
            alpha=0.55,
            color=_COLOURS.get(name, QUIET),
            label=f"{name} (Gini {gini:.2f})",
        )
    ax.set_xlabel("edges of a cell")
    ax.set_ylabel("cells")
    ax.legend(loc="upper right", fontsize=7.5, handlelength=1.2)


def _scores(ax: Axes, report: Any) -> None:
    """Dots for each score, so that both graphs can be compared along a line."""
    wanted = [c for c in ("degree_gini", "homophily") if c in report.table]
    for row, column in enumerate(wanted):
        for name, value in report.table[column].items():
            ax.plot(value, row, "o", color=_COLOURS.get(name, QUIET), markersize=7)
    if "homophily" in wanted:
        chance = float(report.table["homophily_chance"].iloc[0])
        ax.plot(chance, wanted.index("homophily"), "|", color=QUIET, markersize=14)
        ax.annotate(
            "chance",
            (chance, wanted.index("homophily")),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=QUIET,
        )
    ax.set_yticks(range(len(wanted)), [name.replace("_", " ") for name in wanted])
    ax.set_ylim(-0.6, len(wanted) - 0.4)
    ax.set_xlim(-0.02, 1.02)


def _change(ax: Axes, report: Any) -> None:
    """Share of edges kept and of labels changed, by epoch."""
    epochs = np.arange(1, len(report.jaccard) + 1)
    ax.plot(epochs, report.jaccard, color=BLUE, label="edges kept (Jaccard)")
    if len(report.label_changes):
        last = epochs[-len(report.label_changes) :]
        ax.plot(last, report.label_changes, color=VERMILLION, label="labels changed")
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("epoch")
    ax.legend(loc="best")
