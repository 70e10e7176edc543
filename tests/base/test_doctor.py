from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sczoo
from sczoo.base._doctor import DoctorReport
from sczoo.testing._snapshot import Snapshot


def levels(report, level):
    return [finding.where for finding in report.findings if finding.level == level]


def test_good_counts_are_ok_and_untouched(counts):
    before = Snapshot(counts)
    report = sczoo.doctor(counts, batch_key="batch", labels_key="cell_type")
    assert report.ok, str(report)
    assert not levels(report, "error")
    before.require_unchanged("doctor")
    totals = np.asarray(counts.X.sum(1)).ravel()
    assert f"median {np.median(totals):,.0f} counts" in str(report)


@pytest.mark.parametrize("value", [np.nan, -1.0, 0.5])
def test_bad_values_are_an_error_that_names_the_place(counts, value):
    matrix = counts.X.toarray()
    matrix[7, 3] = value
    counts.layers["counts"] = matrix
    report = sczoo.doctor(counts, layer="counts")
    assert not report.ok
    finding = next(f for f in report.findings if f.level == "error")
    assert finding.where == "adata.layers['counts']"
    assert "cell7" in finding.message
    assert "GENE3" in finding.message


def test_nothing_is_raised_whatever_it_is_given(counts):
    words = counts.copy()
    words.layers["words"] = np.full(counts.shape, "a", dtype=object)
    for data, kwargs in [
        (counts[:0].copy(), {}),
        (counts, {"layer": "no"}),
        (counts, {"batch_key": "no"}),
        (words, {"layer": "words"}),
        ("not data", {}),
    ]:
        report = sczoo.doctor(data, **kwargs)
        assert isinstance(report, DoctorReport)
        assert not report.ok


def test_silent_cells_genes_and_rare_categories_are_warnings(counts):
    matrix = counts.X.toarray()
    matrix[:4] = 0
    matrix[:, :3] = 0
    counts.X = sparse.csr_matrix(matrix)
    empty = int((matrix.sum(1) == 0).sum())
    silent = int((matrix.sum(0) == 0).sum())
    counts.obs["cell_type"] = pd.Categorical(["rare"] * 3 + ["common"] * 147)
    report = sczoo.doctor(counts, labels_key="cell_type")
    assert report.ok
    text = "\n".join(f.message for f in report.findings if f.level == "warning")
    assert f"{empty} cell(s) have no expressed gene" in text
    assert f"{silent} gene(s) are zero in every cell" in text
    assert "'rare'" in text


def test_the_scale_decides(counts):
    counts.X = counts.X.multiply(0.5).tocsr()
    assert not sczoo.doctor(counts).ok
    assert sczoo.doctor(counts, scale="nonnegative").ok


def test_the_report_is_a_table_and_a_text(counts):
    report = sczoo.doctor(counts, batch_key="no_column")
    frame = report.to_frame()
    assert list(frame.columns) == ["level", "where", "message", "remedy"]
    assert len(frame) == len(report.findings) == len(str(report).splitlines())


def test_counts_where_log_values_are_meant():
    import sczoo

    adata = sczoo.datasets.simulated_cohort(n_cells=20, n_genes=10)
    report = sczoo.doctor(adata, scale="log1p")
    assert not report.ok
    assert "look like counts" in str(report)


def test_a_view_is_examined_and_left_a_view(counts):
    view = counts[: counts.n_obs // 2]
    report = sczoo.doctor(view)
    assert view.is_view
    assert report.ok
    assert [f.level for f in report.findings if f.where == "adata"] == ["warning"]
    assert "adata.copy()" in str(report)
    real = [f for f in report.findings if f.where != "adata"]
    assert real == sczoo.doctor(view.copy()).findings
