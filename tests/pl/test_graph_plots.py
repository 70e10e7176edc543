"""Plots of the learned graph and of the stability of clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sczoo import pl
from sczoo.errors import InputError
from sczoo.model.scagc._graph_report import GraphReport


@pytest.fixture
def report():
    rng = np.random.default_rng(0)
    graphs = {}
    for name, share in (("learned", 0.2), ("nearest neighbours", 0.3)):
        dense = np.triu(rng.random((40, 40)) < share, 1)
        graphs[name] = sparse.csr_matrix((dense | dense.T).astype(np.float32))
    history = {"jaccard": [0.2, 0.4, 0.5], "label_changes": [0.3, 0.1]}
    return GraphReport(graphs, history, np.repeat(["a", "b"], 20))


def test_graph_report_draws_what_the_table_says(report, tmp_path):
    panels = pl.graph_report(report, save=tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 1000
    degrees, scores, change = panels
    assert len(degrees.get_legend().get_texts()) == 2
    drawn = sorted(float(line.get_xdata()[0]) for line in scores.lines if line.get_marker() == "o")
    expected = sorted(report.table[["degree_gini", "homophily"]].to_numpy().ravel())
    np.testing.assert_allclose(drawn, expected)
    np.testing.assert_allclose(change.lines[0].get_ydata(), report.jaccard)
    np.testing.assert_array_equal(change.lines[1].get_xdata(), [2, 3])


def test_graph_report_of_a_model_without_labels(report):
    class Model:
        def get_graph_report(self, labels_key=None):
            assert labels_key is None
            return GraphReport({"learned": sparse.csr_matrix(np.ones((3, 3)))}, {}, None)

    panels = pl.graph_report(Model())
    assert len(panels) == 3
    assert pl.degree_distribution(Model()).get_xlabel() == "edges of a cell"


def test_plots_refuse_what_they_cannot_draw():
    with pytest.raises(InputError, match="get_graph_report"):
        pl.graph_report(7)
    with pytest.raises(InputError, match="overlap"):
        pl.cluster_stability(pd.DataFrame({"n_cells": [1], "recurs": [True]}))


def test_cluster_stability_is_ordered(tmp_path):
    table = pd.DataFrame(
        {
            "n_cells": [10, 20, 30],
            "overlap": [0.9, 0.2, np.nan],
            "recurrence": [1.0, 0.0, np.nan],
            "recurs": [True, False, False],
        }
    )
    axes = pl.cluster_stability(table)
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.9, 0.0]
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "1 (20 cells)",
        "0 (10 cells)",
        "2 (30 cells)",
    ]
