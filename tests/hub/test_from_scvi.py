"""Models of scvi-tools, converted: only on word, to the same numbers, then the zoo's own."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
import scvi
import torch

import sczoo
from sczoo import hub
from sczoo.errors import ArtefactError, GeneOverlapError, InputError, ReleaseGateError
from sczoo.testing import example_cells

QUIET = {
    "max_epochs": 1,
    "enable_progress_bar": False,
    "logger": False,
    "accelerator": "cpu",
    "devices": 1,
}


def scvi_model():
    cells = example_cells()
    scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
    model = scvi.model.SCVI(cells, n_hidden=16, n_latent=4)
    model.train(**QUIET)
    return model


def scanvi_model():
    cells = example_cells()
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str)
    cells.obs.iloc[:20, cells.obs.columns.get_loc("cell_type")] = "not labelled"
    scvi.model.SCANVI.setup_anndata(
        cells, labels_key="cell_type", unlabeled_category="not labelled", batch_key="batch"
    )
    model = scvi.model.SCANVI(cells, n_hidden=16, n_latent=4)
    model.train(**QUIET)
    return model


@pytest.fixture(scope="module", params=["SCVI", "SCANVI"])
def original(request):
    return scvi_model() if request.param == "SCVI" else scanvi_model()


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scvi") / "model"
    original.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def imported(saved):
    return hub.from_scvi(saved, example_cells(), trust_pickle=True)


# --- only on word -----------------------------------------------------------------------------


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("trust", [False, None, 1, "True"])
def test_nothing_is_unpickled_without_the_word(tmp_path, trust):
    torch.save({"attr_dict": Bomb(str(tmp_path / "ran"))}, tmp_path / "model.pt")
    with pytest.raises(ArtefactError, match="trust_pickle=True"):
        hub.from_scvi(tmp_path, trust_pickle=trust)
    assert not (tmp_path / "ran").exists()


def test_the_word_cannot_be_given_by_position(saved):
    with pytest.raises(TypeError):
        hub.from_scvi(saved, None, True)


def test_loading_does_not_fall_back_to_the_pickle(saved):
    for call in (hub.load, sczoo.transfer):
        with pytest.raises(ArtefactError):
            call(saved, example_cells())


# --- the same model ---------------------------------------------------------------------------


def test_the_same_numbers(original, imported):
    cells = original.adata
    np.testing.assert_allclose(
        imported.get_latent_representation(example_cells()),
        original.get_latent_representation(cells),
        atol=1e-5,
    )
    if hasattr(original, "predict"):
        soft = original.predict(cells, soft=True)
        ours = imported.predict(example_cells(), soft=True)
        assert list(ours.columns) == [str(name) for name in soft.columns]
        np.testing.assert_allclose(ours.to_numpy(), soft.to_numpy(), atol=1e-5)
        assert list(imported.predict(example_cells())) == list(original.predict(cells))
        assert "not labelled" not in imported.label_names


def test_genes_are_matched_by_name(imported):
    query = example_cells(32, seed=4)
    expected = imported.get_latent_representation(query)
    order = np.random.default_rng(0).permutation(query.n_vars)
    np.testing.assert_allclose(
        imported.get_latent_representation(query[:, order].copy()), expected, atol=1e-6
    )
    with pytest.raises(GeneOverlapError):
        imported.get_latent_representation(query[:, :20].copy())


def test_saved_without_pickle_and_loaded(imported, tmp_path):
    imported.save(tmp_path / "zoo", include_categories=["cell_type"])
    assert {path.suffix for path in (tmp_path / "zoo").iterdir()} <= {
        ".json",
        ".safetensors",
        ".tsv",
        ".md",
    }
    loaded = hub.load(tmp_path / "zoo")
    query = example_cells(32, seed=4)
    np.testing.assert_allclose(
        loaded.get_latent_representation(query),
        imported.get_latent_representation(query),
        atol=1e-6,
    )
    if hasattr(imported, "predict"):
        assert list(loaded.predict(query)) == list(imported.predict(query))
    for path in (tmp_path / "zoo").iterdir():
        content = path.read_bytes()
        assert b"Musterfrau" not in content
        assert b"of-hospital" not in content
        assert b"BARCODE" not in content


def test_published_and_transferred(imported, card, tmp_path):
    card["training"] |= {"seed": 0}
    name = f"{imported._method}/example"
    registry = tmp_path / "registry"
    if hasattr(imported, "predict"):
        imported.save(tmp_path / "named", include_categories=["cell_type"])
        with pytest.raises(ReleaseGateError, match="cell_type"):
            hub.publish(tmp_path / "named", name, registry=registry, card=card)
    hub.publish(imported, name, registry=registry, card=card, allow=["categories:cell_type"])
    assert hub.verify(name, registry=registry).ok
    query = example_cells(40, seed=8)
    del query.obs["batch"], query.obs["cell_type"]
    result = sczoo.transfer(name, query, registry=registry)
    key = f"X_{imported._method}"
    np.testing.assert_allclose(
        query.obsm[key], imported.get_latent_representation(query), atol=1e-5
    )
    assert result.share_outside is not None
    if hasattr(imported, "predict"):
        assert query.obs["scanvi_label"].str.startswith("celltype-").all()


def test_through_scvi_hub_and_back(imported, tmp_path):
    hub.to_scvi(imported, tmp_path / "out")
    from scvi.hub import HubModel

    wrapped = HubModel(str(tmp_path / "out"))
    wrapped.load_model(adata=False)
    query = example_cells(16, seed=3)
    np.testing.assert_allclose(
        wrapped.model.get_latent_representation(query),
        imported.get_latent_representation(query),
        atol=1e-5,
    )


def test_nothing_of_single_cells_comes_along(original, imported):
    assert not getattr(imported, "history_", None)
    assert getattr(imported, "train_indices_", None) is None
    assert getattr(imported, "labels_", None) is None
    assert imported.provenance_["n_cells"] == len(original.train_indices)
    assert imported.provenance_["versions"]["scvi-tools"] == scvi.__version__


def test_without_data_there_is_no_domain(saved):
    bare = hub.from_scvi(str(saved), trust_pickle=True)
    assert bare.domain == {}
    query = example_cells(16, seed=3)
    assert sczoo.transfer(bare, query).share_outside is None


# --- clumsy calls -----------------------------------------------------------------------------


def test_what_is_not_a_model_of_scvi_tools(saved, tmp_path):
    with pytest.raises(ArtefactError, match="does not exist"):
        hub.from_scvi(tmp_path / "nowhere", trust_pickle=True)
    (tmp_path / "model.pt").write_bytes((saved / "model.pt").read_bytes()[:-200])
    with pytest.raises(ArtefactError, match="cannot be read"):
        hub.from_scvi(tmp_path, trust_pickle=True)
    (tmp_path / "model.pt").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ArtefactError, match="cannot be read"):
        hub.from_scvi(tmp_path, trust_pickle=True)


def change(saved, folder, edit):
    content = torch.load(saved / "model.pt", weights_only=False)
    edit(content)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    torch.save(content, folder / "model.pt")
    return folder


def parameters(content):
    return content["attr_dict"]["init_params_"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["attr_dict"]["registry_"].update(model_name="TOTALVI"), "TOTALVI"),
        (lambda c: c["attr_dict"].update(is_trained_=False), "never trained"),
        (lambda c: parameters(c)["non_kwargs"].update(n_hidden=17), "does not fit"),
        (lambda c: parameters(c).update(kwargs={"k": {"encode_covariates": True}}), "batches"),
        (lambda c: parameters(c)["non_kwargs"].update(latent_distribution="ln"), "not normal"),
        (lambda c: c.update(var_names={"rna": ["A"]}), "MuData"),
        (lambda c: c["attr_dict"]["registry_"].pop("field_registries"), "does not fit"),
    ],
)
def test_models_that_cannot_be_converted(saved, tmp_path, edit, message):
    with pytest.raises(ArtefactError, match=message):
        hub.from_scvi(change(saved, tmp_path / "changed", edit), trust_pickle=True)


def test_other_data_and_training(saved, imported):
    with pytest.raises(InputError, match="differ"):
        hub.from_scvi(saved, example_cells()[:, ::-1].copy(), trust_pickle=True)
    with pytest.raises(InputError, match="scvi-tools"):
        imported.train()


@pytest.mark.parametrize(
    "arguments", [{"use_observed_lib_size": False}, {"dispersion": "gene-batch"}]
)
def test_other_architectures(tmp_path, arguments):
    cells = example_cells()
    cells.obs["depth"] = np.arange(cells.n_obs) / cells.n_obs
    scvi.model.SCVI.setup_anndata(
        cells,
        batch_key="batch",
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["depth"],
    )
    model = scvi.model.SCVI(cells, n_hidden=8, n_latent=3, **arguments)
    model.train(**QUIET)
    model.save(str(tmp_path / "m"))
    found = hub.from_scvi(tmp_path / "m", trust_pickle=True)
    np.testing.assert_allclose(
        found.get_latent_representation(example_cells()),
        model.get_latent_representation(),
        atol=1e-5,
    )
