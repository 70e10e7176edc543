"""Cells in two dimensions."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sczoo.errors import EmptyDataError, InputError, MissingKeyError
from sczoo.pl._colours import MISSING, colours_of_groups
from sczoo.pl._figure import INK, QUIET, RULE, finish, look, panel_grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

Layout = Literal["umap", "tsne", "pca"]

# Panels of one figure share their layout, also when they are drawn by separate calls.
_RECENT: OrderedDict[tuple[str, str, int], NDArray[np.float64]] = OrderedDict()
_N_RECENT = 4
_AXIS_NAMES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PC"}


def embedding(
    adata: AnnData,
    basis: str,
    color: str | Sequence[str] | None = None,
    *,
    components: tuple[int, int] | None = None,
    layout: Layout = "umap",
    legend: Literal["right", "on data"] | None = "right",
    palette: Mapping[Any, str] | Sequence[str] | None = None,
    cmap: str = "viridis",
    size: float | None = None,
    title: str | None = None,
    random_state: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Scatter plot of the cells in an embedding.

    Parameters
    ----------
    adata
        The data. Nothing is written into it.
    basis
        Key of ``adata.obsm``, with or without ``X_`` in front. Two dimensions are drawn as they
        are; more are laid out in two first (see ``layout``).
    color
        Column of ``adata.obs`` or a gene; a list gives one panel each. Categories take the
        colours of ``adata.uns["<color>_colors"]`` where they are.
    components
        Draw these two dimensions of the embedding, counted from 0, without any layout.
    layout
        How more than two dimensions become two: ``"umap"`` (about one second per thousand
        cells), ``"tsne"`` (scikit-learn; about three times slower), or ``"pca"`` (linear:
        distances keep their meaning, groups overlap more).
    legend
        Names of the groups: at the right, on the data, or none.
    palette
        Colours of the groups: a mapping, or a list in the order of the categories.
    cmap
        Colour map for numbers.
    size
        Area of a point in square points. By default 20,000 / number of cells, between 2 and 16.
    title
        Title; by default what the colour stands for.
    random_state
        Seed of the layout and of the order in which points are drawn.
    ax
        Axes to draw into.
    show
        Call ``matplotlib.pyplot.show()``. By default nothing is shown.
    save
        Path of a picture to write.

    Returns
    -------
    The Axes; an array of them for a list of colours.
    """
    colours = [color] if color is None or isinstance(color, str) else list(color)
    if not colours:
        raise InputError("color is an empty list: name a column or a gene, or leave it out.")
    points, axis_names = _points(adata, basis, components, layout, random_state)
    order = np.random.default_rng(random_state).permutation(len(points))
    area = size if size is not None else float(np.clip(20_000 / len(points), 2, 16))
    with look():
        panels = panel_grid(len(colours), ax, 5.2, 4.2, 3)
        for panel, what in zip(panels, colours, strict=True):
            _draw(adata, panel, points, order, what, legend, palette, cmap, area)
            _frame(panel, axis_names, title if title is not None else (what or ""))
    return finish(panels if len(panels) > 1 else panels[0], show, save)


