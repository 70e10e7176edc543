"""The genes that a perturbation moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import EmptyDataError, InputError, NotFiniteError
from sczoo.pl._colours import BLUE, VERMILLION
from sczoo.pl._figure import INK, QUIET, finish, look, single_axes

if TYPE_CHECKING:
    from collections.abc import Collection
    from os import PathLike

    import pandas as pd
    from matplotlib.axes import Axes

# where a result keeps its change per gene, in the order of preference
_CHANGES = (
    "gene_response",
    "mean_change",
    "gene_change",
    "response",
    "log_fold_change",
    "change",
)
_GENES = ("genes", "gene_names", "var_names")


def perturbation(
    result: Any,
    n_genes: int = 10,
    *,
    highlight: Collection[str] = (),
    title: str | None = None,
    xlabel: str = "predicted mean change (log)",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw the genes that a perturbation moves most, up and down.

    Parameters
    ----------
    result
        What ``model.perturb(...)`` returned; also a series of changes by gene, a table with
        columns ``gene`` and ``change``, or a table of cells x genes, which is averaged.
    n_genes
        Genes in each direction. Genes that do not move are left out.
    highlight
        Genes to mark, for example a known programme.
    title
        Title.
    xlabel
        What the change is measured in.
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
    if n_genes < 1:
        raise InputError(f"n_genes={n_genes}: ask for at least one gene.")
    change = _change_by_gene(result).sort_values(ascending=False, kind="stable")
    up = change[change > 0].head(n_genes)
    down = change[change < 0].tail(n_genes)
    names = [str(gene) for gene in [*up.index, *down.index]]
    values = np.concatenate([up.to_numpy(), down.to_numpy()])
    if len(values) == 0:
        raise EmptyDataError("The perturbation moves no gene: there is nothing to draw.")
    # a gap between up and down
    places = np.arange(len(values)) + 0.6 * (np.arange(len(values)) >= len(up)) * (len(up) > 0)
    with look():
        ax = single_axes(ax, 4.4, 0.9 + 0.215 * len(values))
        _draw(ax, places, values, names, {str(gene) for gene in highlight})
        ax.set_xlabel(xlabel)
        ax.set_title(title or "", loc="left")
    return finish(ax, show, save)


def _draw(
    ax: Axes, places: np.ndarray, values: np.ndarray, names: list[str], marked: set[str]
) -> None:
    colours = np.where(values > 0, VERMILLION, BLUE).tolist()
    ax.hlines(places, 0, values, color=colours, linewidth=2.2, alpha=0.45)
    ax.scatter(values, places, color=colours, s=26, zorder=3)
    ax.axvline(0, color=QUIET, linewidth=0.8)
    span = np.ptp(np.append(values, 0.0))
    for place, value, name in zip(places, values, names, strict=True):
        # names stand on the other side of the zero line, where no bar can run through them
        ax.text(
            -np.sign(value) * span * 0.015,
            place,
            name,
            ha="right" if value > 0 else "left",
            va="center",
            color=INK,
            weight="bold" if name in marked else "normal",
        )
    room = span * (0.05 + 0.017 * max(map(len, names)))
    ax.set_xlim(
        min(values.min() * 1.08, -room if (values > 0).any() else 0.0),
        max(values.max() * 1.08, room if (values < 0).any() else 0.0),
    )
    ax.set_ylim(places.max() + 0.7, -0.7)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)


def _change_by_gene(result: Any) -> pd.Series:
    import pandas as pd

    change = _find_change(result)
    if isinstance(change, pd.DataFrame):
        columns = [c for c in ("change", *_CHANGES) if c in change.columns]
        if "gene" in change.columns and columns:
            change = change.set_index("gene")[columns[0]]
        else:
            change = change.mean(axis=0)
    if not isinstance(change, pd.Series):
        raise InputError(
            "A perturbation is drawn from what model.perturb() returned, or from a change per "
            f"gene; {type(result).__name__} is neither."
        )
    values = change.astype(float)
    if values.empty:
        raise EmptyDataError("The perturbation holds no genes.")
    if not np.isfinite(values.to_numpy()).all():
        gene = values.index[~np.isfinite(values.to_numpy())][0]
        raise NotFiniteError(f"The change of gene {gene!r} is not finite.")
    return values


def _find_change(result: Any) -> Any:
    """Take the change per gene out of a result, with its gene names."""
    import pandas as pd

    if isinstance(result, pd.Series | pd.DataFrame):
        return result
    if isinstance(result, dict):
        return pd.Series(result, dtype=float)
    for name in _CHANGES:
        change = getattr(result, name, None)
        if callable(change):
            change = change()
        if change is None:
            continue
        if isinstance(change, pd.Series | pd.DataFrame):
            return change
        genes = next((getattr(result, n) for n in _GENES if hasattr(result, n)), None)
        values = np.asarray(change, dtype=float)
        if values.ndim == 2:
            values = values.mean(axis=0)
        if genes is not None and values.shape == (len(genes),):
            return pd.Series(values, index=list(genes))
    return None
