"""The report about an evaluation of small training sets."""

from __future__ import annotations

import matplotlib
import pytest

matplotlib.use("Agg")

from sczoo.errors import MissingKeyError
from sczoo.model.scdd import evaluate_distillation, select_cells
from sczoo.report import distillation_report, render_report, write_report
from sczoo.testing._cells import example_cells


@pytest.fixture(scope="module")
def judged():
    adata = example_cells(260, 60, seed=3)
    train, test = adata[:180].copy(), adata[180:].copy()
    small = select_cells(train, "pseudobulk", 2, labels_key="cell_type", rare="drop")
    frame = evaluate_distillation(
        {"scdd": small}, test, train=train, classifiers=["lr", "knn"], baselines=["random"]
    )
    return frame, small, train


def test_every_figure_of_the_evaluation_is_in_the_report(judged, tmp_path):
    frame, small, train = judged
    report = distillation_report(frame, small=small, real=train, title="<b>Small</b>")
    assert report.warnings == [frame.attrs["notice"]]
    assert "not anonymous" in report.warnings[0]
    assert len(report.figures) == 2
    shown = {str(cell) for table in report.tables for row in table.rows for cell in row}
    for value in frame["value"]:
        assert f"{value:.3f}" in shown
    for name in ("scdd", "random", "whole"):
        assert name in shown
    own = frame[(frame["measure"] == "balanced_accuracy") & (frame["set"] != "whole")]
    best = own.groupby("set")["value"].mean()
    assert report.facts[0][1].startswith(best.idxmax())
    assert f"{best.max():.3f}" in report.facts[0][1]
    page = write_report(report, tmp_path / "small.html").read_text()
    assert "<b>Small</b>" not in page
    assert page.count("data:image/png") == 2


def test_one_set_alone_and_no_pictures(judged):
    frame = judged[0]
    alone = frame[frame["set"] == "scdd"]
    report = distillation_report(alone)
    assert not report.figures
    assert len(report.tables) == 3 + 2
    assert "scdd" in render_report(report)


def test_other_tables_are_refused(judged):
    frame = judged[0]
    with pytest.raises(MissingKeyError, match="'kind'"):
        distillation_report(frame.drop(columns="kind"))
    with pytest.raises(MissingKeyError, match="utility"):
        distillation_report(frame[frame["kind"] == "privacy"])