def _points(
    adata: AnnData,
    basis: str,
    components: tuple[int, int] | None,
    layout: str,
    seed: int,
) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Return the coordinates to draw, and the names of the two axes."""
    from sczoo.metrics._inputs import embedding as checked

    if layout not in _AXIS_NAMES:
        raise InputError(f"layout={layout!r} is not known: use 'umap', 'tsne' or 'pca'.")
    key = basis if basis in adata.obsm else f"X_{basis}"
    if key not in adata.obsm:
        there = ", ".join(adata.obsm) or "none"
        raise MissingKeyError(f"adata.obsm has no {basis!r}. There are: {there}.")
    if adata.n_obs == 0:
        raise EmptyDataError("There are no cells to draw.")
    matrix = checked(adata.obsm[key], f"obsm[{key!r}]")
    name = key.removeprefix("X_")
    n_dimensions = matrix.shape[1]
    if components is None and n_dimensions == 2:
        components = (0, 1)
    if components is not None:
        if len(components) != 2 or not all(0 <= k < n_dimensions for k in components):
            raise InputError(
                f"components={components}: give two numbers from 0 to {n_dimensions - 1}."
            )
        first, second = components
        chosen = matrix[:, [first, second]].astype(np.float64)
        return chosen, (f"{name} {first + 1}", f"{name} {second + 1}")
    if n_dimensions == 1:
        return np.column_stack([matrix[:, 0], np.zeros(len(matrix))]), (f"{name} 1", "")
    names = _AXIS_NAMES[layout]
    return _laid_out(matrix, layout, seed), (f"{names} 1 of {name}", f"{names} 2 of {name}")


def _laid_out(matrix: NDArray[np.floating], layout: str, seed: int) -> NDArray[np.float64]:
    matrix = np.ascontiguousarray(matrix)
    digest = sha256(matrix.tobytes() + str((matrix.shape, matrix.dtype)).encode()).hexdigest()
    key = (digest, layout, seed)
    if key in _RECENT:
        _RECENT.move_to_end(key)
        return _RECENT[key]
    points = _lay_out(matrix, layout, seed)
    _RECENT[key] = points
    while len(_RECENT) > _N_RECENT:
        _RECENT.popitem(last=False)
    return points


def _lay_out(matrix: NDArray[np.floating], layout: str, seed: int) -> NDArray[np.float64]:
    from sczoo.graph import umap_layout
    from sczoo.graph._layout import principal_plane

    if layout == "umap":
        return umap_layout(matrix, seed=seed)
    if layout == "pca" or len(matrix) < 5:
        return principal_plane(matrix)
    from sklearn.manifold import TSNE

    tsne = TSNE(
        perplexity=min(30.0, (len(matrix) - 1) / 3),
        init="pca" if len(np.unique(matrix, axis=0)) > 1 else "random",
        max_iter=500,
        random_state=seed,
    )
    return tsne.fit_transform(matrix).astype(np.float64)


def _draw(
    adata: AnnData,
    ax: Axes,
    points: NDArray[np.float64],
    order: NDArray[np.int64],
    what: str | None,
    legend: str | None,
    palette: Any,
    cmap: str,
    area: float,
) -> None:
    import pandas as pd

    style: dict[str, Any] = {"s": area, "linewidths": 0, "rasterized": len(points) > 2000}
    if what is None:
        ax.scatter(points[:, 0], points[:, 1], c=QUIET, alpha=0.7, **style)
        return
    values = _values(adata, what)
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        _draw_groups(adata, ax, points, order, what, values, legend, palette, style)
        return
    numbers = values.to_numpy(dtype=float)
    shown = order[np.argsort(numbers[order], kind="stable")]  # high values on top
    known = np.isfinite(numbers[shown])
    if not known.all():
        lost = shown[~known]
        ax.scatter(points[lost, 0], points[lost, 1], c=MISSING, **style)
    shown = shown[known]
    drawn = ax.scatter(points[shown, 0], points[shown, 1], c=numbers[shown], cmap=cmap, **style)
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.6, aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def _values(adata: AnnData, what: str) -> Any:
    import pandas as pd

    if what in adata.obs.columns:
        return adata.obs[what]
    if what in adata.var_names:
        column = adata[:, what].X
        dense = column.toarray() if hasattr(column, "toarray") else np.asarray(column)
        return pd.Series(dense.ravel(), index=adata.obs_names)
    raise MissingKeyError(
        f"{what!r} is neither a column of obs nor a gene. Columns of obs: "
        f"{', '.join(map(str, adata.obs.columns)) or 'none'}."
    )


def _draw_groups(
    adata: AnnData,
    ax: Axes,
    points: NDArray[np.float64],
    order: NDArray[np.int64],
    what: str,
    values: Any,
    legend: str | None,
    palette: Any,
    style: dict[str, Any],
) -> None:
    import pandas as pd
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    column = values.astype("category") if values.dtype != "category" else values
    groups = list(column.cat.categories)
    colour = colours_of_groups(adata, what, groups, palette)
    shades = pd.Series(column.astype(object)).map(colour).fillna(MISSING).to_numpy()
    # one scatter in random order: no group hides another
    ax.scatter(points[order, 0], points[order, 1], c=shades[order], alpha=0.85, **style)
    codes = column.cat.codes.to_numpy()
    present = [k for k in range(len(groups)) if (codes == k).any()]
    if legend == "on data":
        for k in present:
            x, y = np.median(points[codes == k], axis=0)
            halo = [withStroke(linewidth=2.5, foreground="white")]
            ax.text(
                x, y, str(groups[k]), ha="center", va="center", weight="bold", path_effects=halo
            )
    elif legend == "right":
        names = [(str(groups[k]), colour[groups[k]]) for k in present]
        if (codes < 0).any():
            names.append(("missing", MISSING))
        handles = [
            Line2D([], [], marker="o", linestyle="", color=shade, markersize=6, label=name)
            for name, shade in names
        ]
        ax.legend(
            handles=handles,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            handletextpad=0.2,
            labelspacing=0.45,
            borderaxespad=0.3,
            ncols=-(-len(handles) // 16),
        )
    elif legend is not None:
        raise InputError(f"legend={legend!r} is not known: use 'right', 'on data' or None.")


def _frame(ax: Axes, axis_names: tuple[str, str], title: str) -> None:
    ax.set(xticks=[], yticks=[])
    ax.set_title(title.replace("_", " "), loc="left", color=INK)
    ax.set_xlabel(axis_names[0], loc="left", color=QUIET, fontsize=8)
    ax.set_ylabel(axis_names[1], loc="bottom", color=QUIET, fontsize=8)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)
    ax.margins(0.03)
