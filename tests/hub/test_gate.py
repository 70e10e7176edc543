"""The release gate, planted with what must not leave: it finds each, and lets a clean one pass."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sczoo import hub
from sczoo.base._artefact import encode_typed
from sczoo.base._selftest import selftest_cells
from sczoo.errors import ReleaseGateError

N_CELLS = 777  # what the artefact of conftest records


def codes(report):
    return {finding.code for finding in report.findings}


class Module:
    def __init__(self, **shapes):
        self.shapes = {"weight": (20, 3), **shapes}

    def state_dict(self):
        return {name: np.zeros(shape) for name, shape in self.shapes.items()}


class Model:
    """A model with its training data still at hand."""

    def __init__(self, adata=None):
        self.adata = adata
        self.module = Module()
        self.train_indices_ = np.arange(150)
        self.validation_indices_ = np.arange(50)


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    adata = AnnData(np.zeros((200, 20), dtype=np.float32))
    adata.obs_names = [f"P{i % 4}-well-{i}" for i in range(200)]
    adata.obs["patient"] = pd.Categorical([f"Haugen-{i % 4}" for i in range(200)])
    adata.obs["plate"] = [f"plate{i % 3}" for i in range(200)]
    adata.obs["number"] = 100 + np.arange(200) % 4
    adata.obs["cell_type"] = pd.Categorical(
        ["pDC" if i < 6 else ["T cell", "B cell"][i % 2] for i in range(200)]
    )
    adata.obs["score"] = rng.normal(size=200)
    return Model(adata)


def test_clean_artefact_passes(artefact, model):
    report = hub.inspect(artefact, model)
    assert report.findings == ()
    assert report.ok
    assert report.per_cell_content == "none"
    assert report.per_donor_content == "none"
    assert report.compared_with_data
    assert not any("NOT" in line for line in report.checked)


def test_what_could_not_be_checked_is_said(artefact):
    report = hub.inspect(artefact)
    assert report.ok
    assert not report.compared_with_data
    assert sum("NOT checked" in line for line in report.checked) == 2


BARCODES = [f"AAACATACAACC{a}{b}-1" for a in "ACGT" for b in "ACGT"]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"attributes": {"names": BARCODES}}, "barcodes:names"),
        ({"attributes": {"first": "AAACATACAACCAC-1"}}, "barcodes:first"),
        ({"attributes": {"of": {"sample1_AAACATACAACCAC-1": 0.5}}}, "barcodes:of"),
        ({"provenance": {"note": "worst: AAACATACAACCACTG-1, rest ok"}}, "barcodes:note"),
        ({"init_params": {"anchors": BARCODES[:3]}}, "barcodes:anchors"),
        ({"setup": {"args": {"x": BARCODES[0]}}}, "barcodes:x"),
        (
            {"scvi_registry": encode_typed({"a": np.array(BARCODES, dtype=object)})},
            "barcodes:a",
        ),
    ],
)
def test_barcodes_by_their_look(tmp_path, save, record, code):
    report = hub.inspect(save(tmp_path / "a", **record))
    assert code in codes(report)
    assert report.per_cell_content == ["barcodes or other names of cells", *(
        report.per_cell_content[1:]
    )]  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        {"attributes": {"names": ["P1-well-5"]}},
        {"provenance": {"note": "see cell P1-well-5."}},
        {"domain": {"P1-well-5": 0.3}},
    ],
)
def test_names_of_cells_by_comparison(tmp_path, save, model, record):
    folder = save(tmp_path / "a", **record)
    assert any(code.startswith("barcodes:") for code in codes(hub.inspect(folder, model)))
    if "note" in str(record):  # without the data nothing tells that this is a cell
        assert hub.inspect(folder).ok


def test_names_of_cells_among_tensor_names(tmp_path, save):
    folder = save(tmp_path / "a", tensors={"AAACATACAACCAC-1": np.zeros(3)})
    assert "barcodes:weights" in codes(hub.inspect(folder))


def test_row_numbers_are_not_names(tmp_path, save, model):
    model.adata.obs_names = [str(i) for i in range(200)]
    folder = save(tmp_path / "a", provenance={"seed": 17, "note": "epoch 17 of 20"})
    assert hub.inspect(folder, model).ok


def registry_with(values, key="patient"):
    field = {
        "data_registry": {"attr_name": "obs", "attr_key": "_scvi_batch"},
        "state_registry": {"categorical_mapping": np.asarray(values), "original_key": key},
        "summary_stats": {"n_batch": len(values)},
    }
    return {"scvi_registry": encode_typed({"field_registries": {"batch": field}})}


@pytest.mark.parametrize(
    ("record", "code", "about"),
    [
        (registry_with(["S1", "S2"]), "categories:patient", "donor"),
        (registry_with([101, 107]), "categories:patient", "donor"),
        (registry_with(["T", "B"], "cell_type"), "categories:cell_type", "other"),
        ({"attributes": {"classes_": ["T", "B"]}}, "categories:classes_", "other"),
        ({"provenance": {"held_out_donors": ["x"]}}, "donors:held_out_donors", "donor"),
        ({"provenance": {"loss_per_patient": {"a": 1.5}}}, "donors:loss_per_patient", "donor"),
        ({"attributes": {"donor_means": {"a": [1, 2]}}}, "donors:donor_means", "donor"),
        ({"init_params": {"sample_weights": [1.5, 2]}}, "donors:sample_weights", "donor"),
        ({"init_params": {"class_names": ["T", "B"]}}, "categories:class_names", "other"),
    ],
)
def test_categories_and_donors_by_their_keys(tmp_path, save, record, code, about):
    report = hub.inspect(save(tmp_path / "a", **record))
    assert code in codes(report)
    assert {f.about for f in report.findings if f.code == code} == {about}
    if about == "donor":
        assert report.per_donor_content != "none"


@pytest.mark.parametrize(
    "record",
    [
        registry_with(["category_0", "category_1"]),
        registry_with([0], "_scvi_batch"),
        {"setup": {"args": {"donor_key": "patient", "batch_key": "sample"}}},
        {"provenance": {"n_donors": 4, "n_samples": 8, "versions": {"torch": "2.13"}}},
        {"attributes": {"alternative_genes": [f"ENSG{i}" for i in range(20)]}},
        {"init_params": {"layers": [64, 32], "activation": "relu"}},
        {"domain": {"quantiles": [0.05, 0.5, 0.95], "total_per_cell": [1.0, 2.0, 3.0]}},
    ],
)
def test_what_is_not_personal_passes(tmp_path, save, record):
    assert hub.inspect(save(tmp_path / "a", **record)).findings == ()


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"init_params": {"keep": ["Haugen-1"]}}, "categories:patient"),
        ({"provenance": {"note": "without Haugen-3, who moved"}}, "categories:patient"),
        ({"domain": {"Haugen-0": 1.0}}, "categories:patient"),
        ({"init_params": {"order": ["plate0"]}}, "categories:plate"),
        ({"domain": {"T cell": 1.0, "B cell": 2.0}}, "categories:cell_type"),
        ({"provenance": {"codes": ["101", "102"]}}, "categories:number"),
    ],
)
def test_values_of_the_data_under_innocent_names(tmp_path, save, model, record, code):
    folder = save(tmp_path / "a", **record)
    assert code in codes(hub.inspect(folder, model))
    assert hub.inspect(folder).ok  # only the comparison can tell


@pytest.mark.parametrize(
    ("contents", "code"),
    [
        ({"tensors": {"codes": np.zeros(N_CELLS)}}, "percell:codes"),
        ({"tensors": {"codes": np.zeros((2, N_CELLS))}}, "percell:codes"),
        ({"tensors": {"train_indices": np.arange(9)}}, "percell:train_indices"),
        ({"tensors": {"queue.labels": np.arange(9)}}, "percell:queue.labels"),
        ({"tensors": {"reference_embeddings": np.ones((3, 2))}}, "percell:reference_embeddings"),
        ({"attributes": {"weights": [0.5] * N_CELLS}}, "percell:weights"),
        ({"attributes": encode_typed({"a": np.zeros((N_CELLS, 2))})}, "percell:a"),
        ({"attributes": {"validation_indices_": [3, 5, 8]}}, "percell:validation_indices_"),
        ({"attributes": {"labels": [0, 1, 1]}}, "percell:labels"),
    ],
)
def test_per_cell_arrays(tmp_path, save, contents, code):
    report = hub.inspect(save(tmp_path / "a", **contents))
    assert code in codes(report)
    assert report.per_cell_content != "none"


def test_per_cell_arrays_by_the_lengths_of_the_data(tmp_path, save, model):
    for length in (200, 150, 50):  # all cells, those of training, those of validation
        folder = save(tmp_path / "a", tensors={"innocent": np.zeros((length, 2))})
        assert "percell:innocent" in codes(hub.inspect(folder, model))


@pytest.mark.parametrize(
    "record",
    [
        {"attributes": {"history": {"train_loss": [3.0, 2.0]}}},
        {"attributes": {"history_": [1, 2]}},
        {"provenance": {"train_loss_epoch": [3.0, 2.0]}},
        {"provenance": {"elbo_validation": [3.0]}},
        {"provenance": {"loss_curve": [3.0, 2.0]}},
    ],
)
def test_training_history(tmp_path, save, record):
    assert "history" in codes(hub.inspect(save(tmp_path / "a", **record)))


def test_history_among_tensors(tmp_path, save):
    folder = save(tmp_path / "a", tensors={"train_loss": np.zeros(5)})
    assert "history" in codes(hub.inspect(folder))


def test_another_models_parameters(tmp_path, save, model):
    folder = save(tmp_path / "a", tensors={"decoder.other": np.zeros((4, 4))})
    assert codes(hub.inspect(folder, model)) == {"parameters:decoder.other"}
    assert codes(hub.inspect(folder, expected_parameters={"weight": (20, 3)})) == {
        "parameters:decoder.other"
    }
    builder = lambda: {"weight": (20, 3), "decoder.other": (4, 4)}
    assert hub.inspect(folder, model, expected_parameters=builder).ok


def test_parameters_of_another_shape(artefact, model):
    model.module = Module(weight=(20, 7))
    assert codes(hub.inspect(artefact, model)) == {"parameters:weight"}


@pytest.mark.parametrize(
    "contents",
    [
        {"tensors": {"pyro_param_store.loc": np.zeros(3)}},
        {"attributes": {"pyro_param_store": {"params": {}}}},
    ],
)
def test_pyro_parameter_store(tmp_path, save, contents):
    assert "pyro-param-store" in codes(hub.inspect(save(tmp_path / "a", **contents)))


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"provenance": {"n_cells_per_class": {"a": 500, "b": 3}}}, "rare:n_cells_per_class"),
        ({"attributes": {"category_counts": [500, 9]}}, "rare:category_counts"),
        ({"domain": {"composition": [400.0, 2.0]}}, "rare:composition"),
    ],
)
def test_rare_categories(tmp_path, save, record, code):
    assert code in codes(hub.inspect(save(tmp_path / "a", **record)))


def test_common_categories_may_be_counted(tmp_path, save):
    folder = save(tmp_path / "a", provenance={"n_cells_per_class": {"a": 500, "b": 10, "c": 0}})
    assert hub.inspect(folder).ok


def test_rare_categories_by_comparison(tmp_path, save, model):
    """Six cells are plasmacytoid: even their class name points at few people."""
    folder = save(tmp_path / "a", attributes={"classes_": ["pDC", "T cell", "B cell"]})
    report = hub.inspect(folder, model, allow=("categories:classes_", "categories:cell_type"))
    assert codes(report) == {"rare:cell_type"}
    folder = save(tmp_path / "a", domain={"pDC": 6.0, "T cell": 97.0})
    assert {"categories:cell_type", "rare:cell_type", "rare:domain"} <= codes(
        hub.inspect(folder, model)
    )


def test_unlisted_files(artefact):
    (artefact / "obs.csv").write_text("barcode\n")
    (artefact / "more").mkdir()
    assert codes(hub.inspect(artefact)) == {"unlisted:obs.csv", "unlisted:more"}


@pytest.mark.parametrize("scale", ["counts", "log1p"])
def test_selftest_cells_must_be_the_synthetic_ones(tmp_path, save, scale):
    assert hub.inspect(save(tmp_path / "clean", scale=scale)).ok
    real = selftest_cells(20, scale).copy()
    real[3, 4] += 1
    assert codes(hub.inspect(save(tmp_path / "a", selftest=real, scale=scale))) == {"selftest"}
    assert codes(hub.inspect(save(tmp_path / "b", selftest=None))) == {"selftest"}


def test_allowing_by_name(tmp_path, save):
    folder = save(
        tmp_path / "a", attributes={"classes_": ["T", "B"]}, provenance={"held_out_donors": ["x"]}
    )
    report = hub.inspect(folder, allow=("categories:classes_",))
    assert codes(report) == {"donors:held_out_donors"}
    with pytest.raises(ReleaseGateError, match="donors:held_out_donors"):
        report.raise_for_findings()
    report = hub.inspect(folder, allow=("categories:classes_", "donors:held_out_donors"))
    report.raise_for_findings()
    # what was allowed is still told
    assert report.per_donor_content == ["values per donor (held_out_donors)"]
    assert len(report.allowed) == 2


def test_allowing_is_exact(tmp_path, save):
    folder = save(tmp_path / "a", attributes={"classes_": ["T", "B"]})
    for wrong in ("categories:*", "categories", "*", "categories:classes"):
        assert not hub.inspect(folder, allow=(wrong,)).ok


def test_findings_do_not_repeat_the_personal_values(tmp_path, save, model):
    folder = save(
        tmp_path / "a",
        attributes={"kept": ["Haugen-1"], "cells": BARCODES},
        domain={"Haugen-0": 1.0},
    )
    report = hub.inspect(folder, model)
    with pytest.raises(ReleaseGateError) as error:
        report.raise_for_findings()
    assert "AAACATACAACC" not in str(error.value)
    assert "Haugen-1" not in str(error.value)


@pytest.fixture
def dataset(tmp_path):
    from sczoo.base._artefact import ArtefactRecord, InputContract, genes_sha256, write_artefact

    def build(adata):
        path = tmp_path / "data.h5ad"
        adata.write_h5ad(path)
        ids = list(adata.var_names)
        record = ArtefactRecord(
            kind="dataset",
            method="toy",
            input=InputContract(
                n_genes=len(ids), genes_sha256=genes_sha256(ids), scale="counts", min_coverage=0.8
            ),
            provenance={"n_cells": N_CELLS},
        )
        return write_artefact(
            tmp_path / "dataset",
            record,
            tensors=None,
            genes=[{"id": name} for name in ids],
            extra_files={"data.h5ad": path.read_bytes()},
            overwrite=True,
        )

    return build


def distilled(n=10):
    adata = AnnData(np.ones((n, 5), dtype=np.float32))
    adata.obs_names = [f"synthetic{i}" for i in range(n)]
    return adata


def test_distilled_cells(dataset):
    assert hub.inspect(dataset(distilled())).ok
    adata = distilled()
    adata.obs["donor"] = ["d1"] * 10
    adata.obs["cell_type"] = ["T"] * 10
    adata.uns["neighbours"] = {"a": 1}
    report = hub.inspect(dataset(adata))
    assert codes(report) == {"categories:donor", "categories:cell_type", "extra:neighbours"}
    adata = distilled(N_CELLS)
    adata.obs_names = [f"{i}_AAACATACAACCAC" for i in range(N_CELLS)]
    assert codes(hub.inspect(dataset(adata))) == {"barcodes:data.h5ad", "percell:data.h5ad"}


def test_distilled_cells_open_by_folder(dataset):
    import sczoo

    adata = sczoo.load(dataset(distilled()))
    assert adata.n_obs == 10
    assert hub.verify(dataset(distilled())).ok
