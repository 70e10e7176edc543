"""Labels before and after a refinement: where they flow, how sure they are, where they err."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo.errors import InputError, MissingKeyError
from sczoo.pl._colours import palette
from sczoo.pl._figure import INK, QUIET, finish, look, panel_grid, single_axes

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes

_GAP = 0.012
_BAR = 0.035
# Thinner ribbons would be lines that nobody can follow.
_THINNEST = 0.002


def label_flow(
    adata: AnnData,
    key: str = "grit",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes:
    """Draw how many cells of each label before went to each label after.

    Parameters
    ----------
    adata
        Cells with ``obs[<key>_raw_label]`` and ``obs[<key>_label]``, as
        :meth:`sczoo.model.GRIT.annotate` writes them.
    key
        Prefix of the columns.
    ax
        Where to draw.
    show, save
        Show, or write to a file.
    """
    before, after = _labels(adata, key)
    counts = pd.crosstab(before, after)
    # the same order on both sides, large labels first
    total = counts.sum(axis=1).add(counts.sum(axis=0), fill_value=0)
    order = list(total.sort_values(ascending=False, kind="stable").index)
    counts = counts.reindex(index=order, columns=order, fill_value=0)
    colours = dict(zip(order, palette(max(len(order), 1)), strict=False))
    with look():
        ax = single_axes(ax, 7.0, 0.9 + 0.42 * len(order))
        _draw_flow(ax, counts, colours)
        changed = float((before.to_numpy() != after.to_numpy()).mean())
        ax.set_title(f"{changed:.1%} of {adata.n_obs:,} labels changed", pad=20)
        return finish(ax, show, save)


def _draw_flow(ax: Axes, counts: pd.DataFrame, colours: dict[Any, str]) -> None:
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    values = counts.to_numpy(dtype=float)
    total = max(values.sum(), 1.0)
    share = (1 - _GAP * (len(counts) - 1)) / total
    sides = [values.sum(axis=1) * share, values.sum(axis=0) * share]
    tops = [1 - np.concatenate([[0], np.cumsum(side + _GAP)[:-1]]) for side in sides]
    places = (0.0, 1.0 - _BAR)
    for side, (sizes, top, left) in enumerate(zip(sides, tops, places, strict=True)):
        for name, size, start in zip(counts.index, sizes, top, strict=True):
            if size <= 0:
                continue
            ax.add_patch(Rectangle((left, start - size), _BAR, size, color=colours[name], lw=0))
            n_cells = round(size / share)
            ax.annotate(
                f"{name}  {n_cells:,}" if side == 0 else f"{n_cells:,}  {name}",
                (left if side == 0 else left + _BAR, start - size / 2),
                xytext=(-4 if side == 0 else 4, 0),
                textcoords="offset points",
                ha="right" if side == 0 else "left",
                va="center",
                fontsize=8.5,
            )
    used = [tops[0].copy(), tops[1].copy()]
    middle = 0.5
    for row, name in enumerate(counts.index):
        for column in range(len(counts.columns)):
            size = values[row, column] * share
            if size <= 0:
                continue
            y0, y1 = used[0][row], used[1][column]
            used[0][row] -= size
            used[1][column] -= size
            if size < _THINNEST and row != column:
                size = _THINNEST
            x0, x1 = _BAR, 1.0 - _BAR
            path = Path(
                [
                    (x0, y0), (middle, y0), (middle, y1), (x1, y1),
                    (x1, y1 - size), (middle, y1 - size), (middle, y0 - size), (x0, y0 - size),
                    (x0, y0),
                ],
                [1, 4, 4, 4, 2, 4, 4, 4, 79],
            )  # fmt: skip
            strength = 0.22 if row == column else 0.6
            ax.add_patch(PathPatch(path, color=colours[name], alpha=strength, lw=0))
    ax.set(xlim=(0, 1), ylim=(min(top[-1] - s[-1] for top, s in zip(tops, sides, strict=True)), 1))
    ax.set_axis_off()
    for x, text in ((0.0, "before"), (1.0, "after")):
        ax.text(x, 1.015, text, ha="left" if x == 0 else "right", color=QUIET, fontsize=8.5)


def label_confidence(
    adata: AnnData,
    key: str = "grit",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes:
    """Draw the confidence of the cells of each label.

    Parameters
    ----------
    adata
        Cells with ``obs[<key>_label]`` and ``obs[<key>_confidence]``.
    key
        Prefix of the columns.
    ax
        Where to draw.
    show, save
        Show, or write to a file.
    """
    _, after = _labels(adata, key)
    column = f"{key}_confidence"
    if column not in adata.obs:
        raise MissingKeyError(f"adata.obs has no {column!r}: call model.annotate(adata) first.")
    confidence = adata.obs[column].to_numpy(dtype=float)
    groups = pd.Series(confidence).groupby(after.to_numpy(), observed=True)
    order = list(groups.median().sort_values(kind="stable").index)
    colours = palette(1)[0]
    with look():
        ax = single_axes(ax, 6.0, 0.9 + 0.32 * len(order))
        drawn = ax.boxplot(
            [groups.get_group(name).to_numpy() for name in order],
            vert=False,
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            medianprops={"color": INK},
        )
        for box in drawn["boxes"]:
            box.set(facecolor=colours, alpha=0.5, linewidth=0)
        names = [f"{name} ({len(groups.get_group(name)):,})" for name in order]
        ax.set_yticks(np.arange(1, len(order) + 1), names)
        ax.set_xlim(0, 1)
        ax.set_xlabel("confidence: margin × agreement of the neighbours")
        ax.tick_params(length=0)
        return finish(ax, show, save)


def label_confusion(
    adata: AnnData,
    truth: str,
    key: str = "grit",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw what cells of each true type were called before and after.

    Parameters
    ----------
    adata
        Cells with ``obs[<key>_raw_label]`` and ``obs[<key>_label]``.
    truth
        Column of ``obs`` with the true types; cells without one are left out.
    key
        Prefix of the columns.
    ax
        Where to draw both panels.
    show, save
        Show, or write to a file.

    Returns
    -------
    An array of two Axes.
    """
    before, after = _labels(adata, key)
    if truth not in adata.obs:
        raise MissingKeyError(
            f"adata.obs has no {truth!r}; it has {', '.join(map(str, adata.obs.columns))}."
        )
    known = adata.obs[truth].notna().to_numpy()
    if not known.any():
        raise InputError(f"adata.obs[{truth!r}] has no value that is not missing.")
    true = adata.obs[truth].astype(str).reset_index(drop=True)[known]
    columns = sorted(set(before[known]) | set(after[known]))
    rows = sorted(set(true))
    # types that are called as in the truth stand on the diagonal
    columns = [c for c in rows if c in columns] + [c for c in columns if c not in rows]
    with look():
        size = 2.2 + 0.3 * len(columns)
        axes = panel_grid(2, ax, size, 1.8 + 0.3 * len(rows), 2)
        for panel, labels, title in zip(axes, (before, after), ("before", "after"), strict=True):
            table = pd.crosstab(true, labels[known], normalize="index")
            table = table.reindex(index=rows, columns=columns, fill_value=0.0)
            panel.pcolormesh(
                table.to_numpy(), cmap="GnBu", vmin=0, vmax=1, edgecolors="white", linewidth=0.8
            )
            for (i, j), value in np.ndenumerate(table.to_numpy()):
                if value >= 0.05:
                    panel.text(
                        j + 0.5, i + 0.5, f"{value:.2f}".lstrip("0"), ha="center", va="center",
                        fontsize=7, color="white" if value > 0.6 else INK,
                    )  # fmt: skip
            panel.set_ylim(len(rows), 0)
            panel.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90)
            panel.set_yticks(np.arange(len(rows)) + 0.5, rows if panel is axes[0] else [])
            panel.tick_params(length=0)
            panel.set_title(title)
            for spine in panel.spines.values():
                spine.set_visible(False)
        return finish(axes, show, save)


def _labels(adata: AnnData, key: str) -> tuple[pd.Series, pd.Series]:
    found = []
    for name in (f"{key}_raw_label", f"{key}_label"):
        if name not in adata.obs:
            raise MissingKeyError(
                f"adata.obs has no {name!r}: call model.annotate(adata) of a GRIT first, or pass "
                "its key_added as key."
            )
        found.append(adata.obs[name].astype(str).reset_index(drop=True))
    if not adata.n_obs:
        raise InputError("There are no cells to draw.")
    return found[0], found[1]
