"""``sczoo audit`` and the plot of its report."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sczoo import pl
from sczoo.cli import app
from sczoo.errors import InputError
from sczoo.privacy import audit
from sczoo.testing._cells import example_cells


@pytest.fixture
def files(tmp_path):
    cells = example_cells(200, seed=3)
    parts = {"members": cells[:100], "others": cells[100:], "synthetic": cells[:60]}
    for name, part in parts.items():
        part.copy().write_h5ad(tmp_path / f"{name}.h5ad")
    return tmp_path


def _run(files, *arguments):
    places = ["--members", str(files / "members.h5ad"), "--others", str(files / "others.h5ad")]
    return CliRunner().invoke(app, ["audit", *arguments, *places])


def test_synthetic_cells_are_audited_from_a_shell(files):
    out = files / "report.json"
    result = _run(files, str(files / "synthetic.h5ad"), "-o", str(out), "--random-split")
    assert result.exit_code == 0, result.output
    assert "chance" in result.output
    report = json.loads(out.read_text())
    assert report["attacks"]["synthetic cell"]["auc"] > 0.7
    assert report["bounds"]["synthetic cell"]["epsilon"] > 0.5


def test_a_saved_model_is_audited_from_a_shell(files):
    from sczoo.model import DPDCAN

    cells = example_cells(200, seed=3)
    DPDCAN.setup_anndata(cells)
    model = DPDCAN(cells, n_latent=5)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    model.save(files / "model")
    result = _run(files, str(files / "model"))
    assert result.exit_code == 0, result.output
    # without coins nothing was put to the test
    assert "not tested" in result.output
    result = _run(files, str(files / "model"), "--random-split")
    assert result.exit_code == 0, result.output
    assert "not contradicted" in result.output


def test_a_missing_file_is_named(files):
    result = _run(files, str(files / "nowhere.h5ad"))
    assert result.exit_code != 0
    assert "nowhere.h5ad" in str(result.exception)


def test_the_plot_shows_every_attack_and_chance(files):
    cells = example_cells(200, seed=3)
    report = audit(
        cells[:60].copy(), cells[:100].copy(), cells[100:].copy(), epsilon=1.0, delta=1e-5
    )
    axes = pl.audit(report, show=False)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["cells: synthetic cells"]
    lines = [line.get_xdata()[0] for line in axes.lines]
    assert 0.5 in lines
    assert report.auc_bound in lines
    with pytest.raises(InputError, match=r"privacy\.audit"):
        pl.audit("no report")
