"""What attacks found, beside chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sczoo.errors import InputError
from sczoo.pl._colours import BLUE, VERMILLION
from sczoo.pl._figure import INK, QUIET, finish, look, single_axes

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes

__all__ = ["audit"]

_COLOURS = {"model": BLUE, "synthetic": BLUE, "twin": VERMILLION}
_NAMES = {"model": "the model", "synthetic": "synthetic cells", "twin": "its non-private twin"}


def audit(
    report: Any,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw how well membership attacks do: AUC with its bootstrap interval, and chance.

    Parameters
    ----------
    report
        Of :func:`sczoo.privacy.audit`.
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
    attacks = getattr(report, "attacks", None)
    if not attacks:
        raise InputError("pl.audit draws a report of sczoo.privacy.audit; this is none.")
    with look():
        axes = single_axes(ax, 4.6, 0.9 + 0.45 * len(attacks))
        labels = []
        for row, ((subject, level), found) in enumerate(attacks.items()):
            low, high = found.auc_ci95
            colour = _COLOURS.get(subject, BLUE)
            axes.plot([low, high], [row, row], color=colour, linewidth=2.0)
            axes.plot(found.auc, row, "o", color=colour, markersize=6)
            labels.append(f"{level}s: {_NAMES.get(subject, subject)}")
        axes.axvline(0.5, color=QUIET, linestyle="--", linewidth=1.0)
        axes.annotate(
            "chance", (0.5, -0.6), color=QUIET, ha="center", va="bottom", annotation_clip=False
        )
        if report.auc_bound is not None and report.auc_bound < 1:
            axes.axvline(report.auc_bound, color=INK, linestyle=":", linewidth=1.0)
            axes.annotate(
                "most that the claim allows",
                (report.auc_bound, -0.6),
                ha="right",
                va="bottom",
                annotation_clip=False,
            )
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.7)
        axes.set_xlim(min(0.4, axes.get_xlim()[0]), 1.02)
        axes.set_xlabel("AUC of the membership attack")
    return finish(axes, show, save)
