"""The command line, as a person types it."""

from __future__ import annotations

import subprocess
import sys

import anndata
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from sczoo.cli import app
from sczoo.errors import ArtefactError, InputError, MissingKeyError, UnknownArtefactError

runner = CliRunner()

CARD = {
    "summary": "Topics of a simulated cohort",
    "licence": {"weights": "CC0-1.0", "data": "CC0-1.0"},
    "training": {
        "data": [{"name": "simulated cohort, seed 0", "access": "synthetic"}],
        "n_donors": 3,
        "split": "no split: every cell was trained on",
        "command": "sczoo train sce2tm cohort.h5ad",
    },
    "metrics": "not applicable: a simulated cohort has nothing to predict",
    "input": {"species": "homo_sapiens"},
    "limits": ["Simulated cells only."],
    "out_of_scope": ["Any use on real patients."],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def cohort(folder):
    import sczoo

    adata = sczoo.datasets.simulated_cohort(n_donors=3, n_cells=300, n_genes=60, seed=0)
    path = folder / "cohort.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model(folder, cohort):
    """Train through the command line."""
    out = folder / "model"
    result = runner.invoke(
        app,
        [
            "train",
            "sce2tm",
            str(cohort),
            "-o",
            str(out),
            "--max-epochs",
            "2",
            "--set",
            "n_topics=5",
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return out


def _sczoo(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from sczoo.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_help_names_every_command():
    text = _sczoo("--help").stdout
    for command in "demo list show pull verify train apply publish doctor".split():
        assert command in text


def test_version():
    import sczoo

    assert _sczoo("--version").stdout.strip() == f"sczoo {sczoo.__version__}"


def test_an_error_is_one_line_and_status_one():
    done = _sczoo("show", "nobody/nothing")
    assert done.returncode == 1
    assert "UnknownArtefactError" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_names_are_typed_errors():
    result = runner.invoke(app, ["pull", "nobody/nothing"])
    assert isinstance(result.exception, UnknownArtefactError)


def test_doctor_passes_and_fails(cohort, folder):
    import anndata

    assert runner.invoke(app, ["doctor", str(cohort), "--batch-key", "donor"]).exit_code == 0
    bad = anndata.read_h5ad(cohort)
    bad.X.data[0] = np.nan
    bad.write_h5ad(folder / "bad.h5ad")
    result = runner.invoke(app, ["doctor", str(folder / "bad.h5ad")])
    assert result.exit_code == 1
    assert "not a finite number" in " ".join(result.output.split())


def test_a_damaged_file_is_a_typed_error(cohort, folder):
    damaged = folder / "damaged.h5ad"
    damaged.write_bytes(cohort.read_bytes()[:1000])
    result = runner.invoke(app, ["doctor", str(damaged)])
    assert isinstance(result.exception, InputError)
    assert "damaged.h5ad" in str(result.exception)


def test_train_saves_a_model_that_loads(model):
    import sczoo

    assert sczoo.load(model).module.n_topics == 5


def test_train_does_not_overwrite(model, cohort):
    result = runner.invoke(app, ["train", "sce2tm", str(cohort), "-o", str(model)])
    assert isinstance(result.exception, ArtefactError)


def test_train_names_a_missing_layer(cohort, folder):
    result = runner.invoke(
        app, ["train", "sce2tm", str(cohort), "-o", str(folder / "x"), "--layer", "counts"]
    )
    assert isinstance(result.exception, MissingKeyError)
    assert not (folder / "x").exists()


def test_apply_writes_results_and_a_report(model, cohort, folder):
    import anndata

    out, report = folder / "out.h5ad", folder / "out.html"
    arguments = ["apply", str(model), str(cohort), "-o", str(out), "--report", str(report)]
    result = runner.invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    written = anndata.read_h5ad(out)
    assert written.obsm["X_sce2tm"].shape == (300, 5)
    assert written.uns["sczoo"]["sce2tm"]["genes"]["coverage"] == 1.0
    html = report.read_text()
    assert "60 of 60 genes matched" in html
    assert "data:image/png;base64," in html
    assert isinstance(runner.invoke(app, arguments).exception, InputError)  # no overwriting


def test_apply_refuses_another_panel(model, folder):
    import sczoo

    other = sczoo.datasets.simulated_cohort(n_cells=50, n_genes=60, seed=1)
    other.var_names = [f"OTHER{i}" for i in range(60)]
    other.write_h5ad(folder / "other.h5ad")
    out = folder / "refused.h5ad"
    result = runner.invoke(app, ["apply", str(model), str(folder / "other.h5ad"), "-o", str(out)])
    assert type(result.exception).__name__ == "GeneOverlapError"
    assert not out.exists()


def test_publish_list_show_pull_verify_apply(model, cohort, folder):
    card, registry = folder / "card.yaml", str(folder / "registry")
    card.write_text(yaml.safe_dump(CARD))
    name = "sce2tm/simulated"
    published = runner.invoke(
        app,
        ["publish", str(model), name, "-r", registry, "--card", str(card)],
        catch_exceptions=False,
    )
    assert f"{name}:1" in published.output
    for command in ("list", "show", "pull", "verify"):
        arguments = [command, "sce2tm/*" if command == "list" else name, "-r", registry]
        result = runner.invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        if command != "pull":
            assert "simulated" in result.output
    out = folder / "by_name.h5ad"
    result = runner.invoke(
        app,
        ["apply", f"{name}:1", str(cohort), "-o", str(out), "-r", registry],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert out.exists()


def test_train_takes_further_columns_for_the_setup(cohort, folder):
    # a guarantee for donors, from a shell
    cells = anndata.read_h5ad(cohort)
    cells.obs["patient"] = [f"p{i % 40}" for i in range(cells.n_obs)]
    data = folder / "donors.h5ad"
    cells.write_h5ad(data)
    out = folder / "donors"
    arguments = ["train", "dpdcan", str(data), "-o", str(out), "--max-epochs", "1"]
    result = runner.invoke(app, [*arguments, "--setup", "donor_key=patient"])
    assert result.exit_code == 0, result.output
    import sczoo

    assert sczoo.load(out).get_privacy_report()["unit"] == "donor"
    result = runner.invoke(app, [*arguments, "--overwrite", "--setup", "donor=patient"])
    assert result.exit_code != 0
    assert "donor_key" in result.output


def test_train_names_a_wrong_argument(cohort, folder):
    arguments = ["train", "sce2tm", str(cohort), "-o", str(folder / "y"), "--set", "n_topic=5"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "n_topics" in result.output


def test_a_place_that_cannot_be_written_is_refused_before_the_work(model, cohort, folder):
    inside = str(cohort / "x")
    for arguments in (
        ["train", "sce2tm", str(cohort), "-o", inside],
        ["apply", str(model), str(cohort), "-o", inside],
        ["apply", str(model), str(cohort), "-o", str(folder / "z.h5ad"), "--report", inside],
    ):
        result = runner.invoke(app, arguments)
        assert isinstance(result.exception, InputError)
        assert "cannot be written" in str(result.exception)
    assert not (folder / "z.h5ad").exists()


def test_output_and_report_must_differ(model, cohort, folder):
    same = str(folder / "same")
    result = runner.invoke(app, ["apply", str(model), str(cohort), "-o", same, "--report", same])
    assert isinstance(result.exception, InputError)


def test_an_interrupted_training_is_saved_but_replaces_nothing(cohort, folder, monkeypatch):
    import sczoo

    train = sczoo.model.SCE2TM.train

    def interrupted(self, *args, **kwargs):
        train(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(sczoo.model.SCE2TM, "train", interrupted)
    out = folder / "interrupted"
    arguments = ["train", "sce2tm", str(cohort), "-o", str(out), "--max-epochs", "1"]
    arguments += ["--set", "n_topics=5"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 130
    assert sczoo.load(out).is_trained_
    before = (out / "manifest.json").read_bytes()
    result = runner.invoke(app, [*arguments, "--overwrite", "--seed", "1"])
    assert result.exit_code == 130
    assert (out / "manifest.json").read_bytes() == before


def test_a_patients_file_keeps_the_users_umask(tmp_path):
    import os

    import sczoo
    from sczoo.report.patient import write_h5ad

    before = os.umask(0o077)
    try:
        write_h5ad(sczoo.datasets.simulated_cohort(n_cells=20, n_genes=10), tmp_path / "a.h5ad")
    finally:
        os.umask(before)
    assert (tmp_path / "a.h5ad").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5ad"]


@pytest.mark.filterwarnings("ignore:Forward slashes")
def test_names_with_a_slash_survive(tmp_path):
    import anndata as ad

    import sczoo
    from sczoo.report.patient import write_h5ad

    adata = sczoo.datasets.simulated_cohort(n_cells=20, n_genes=10)
    adata.obs["CD4+/CD8+"] = range(20)
    path = write_h5ad(adata, tmp_path / "a.h5ad")
    assert list(ad.read_h5ad(path).obs["CD4+/CD8+"]) == list(range(20))
