"""``sczoo annotate`` from a shell, and the report about labels."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner

from sczoo.cli import app
from sczoo.errors import InputError, MissingKeyError
from sczoo.model.grit.scorers import marker_table

TYPES = ["B cell", "CD14 monocyte", "natural killer cell", "platelet"]


@pytest.fixture
def query(tmp_path):
    rng = np.random.default_rng(0)
    table = marker_table()
    genes = sorted({g for name in TYPES for g in table[name].genes["human"]})
    genes += [f"OTHER{n}" for n in range(40)]
    kind = np.repeat(np.arange(4), 40)
    rate = np.random.default_rng(9).gamma(1.0, 1.0, (4, len(genes)))
    rate[:, : len(genes) - 40] = 0.4
    for row, name in enumerate(TYPES):
        rate[row, [genes.index(g) for g in table[name].genes["human"]]] = 1.0
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate[kind]).astype(np.float32)))
    adata.var_names = genes
    adata.obs_names = [f"c{n}" for n in range(adata.n_obs)]
    adata.obs["<img src=x onerror=alert(1)>"] = pd.Categorical(np.asarray(TYPES)[kind])
    scores = np.eye(4)[kind] + rng.normal(0, 0.8, (160, 4))
    names = ["<b>a", "b", "c", "d"]
    adata.obsm["X_model"] = pd.DataFrame(scores, adata.obs_names, names)
    path = tmp_path / "query.h5ad"
    adata.write_h5ad(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["annotate", *map(str, arguments)])


def test_types_that_cannot_be_scored_are_named_once(query, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = run(query, "--tissue", "blood", "-o", tmp_path / "out.h5ad")
    assert done.exit_code == 0, done.output
    assert done.output.count("they get the label of another type") == 1
    assert not any("label of another type" in str(w.message) for w in caught)


def test_markers_to_labels_and_report(query, tmp_path):
    out, report = tmp_path / "out.h5ad", tmp_path / "r.html"
    content = query.read_bytes()
    chosen = [part for name in TYPES for part in ("--type", name)]
    truth = "<img src=x onerror=alert(1)>"
    done = run(query, "--report", report, "-o", out, "--truth", truth, *chosen)
    assert done.exit_code == 0, done.output
    assert "160 cells, 4 candidate types" in done.output
    adata = anndata.read_h5ad(out)
    right = adata.obs["grit_label"].astype(str) == adata.obs[truth].astype(str)
    before = adata.obs["grit_raw_label"].astype(str) == adata.obs[truth].astype(str)
    assert right.mean() > before.mean()
    assert not any(name.startswith("_scvi") for name in [*adata.obs, *adata.uns])
    page = report.read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert query.read_bytes() == content


def test_scores_of_another_model(query, tmp_path):
    report = tmp_path / "r.html"
    done = run(
        query, "--scorer", "precomputed", "--logits-key", "X_model", "--report", report,
        "--coverage", "0.5",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "unknown" in done.output
    assert "<b>a" not in report.read_text()
    assert "&lt;b&gt;a" in report.read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], InputError, "Nothing would be written"),
        (["--scorer", "other", "-o", "x.h5ad"], InputError, "other is not known"),
        (["--scorer", "precomputed", "-o", "x.h5ad"], InputError, "--logits-key"),
        (["--scorer", "langcell", "-o", "x.h5ad"], InputError, "--checkpoint"),
        (["--truth", "nothing", "-o", "x.h5ad"], MissingKeyError, "'nothing'"),
        (["--tissue", "moon", "-o", "x.h5ad"], InputError, "no tissue 'moon'"),
        (["-o", "x.h5ad", "--report", "x.h5ad"], InputError, "both name"),
    ],
)
def test_wrong_calls_are_refused_and_write_nothing(
    query, tmp_path, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(tmp_path)
    done = run(query, *arguments)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["query.h5ad"]


def test_existing_files_are_kept(query, tmp_path):
    out = tmp_path / "out.h5ad"
    out.write_text("precious")
    assert "exists already" in str(run(query, "-o", out).exception)
    assert "query itself" in str(run(query, "-o", query).exception)
    assert out.read_text() == "precious"
