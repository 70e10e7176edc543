"""Small training sets: what they teach at each size, and where they lie among real cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError, MissingKeyError
from sczoo.pl._colours import palette
from sczoo.pl._figure import INK, QUIET, finish, look, single_axes

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

_WHOLE = "whole"
_OURS = ("scdd", "distilled")
_MOST_POINTS = 20_000


def distillation_accuracy(
    frame: pd.DataFrame,
    measure: str = "balanced_accuracy",
    *,
    size: str = "n_cells",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw what classifiers learn from small training sets, against the size of the set.

    Parameters
    ----------
    frame
        Results of :func:`sczoo.model.scdd.evaluate_distillation` at several sizes, put together
        with :func:`pandas.concat`. Values are averaged over classifiers and repetitions; the
        whole set is drawn as a line.
    measure
        Which measure to draw.
    size
        Column with the size.
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
    for column in ("set", "measure", "value", size):
        if column not in frame:
            raise MissingKeyError(
                f"The table has no column {column!r}; pass the result of evaluate_distillation."
            )
    rows = frame[frame["measure"] == measure]
    if "test" in rows:
        rows = rows[rows["test"] == "test"]
    if rows.empty:
        raise MissingKeyError(
            f"The table has no measure {measure!r}; it has "
            f"{', '.join(sorted(set(map(str, frame['measure']))))}."
        )
    table = rows.groupby(["set", size])["value"].mean().reset_index()
    names = [name for name in dict.fromkeys(table["set"]) if name != _WHOLE]
    names.sort(key=lambda name: str(name) not in _OURS)
    colours = palette(len(names))
    with look():
        axes = single_axes(ax, 5.2, 3.4)
        for name, colour in zip(names, colours, strict=True):
            part = table[table["set"] == name].sort_values(size)
            ours = str(name) in _OURS
            axes.plot(
                part[size],
                part["value"],
                color=colour,
                marker="o",
                markersize=4.5 if ours else 3.5,
                linewidth=2.4 if ours else 1.2,
                zorder=3 if ours else 2,
                label=str(name),
            )
        if (table["set"] == _WHOLE).any():
            value = float(table[table["set"] == _WHOLE]["value"].mean())
            axes.axhline(value, color=QUIET, linewidth=1.0, linestyle="--", zorder=1)
            axes.annotate(
                "whole set",
                (1.0, value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                color=QUIET,
                fontsize=8,
            )
        if len(table[size].unique()) > 1:
            axes.set_xscale("log")
            sizes = sorted(table.loc[table["set"] != _WHOLE, size].unique())
            if len(sizes) <= 8:
                axes.set_xticks(sizes, [f"{value:g}" for value in sizes])
                axes.minorticks_off()
        axes.set_xlabel("cells" if size == "n_cells" else size.replace("_", " "))
        axes.set_ylabel(f"{measure.replace('_', ' ')}, mean of classifiers", color=INK)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return finish(axes, show, save)


def distilled(
    small: AnnData,
    real: AnnData,
    *,
    labels_key: str | None = None,
    layer: str | None = None,
    basis: str = "pca",
    max_cells: int = 3000,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw distilled cells over the real cells that they stand for.

    Parameters
    ----------
    small
        A distilled or selected set.
    real
        Real cells with the same genes.
    labels_key
        Column with the classes; by default that which the small set names.
    layer
        Layer of `real` with counts; ``None`` for ``X``.
    basis
        ``"pca"`` of the real cells' log-normalised counts, or ``"umap"`` of both together.
    max_cells
        Draw at most so many real cells, chosen at random.
    seed
        Seed of that choice and of UMAP.
    ax, show, save
        As of :func:`distillation_accuracy`.

    Returns
    -------
    The Axes.
    """
    key = labels_key or dict(small.uns.get("scdd", {})).get("labels_key")
    if key is None or key not in small.obs or key not in real.obs:
        raise MissingKeyError(f"Both sets need a column with the classes; {key!r} is not in both.")
    if basis not in ("pca", "umap"):
        raise InputError(f"basis={basis!r} is not known: use 'pca' or 'umap'.")
    if not small.var_names.equals(real.var_names):
        raise InputError(
            "The real cells have other genes than the small set; bring them together."
        )
    if not 1 <= max_cells <= _MOST_POINTS:
        raise InputError(f"max_cells={max_cells!r}: it must lie between 1 and {_MOST_POINTS}.")
    points, ours, cells = _places(small, real, layer, basis, max_cells, seed)
    labels = [str(name) for name in real.obs[key].astype("category").cat.categories]
    colours = dict(zip(labels, palette(len(labels)), strict=True))
    with look():
        axes = single_axes(ax, 5.6, 4.2)
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=3,
            c=[colours[str(name)] for name in real.obs[key].iloc[cells]],
            alpha=0.25,
            linewidths=0,
            rasterized=True,
        )
        for name in dict.fromkeys(map(str, small.obs[key])):
            rows = small.obs[key].astype(str).to_numpy() == name
            axes.scatter(
                ours[rows, 0],
                ours[rows, 1],
                s=42,
                color=colours.get(name, INK),
                edgecolors=INK,
                linewidths=0.9,
                marker="o",
                label=name,
                zorder=3,
            )
        label = "PC" if basis == "pca" else "UMAP"
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"{label} 1", loc="left", color=QUIET, fontsize=8)
        axes.set_ylabel(f"{label} 2", loc="bottom", color=QUIET, fontsize=8)
        axes.set_title(f"{small.n_obs} cells for {real.n_obs:,}", loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return finish(axes, show, save)


def _places(
    small: AnnData, real: AnnData, layer: str | None, basis: str, max_cells: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of real and small cells, ``(n, 2)`` each, and the rows of the real ones."""
    from sklearn.decomposition import PCA

    from sczoo.base._normalise import log_normalise

    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(real.n_obs, min(max_cells, real.n_obs), replace=False))
    matrix = real.X if layer is None else real.layers[layer]
    theirs = log_normalise(matrix[cells])
    made = log_normalise(small.X)
    n_components = 2 if basis == "pca" else min(30, min(theirs.shape) - 1)
    space = PCA(n_components, svd_solver="arpack", random_state=seed).fit(theirs)
    points, ours = space.transform(theirs), space.transform(made)
    if basis == "umap":
        import umap

        both = umap.UMAP(random_state=seed, n_jobs=1).fit_transform(np.concatenate([points, ours]))
        points, ours = both[: len(points)], both[len(points) :]
    return points, ours, cells
