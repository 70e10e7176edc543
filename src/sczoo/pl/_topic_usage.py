"""How much groups of cells use each topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sczoo.errors import InputError, MissingKeyError
from sczoo.pl._figure import QUIET, finish, look, single_axes
from sczoo.pl._top_genes import topic_title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes


def topic_usage(
    model: Any,
    adata: AnnData,
    groupby: str | Sequence[str],
    *,
    kind: Literal["proportions", "logits"] = "proportions",
    topics: Sequence[Any] | None = None,
    max_topics: int = 40,
    sort: bool = True,
    cmap: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw a heat map of the mean of each topic in each group of cells.

    Parameters
    ----------
    model
        A model with ``get_topic_proportions`` and ``get_latent_representation``.
    adata
        Cells, of the training data or new.
    groupby
        Column of ``adata.obs``, or several: then each combination that occurs is a row.
    kind
        ``"proportions"``: the mean share of a topic in a cell (0 to 1; a row sums to 1).
        ``"logits"``: the mean latent coordinate, from which each topic's mean over the groups is
        subtracted.
    topics
        Which topics, by name or number, in this order.
    max_topics
        Of more topics than this, those are drawn whose means differ most between the groups.
    sort
        Put topics beside the group that uses them most. Ignored where ``topics`` is given.
    cmap
        Colour map.
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
    means = _means(model, adata, groupby, kind)
    n_all = means.shape[1]
    if kind == "logits":
        means = means - means.mean(axis=0)
    if topics is not None:
        means = means.iloc[:, [_position(means, topic) for topic in topics]]
    else:
        if n_all > max_topics:
            spread = (means.max(axis=0) - means.min(axis=0)).to_numpy()
            means = means.iloc[:, np.sort(np.argsort(-spread, kind="stable")[:max_topics])]
        if sort:
            values = means.to_numpy()
            means = means.iloc[:, np.lexsort((-values.max(axis=0), values.argmax(axis=0)))]
    n_groups, n_topics = means.shape
    with look():
        ax = single_axes(ax, 2.6 + 0.27 * n_topics, 1.5 + 0.29 * n_groups)
        _draw(ax, means, kind, cmap)
        of_all = f" ({n_topics} of {n_all}, those that differ most)" if n_topics < n_all else ""
        if topics is None:
            ax.set_xlabel(f"topic{of_all}", color=QUIET, loc="left")
    return finish(ax, show, save)


def _means(model: Any, adata: AnnData, groupby: str | Sequence[str], kind: str) -> pd.DataFrame:
    import pandas as pd

    if kind not in ("proportions", "logits"):
        raise InputError(f"kind={kind!r} is not known: use 'proportions' or 'logits'.")
    keys = [groupby] if isinstance(groupby, str) else list(groupby)
    for key in keys:
        if key not in adata.obs.columns:
            raise MissingKeyError(
                f"adata.obs has no column {key!r}. There are: "
                f"{', '.join(map(str, adata.obs.columns)) or 'none'}."
            )
    method = "get_topic_proportions" if kind == "proportions" else "get_latent_representation"
    if not hasattr(model, method):
        raise InputError(f"{type(model).__name__} has no {method}: it has no topics to draw.")
    usage = getattr(model, method)(adata)
    table = pd.DataFrame(np.asarray(usage))
    if hasattr(usage, "columns"):
        table.columns = list(usage.columns)
    if len(table) != adata.n_obs:
        raise InputError(f"{method} gave {len(table)} rows for {adata.n_obs} cells.")
    groups = adata.obs[keys].reset_index(drop=True)
    means = table.groupby([groups[key] for key in keys], observed=True, sort=True).mean()
    if means.empty:
        raise InputError(f"obs[{keys}] has no value that is not missing.")
    if len(keys) > 1:
        means.index = pd.Index([" · ".join(map(str, names)) for names in means.index])
    return means


def _position(means: pd.DataFrame, topic: Any) -> int:
    if topic in means.columns:
        return list(means.columns).index(topic)
    if isinstance(topic, int | np.integer) and 0 <= topic < means.shape[1]:
        return int(topic)
    raise MissingKeyError(f"There is no topic {topic!r}: there are {means.shape[1]}.")


def _draw(ax: Axes, means: pd.DataFrame, kind: str, cmap: str | None) -> None:
    values = means.to_numpy()
    limit = max(float(np.abs(values).max()), 1e-12)
    lowest, shades, label = 0.0, "GnBu", "mean proportion"
    if kind == "logits":
        lowest, shades, label = -limit, "RdBu_r", "mean logit\n(minus mean of groups)"
    mesh = ax.pcolormesh(
        values, cmap=cmap or shades, vmin=lowest, vmax=limit, edgecolors="white", linewidth=1.0
    )
    ax.set_ylim(len(values), 0)
    names = [topic_title(name).removeprefix("Topic ").strip() for name in means.columns]
    turned = 90 if max(map(len, names)) > 2 else 0
    ax.set_xticks(np.arange(len(names)) + 0.5, names, rotation=turned)
    ax.set_yticks(np.arange(len(values)) + 0.5, [str(name) for name in means.index])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.015, aspect=12, shrink=0.9)
    bar.set_label(label, fontsize=8.5)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
