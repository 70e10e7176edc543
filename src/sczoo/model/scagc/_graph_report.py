"""What the learned graph looks like beside the nearest neighbours it started from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo.errors import InputError, MissingKeyError
from sczoo.model.scagc._adaptive_graph import degree_gini

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from scipy.sparse import csr_matrix

__all__ = ["GraphReport", "GraphReportMixin", "edge_homophily"]

_NO_LABEL = ("unassigned", "unlabelled", "nan", "")


def edge_homophily(graph: csr_matrix, labels: ArrayLike) -> float:
    """Share of the edges between labelled cells whose ends have the same label."""
    values = np.asarray(labels, dtype=object).astype(str)
    edges = graph.tocoo()
    known = ~np.isin(values, _NO_LABEL)
    both = known[edges.row] & known[edges.col]
    if not both.any():
        return float("nan")
    return float((values[edges.row[both]] == values[edges.col[both]]).mean())


class GraphReport:
    """Degrees, homophily and change of the learned graph and of the first one.

    Attributes
    ----------
    table
        One row for each graph, ``"learned"`` and ``"nearest neighbours"``: ``n_edges``,
        ``degree_mean``, ``degree_sd``, ``degree_max``, ``degree_min``, ``degree_gini`` and, where
        labels were given, ``homophily`` and ``homophily_chance``.
    degrees
        Degree of each cell in each graph.
    jaccard
        Share of the directed edges kept from each epoch to the next.
    label_changes
        Share of the cells that changed their cluster between successive targets.
    """

    def __init__(
        self,
        graphs: dict[str, csr_matrix],
        history: dict[str, list[float]],
        labels: ArrayLike | None,
    ) -> None:
        self.degrees = {name: np.diff(graph.indptr) for name, graph in graphs.items()}
        rows = {}
        for name, graph in graphs.items():
            degree = self.degrees[name]
            rows[name] = {
                "n_edges": graph.nnz // 2,
                "degree_mean": float(degree.mean()),
                "degree_sd": float(degree.std()),
                "degree_max": int(degree.max()),
                "degree_min": int(degree.min()),
                "degree_gini": degree_gini(degree),
            }
            if labels is not None:
                share = pd.Series(np.asarray(labels, dtype=object).astype(str))
                share = share[~share.isin(_NO_LABEL)].value_counts(normalize=True)
                rows[name]["homophily"] = edge_homophily(graph, labels)
                rows[name]["homophily_chance"] = float((share**2).sum())
        self.table = pd.DataFrame.from_dict(rows, orient="index")
        self.jaccard = np.asarray(history.get("jaccard", []))
        self.label_changes = np.asarray(history.get("label_changes", []))

    def __repr__(self) -> str:
        return f"GraphReport\n{self.table.round(3).to_string()}"

    def _repr_html_(self) -> str:
        return self.table.round(3).to_html()


class GraphReportMixin:
    """The report of the learned graph."""

    def get_graph_report(self, labels_key: str | None = None) -> GraphReport:
        """Describe the learned graph of the training cells beside the one it started from.

        Parameters
        ----------
        labels_key
            Column of ``obs`` with known cell types, for the homophily of the edges. Labels are
            read here alone; cells labelled "unassigned", "unlabelled" or not at all are left out.

        Raises
        ------
        InputError
            The model was loaded: the graph is never saved.
        MissingKeyError
            There is no such column.
        """
        model: Any = self
        model._require_trained()
        learned = model._learned
        if learned is None:
            raise InputError(
                "This model was not trained in this session, and graphs of training cells are "
                "never saved. Use get_adaptive_graph(adata) for the graph of the cells at hand."
            )
        labels = None
        if labels_key is not None:
            if labels_key not in model.adata.obs:
                raise MissingKeyError(
                    f"adata.obs has no column {labels_key!r}; it has "
                    f"{sorted(map(str, model.adata.obs.columns))}."
                )
            labels = model.adata.obs[labels_key].astype(object).to_numpy()
        graphs = {"learned": learned.graph, "nearest neighbours": learned.static_graph}
        return GraphReport(graphs, learned.history, labels)
