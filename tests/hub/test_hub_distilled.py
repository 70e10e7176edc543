"""Distilled cells travel like models: saved, published, verified, loaded, applied."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from typer.testing import CliRunner

import sczoo
from sczoo import hub
from sczoo.errors import (
    ArtefactError,
    EmptyDataError,
    GeneOverlapError,
    InputError,
    ReleaseGateError,
)
from sczoo.model.scdd import DistilledClassifier, save_dataset, select_cells
from sczoo.testing._cells import example_cells

ALLOW = ("categories:cell_type",)


@pytest.fixture
def small():
    return select_cells(example_cells(300), "pseudobulk", 6, labels_key="cell_type")


@pytest.fixture
def published(small, tmp_path, card):
    card = copy.deepcopy(card)
    del card["summary"]
    registry = tmp_path / "registry"
    hub.publish(small, "scdd/toy", registry=registry, card=card, allow=ALLOW)
    return registry


def test_published_verified_loaded(small, published):
    entry = hub.show("scdd/toy:1", published)
    assert entry.kind == "dataset"
    assert entry.training.n_cells == 300
    assert "cells of 4 classes distilled from 300" in entry.summary
    assert any("not anonymous" in limit for limit in entry.limits)
    assert "not anonymous" in hub.card_text("scdd/toy:1", published)
    assert hub.verify("scdd/toy:1", registry=published).ok
    loaded = sczoo.load("scdd/toy", registry=published)
    np.testing.assert_array_equal(loaded.X.toarray(), small.X.toarray())
    assert loaded.X.dtype == np.float32
    assert list(loaded.obs["cell_type"]) == list(small.obs["cell_type"])
    assert loaded.obs["is_synthetic"].all()
    assert not loaded.obsm
    assert not loaded.layers or list(loaded.layers) == [None]
    assert "not anonymous" in loaded.uns["scdd"]["notice"]


def test_labels_leave_only_by_name(small, tmp_path, card):
    with pytest.raises(ReleaseGateError, match="categories:cell_type"):
        hub.publish(small, "scdd/toy", registry=tmp_path / "registry", card=card)


def test_real_cells_are_not_published_by_accident(tmp_path, card):
    real = select_cells(example_cells(300), "random", 6, labels_key="cell_type")
    with pytest.raises(ArtefactError, match="24 of the 24 cells are real"):
        hub.publish(real, "scdd/toy", registry=tmp_path / "registry", card=card, allow=ALLOW)
    folder = save_dataset(real, tmp_path / "chosen", allow_real_cells=True)
    # and even then no barcode leaves
    assert "BARCODE" not in str(list(sczoo.load(folder).obs_names))
    with pytest.raises(InputError, match="only distilled sets"):
        hub.publish(example_cells(50), "scdd/toy", registry=tmp_path / "registry", card=card)


def test_a_new_patient_is_annotated_in_one_call(published):
    patient = example_cells(120, seed=7)
    truth = patient.obs["cell_type"].astype(str).to_numpy()
    patient = patient[:, ::-1].copy()
    before = patient.X.copy()
    result = sczoo.transfer("scdd/toy", patient, registry=published)
    assert "obs['scdd_label']" in result.keys
    assert (patient.obs["scdd_label"].astype(str).to_numpy() == truth).mean() > 0.9
    assert patient.obs["scdd_confidence"].between(0, 1).all()
    assert (patient.X != before).nnz == 0
    assert patient.uns["sczoo"]["scdd"]["classifier"] == "lr"


@pytest.mark.parametrize("classifier", ["knn", "rf", "mlp"])
def test_other_classifiers(small, classifier):
    patient = example_cells(80, seed=7)
    sczoo.transfer(small, patient, classifier=classifier)
    same = patient.obs["scdd_label"].astype(str) == patient.obs["cell_type"].astype(str)
    assert same.mean() > 0.85


def test_missing_genes_are_left_out_of_the_classifier(small):
    patient = example_cells(120, seed=7)
    truth = patient.obs["cell_type"].astype(str).to_numpy()
    fewer = patient[:, 6:].copy()
    sczoo.transfer(small, fewer)
    assert (fewer.obs["scdd_label"].astype(str).to_numpy() == truth).mean() > 0.9
    far = patient[:, 40:].copy()
    with pytest.raises(GeneOverlapError):
        sczoo.transfer(small, far)
    assert "scdd_label" not in far.obs
    sczoo.transfer(small, far, min_coverage=0.2)
    assert "scdd_label" in far.obs


def test_layers_and_wrong_values(small):
    patient = example_cells(60, seed=7)
    patient.layers["raw"] = patient.X.copy()
    patient.X = patient.X.log1p()
    with pytest.raises(InputError, match="whole number"):
        sczoo.transfer(small, patient)
    sczoo.transfer(small, patient, layer="raw")
    assert "scdd_label" in patient.obs


def test_clumsy_calls(small, toy_class):
    with pytest.raises(InputError, match="'svm'"):
        sczoo.transfer(small, example_cells(60), classifier="svm")
    with pytest.raises(InputError, match="not a distilled set"):
        DistilledClassifier(example_cells(60))
    with pytest.raises(EmptyDataError, match="no cells"):
        sczoo.transfer(small, example_cells(60)[:0].copy())
    with pytest.raises(InputError, match="seed"):
        DistilledClassifier(small, seed=-1)
    with pytest.raises(InputError, match="order is"):
        sczoo.transfer(example_cells(60), small)
    with pytest.raises(InputError, match=r"uns\['scdd'\]"):
        save_dataset(example_cells(60), "nowhere")


def test_the_same_model_twice_in_bytes(small, tmp_path):
    first = save_dataset(small, tmp_path / "a")
    with pytest.raises(ArtefactError, match="exists"):
        save_dataset(small, first)
    save_dataset(small, first, overwrite=True)
    document = hub.inspect(first, allow=ALLOW)
    assert document.ok


def test_apply_on_the_command_line(published, tmp_path):
    from anndata import read_h5ad

    from sczoo.cli import app

    patient = example_cells(80, seed=7)
    patient.write_h5ad(tmp_path / "patient.h5ad")
    result = CliRunner().invoke(
        app,
        [
            "apply",
            "scdd/toy",
            str(tmp_path / "patient.h5ad"),
            "-o",
            str(tmp_path / "out.h5ad"),
            "--report",
            str(tmp_path / "report.html"),
            "--registry",
            str(published),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "scdd_label" in read_h5ad(tmp_path / "out.h5ad").obs
    assert "distilled cells" in (tmp_path / "report.html").read_text()
