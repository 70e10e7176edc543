"""Top genes of topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.pl._colours import BLUE, VERMILLION
from sczoo.pl._figure import INK, finish, look, panel_grid
from sczoo.pl._top_genes import TopicGenes, top_genes, topic_title

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from os import PathLike

    from matplotlib.axes import Axes


def topics(
    model: Any,
    n_genes: int = 10,
    topics: Sequence[Any] | None = None,
    *,
    highlight: Collection[str] = (),
    color: str = BLUE,
    highlight_color: str = VERMILLION,
    n_columns: int | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw the top genes of each topic.

    One panel per topic: the genes from best to worst, the length of a bar the gene's score as a
    share of the topic's best.

    Parameters
    ----------
    model
        A model with ``get_top_genes`` or ``get_topic_gene_matrix``; also a table with columns
        ``topic``, ``rank``, ``gene`` and ``score``, or a table of topics x ranks.
    n_genes
        Genes per topic.
    topics
        Which topics, by name or number, in this order. By default all.
    highlight
        Genes to mark, for example a known programme.
    color, highlight_color
        Colours of the bars.
    n_columns
        Panels per row; by default up to six.
    ax
        Axes to draw into; several topics share its space.
    show
        Call ``matplotlib.pyplot.show()``. By default nothing is shown.
    save
        Path of a picture to write.

    Returns
    -------
    The Axes; an array of them, one per topic, for several topics.
    """
    found = top_genes(model, n_genes, topics)
    longest = max(len(gene) for entry in found for gene in entry.genes)
    width = 1.45 + 0.055 * min(longest, 24)
    height = 0.62 + 0.205 * max(len(entry.genes) for entry in found)
    n_columns = n_columns or min(6, int(np.ceil(np.sqrt(len(found) * 1.6))))
    if len(found) <= 4:
        n_columns = len(found)
    marked = {str(gene) for gene in highlight}
    with look():
        panels = panel_grid(len(found), ax, width, height, n_columns)
        for panel, entry in zip(panels, found, strict=True):
            _draw(panel, entry, marked, color, highlight_color)
    return finish(panels if len(panels) > 1 else panels[0], show, save)


def _draw(ax: Axes, entry: TopicGenes, marked: set[str], color: str, highlight_color: str) -> None:
    places = np.arange(len(entry.genes))
    shades = [highlight_color if gene in marked else color for gene in entry.genes]
    ax.barh(places, 1.0, height=0.86, color="#f2f2f2", linewidth=0)
    ax.barh(places, _lengths(entry), height=0.86, color=shades, alpha=0.32, linewidth=0)
    for place, gene in enumerate(entry.genes):
        weight = "bold" if gene in marked else "normal"
        ax.text(0.025, place, gene, va="center", ha="left", color=INK, weight=weight)
    ax.set(xlim=(0, 1), ylim=(len(places) - 0.5, -0.5), xticks=[], yticks=[])
    ax.set_title(topic_title(entry.topic), loc="left", pad=5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _lengths(entry: TopicGenes) -> np.ndarray:
    """Scores as a share of the best; without positive scores, full bars."""
    if entry.scores is None:
        return np.zeros(len(entry.genes))
    scores = np.asarray(entry.scores, dtype=float)
    if not np.isfinite(scores).all() or scores.max() <= 0:
        return np.zeros(len(scores))
    return np.clip(scores / scores.max(), 0, 1)
