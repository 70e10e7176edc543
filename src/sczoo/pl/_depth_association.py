"""How much of an embedding is sequencing depth, and how many components stand out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError, MissingKeyError
from sczoo.pl._colours import BLUE, VERMILLION
from sczoo.pl._figure import INK, QUIET, finish, look, single_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes

_SERIES = ("#8FA3B5", VERMILLION, BLUE, "#009E73", "#CC79A7", "#E69F00")


def depth_association(
    adata: AnnData,
    embeddings: Sequence[str] | Mapping[str, Any],
    *,
    depth: str | np.ndarray | None = None,
    layer: str | None = None,
    groupby: str | None = None,
    n_components: int = 10,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw the correlation of each component with the depth, before and after a correction.

    Parameters
    ----------
    adata
        The cells. Not modified.
    embeddings
        Keys of ``adata.obsm``, the uncorrected first; or a mapping from names to arrays of shape
        ``(n_cells, n_components)``.
    depth
        Column of ``adata.obs``, or values, of the depth or of the share of observed values. By
        default the sum of the counts of each cell.
    layer
        Layer with the counts, for the default depth; ``None`` for ``adata.X``.
    groupby
        Column of ``adata.obs``: correlations are then taken within its groups, because types of
        cells differ in depth for reasons of their own.
    n_components
        Number of leading components to draw.
    ax
        Axes to draw into.
    show
        Call ``matplotlib.pyplot.show()``. By default nothing is shown.
    save
        Path of a picture to write.

    Returns
    -------
    The Axes; its line of each embedding carries the absolute correlations with the logarithm of
    the depth.
    """
    if not isinstance(n_components, int) or n_components < 1:
        raise InputError(f"n_components={n_components!r}: draw at least one component.")
    arrays = _embeddings(adata, embeddings)
    values = np.log(_depth(adata, depth, layer))
    groups = _groups(adata, groupby)
    values = _within(values[:, None], groups)[:, 0]
    if not values.std() > 0:
        raise InputError("The depth is the same in all cells: there is nothing to correlate with.")
    with look():
        ax = single_axes(ax, 1.8 + 0.42 * n_components, 3.0)
        for number, (name, array) in enumerate(arrays.items()):
            components = _within(array[:, :n_components], groups)
            found = [_correlation(column, values) for column in components.T]
            ax.plot(
                np.arange(1, len(found) + 1),
                found,
                marker="o",
                markersize=4,
                linewidth=1.4,
                color=_SERIES[number % len(_SERIES)],
                label=name,
            )
        ax.set_ylim(0, 1)
        ax.set_xlim(0.5, n_components + 0.5)
        ax.set_xlabel("component", color=QUIET)
        within = f", within {groupby}" if groupby is not None else ""
        ax.set_ylabel(f"|correlation with log depth|{within}")
        ax.legend(loc="upper right")
    return finish(ax, show, save)


def scree(
    model: Any,
    *,
    cumulative: bool = False,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw how much of the variance each component explains.

    Parameters
    ----------
    model
        A model with ``get_explained_variance``.
    cumulative
        Draw the running sum.
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
    if not hasattr(model, "get_explained_variance"):
        raise InputError(f"{type(model).__name__} has no get_explained_variance to draw.")
    table = model.get_explained_variance()
    values = table["cumulative" if cumulative else "ratio"].to_numpy()
    with look():
        ax = single_axes(ax, 4.6, 3.0)
        ax.plot(
            np.arange(1, len(values) + 1), values, marker="o", markersize=3.5, linewidth=1.2,
            color=INK,
        )  # fmt: skip
        ax.set_ylim(0, None)
        ax.set_xlabel("component", color=QUIET)
        ax.set_ylabel("cumulative share of variance" if cumulative else "share of variance")
    return finish(ax, show, save)


def _embeddings(
    adata: AnnData, embeddings: Sequence[str] | Mapping[str, Any]
) -> dict[str, np.ndarray]:
    if isinstance(embeddings, str):
        embeddings = [embeddings]
    if isinstance(embeddings, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in embeddings.items()}
    else:
        missing = [key for key in embeddings if key not in adata.obsm]
        if missing:
            raise MissingKeyError(
                f"adata.obsm has no {missing[0]!r}; it has {sorted(map(str, adata.obsm.keys()))}."
            )
        arrays = {key: np.asarray(adata.obsm[key]) for key in embeddings}
    if not arrays:
        raise InputError("No embedding was given: pass keys of adata.obsm, or arrays by name.")
    for name, array in arrays.items():
        if array.ndim != 2 or len(array) != adata.n_obs:
            raise InputError(
                f"The embedding {name!r} has shape {array.shape} for {adata.n_obs} cells."
            )
        if not np.isfinite(array).all():
            raise InputError(f"The embedding {name!r} is not finite everywhere.")
    return arrays


def _depth(adata: AnnData, depth: str | np.ndarray | None, layer: str | None) -> np.ndarray:
    if depth is None:
        if layer is not None and layer not in adata.layers:
            raise MissingKeyError(f"adata.layers has no {layer!r}.")
        matrix = adata.X if layer is None else adata.layers[layer]
        values = np.asarray(matrix.sum(axis=1), dtype=float).ravel()
    elif isinstance(depth, str):
        if depth not in adata.obs:
            raise MissingKeyError(
                f"adata.obs has no column {depth!r}; it has "
                f"{', '.join(map(str, adata.obs.columns)) or 'none'}."
            )
        values = np.asarray(adata.obs[depth], dtype=float)
    else:
        values = np.asarray(depth, dtype=float)
    if values.shape != (adata.n_obs,) or not (values > 0).all():
        raise InputError(
            "The depth must be one number above zero for each cell. Leave out empty cells, or "
            "pass layer= with the raw counts."
        )
    return values


def _groups(adata: AnnData, groupby: str | None) -> np.ndarray | None:
    if groupby is None:
        return None
    if groupby not in adata.obs:
        raise MissingKeyError(
            f"adata.obs has no column {groupby!r}; it has "
            f"{', '.join(map(str, adata.obs.columns)) or 'none'}."
        )
    return np.asarray(adata.obs[groupby].astype(str))


def _within(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Subtract the means of the groups."""
    centred = np.array(values, dtype=float)
    if groups is not None:
        for group in np.unique(groups):
            centred[groups == group] -= centred[groups == group].mean(axis=0)
    return centred


def _correlation(column: np.ndarray, values: np.ndarray) -> float:
    if not column.std() > 0:
        return 0.0
    return float(abs(np.corrcoef(column, values)[0, 1]))
