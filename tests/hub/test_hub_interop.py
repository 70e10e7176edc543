"""Every model of the zoo and scvi-tools' own format, hub and tuner."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest
import torch
from scvi import hub as scvi_hub
from scvi.hub._constants import _SCVI_HUB
from small_models import KEYS, SMALL, make, taken

import sczoo
from sczoo import hub, model
from sczoo.errors import ArtefactError, NotTrainedError
from sczoo.hub import _scvi, scvi_classes
from sczoo.testing import example_cells


def test_every_class_is_here():
    assert set(SMALL) == set(model._INDEX)


@pytest.fixture(scope="module", params=sorted(SMALL))
def trained(request):
    return make(request.param)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return hub.to_scvi(trained, tmp_path_factory.mktemp("interop") / "scvi")


def test_hub_model_reads_every_class(trained, exported):
    name, found = type(trained).__name__, type(trained)
    query = example_cells(48, seed=5, scale=found._input_scale)
    expected = trained._main_result(query)
    wrapped = scvi_hub.HubModel(str(exported))
    assert wrapped.metadata.model_cls_name == name
    wrapped.load_model(adata=False)
    np.testing.assert_allclose(wrapped.model._main_result(query), expected, atol=1e-5)
    # data are attached where they are given, also with a batch that the model never saw
    query.obs["batch"] = "a batch of another hospital"
    expected = trained._main_result(query)
    wrapped.load_model(adata=query)
    assert type(wrapped.model) is found
    assert wrapped.model.adata is query
    assert wrapped.model.is_trained_
    np.testing.assert_allclose(wrapped.model._main_result(), expected, atol=1e-5)
    # what scvi-tools' format has no place for came along
    assert wrapped.model.domain == trained.domain
    assert wrapped.model._alternative_genes == trained._alternative_genes
    assert wrapped.model.provenance_ == trained.provenance_


def test_nothing_of_single_cells_is_exported(trained, exported):
    saved = torch.load(exported / "model.pt", weights_only=False)
    for name in ("history_", "train_indices_", "validation_indices_", "test_indices_"):
        assert saved["attr_dict"].get(name) is None
    n_cells = trained.adata.n_obs
    shapes = [tuple(v.shape) for v in saved["model_state_dict"].values() if hasattr(v, "shape")]
    assert not [shape for shape in shapes if n_cells in shape]
    for path in exported.iterdir():
        assert b"BARCODE" not in path.read_bytes(), path.name


def test_saved_again_after_the_round_trip(trained, exported, tmp_path):
    again = scvi_classes.__getattr__(type(trained).__name__).load(str(exported), adata=False)
    again.save(tmp_path / "zoo")
    query = example_cells(16, seed=6, scale=trained._input_scale)
    loaded = type(trained).load(tmp_path / "zoo")
    np.testing.assert_allclose(loaded._main_result(query), trained._main_result(query), atol=1e-5)


def test_metadata_is_what_scvi_tools_itself_would_write(trained, exported):
    stated = json.loads((exported / _scvi.METADATA_FILE).read_text())
    made = scvi_hub.HubMetadata.from_dir(
        str(exported),
        anndata_version=anndata.__version__,
        model_parent_module="sczoo.hub.scvi_classes",
    )
    assert stated == vars(made)


def test_the_names_of_scvi_tools_files():
    assert _scvi.METADATA_FILE == _SCVI_HUB.METADATA_FILE_NAME
    assert _scvi.CARD_FILE == _SCVI_HUB.MODEL_CARD_FILE_NAME


def test_the_zoo_does_not_read_the_pickle(exported, trained):
    with pytest.raises(ArtefactError):
        type(trained).load(exported)
    with pytest.raises(ArtefactError):
        hub.load(exported)


def test_a_card_of_ones_own_and_clumsy_calls(trained, tmp_path):
    hub.to_scvi(trained, tmp_path / "out", card="# My card\n")
    assert scvi_hub.HubModel(str(tmp_path / "out")).model_card.text.strip() == "# My card"
    with pytest.raises(ArtefactError, match="overwrite=True"):
        hub.to_scvi(trained, tmp_path / "out")
    found = type(trained)
    cells = example_cells(scale=found._input_scale)
    found.setup_anndata(cells, **taken(found.setup_anndata, KEYS))
    with pytest.raises(NotTrainedError):
        hub.to_scvi(found(cells, **SMALL[found.__name__][0]), tmp_path / "untrained")


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="os"):
        scvi_classes.__getattr__("os")


def test_mudata_in_and_out(trained, tmp_path):
    from mudata import MuData, read_h5mu

    found, name = type(trained), type(trained).__name__
    other = anndata.AnnData(np.ones((example_cells().n_obs, 3), dtype=np.float32))
    other.obs_names, other.var_names = example_cells().obs_names, ["P1", "P2", "P3"]
    data = MuData({"rna": example_cells(scale=found._input_scale), "protein": other})
    keys = taken(found.setup_mudata, KEYS)
    places = {"layer": "rna", **dict.fromkeys(keys, "rna")}
    found.setup_mudata(data, **keys, modalities=places)
    arguments, training = SMALL[name]
    made = found(data, **arguments)
    made.train(**taken(found.train, {"max_epochs": 1, "batch_size": 64}), **training)
    result = sczoo.transfer(made, data)
    assert result.keys
    data.write(tmp_path / "out.h5mu")
    again = read_h5mu(tmp_path / "out.h5mu")
    for key in result.keys:
        place, column = key.rstrip("]").split("[")
        written = getattr(again, place)[column.strip("'")]
        expected = getattr(data, place)[column.strip("'")]
        assert len(written) == data.n_obs
        assert (
            np.asarray(written).astype(str).tolist() == np.asarray(expected).astype(str).tolist()
        )
    # the same artefact as any other
    made.save(tmp_path / "zoo")
    query = example_cells(24, seed=9, scale=found._input_scale)
    del query.obs["batch"]  # whose names are not saved
    np.testing.assert_allclose(
        found.load(tmp_path / "zoo")._main_result(query), made._main_result(query), atol=1e-5
    )
