"""One test for each name of scvi-tools that sczoo leans on."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import scvi
import torch
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField

from sczoo import _compat
from sczoo.errors import InputError


@pytest.fixture
def registered(toy_class, counts):
    toy_class.setup_anndata(counts, batch_key="batch")
    return counts


@pytest.fixture
def registry(toy_class, registered):
    return toy_class(registered).registry_


def test_field_registries(registry):
    assert set(registry[_compat.FIELD_REGISTRIES]) == {"X", "batch"}


def test_state_registry(registry):
    state = registry[_compat.FIELD_REGISTRIES]["X"][_compat.STATE_REGISTRY]
    assert list(state["column_names"]) == [f"GENE{i}" for i in range(40)]
    state = registry[_compat.FIELD_REGISTRIES]["batch"][_compat.STATE_REGISTRY]
    assert list(state["categorical_mapping"]) == ["donor_a", "donor_b"]
    assert state["original_key"] == "batch"


def test_summary_stats(registry):
    stats = registry[_compat.FIELD_REGISTRIES]["X"][_compat.SUMMARY_STATS]
    assert stats["n_vars"] == 40


def test_data_registry(registry):
    data = registry[_compat.FIELD_REGISTRIES]["X"][_compat.DATA_REGISTRY]
    assert data["attr_name"] == "X"


def test_setup_args(registry):
    assert registry[_compat.SETUP_ARGS] == {"layer": None, "batch_key": "batch"}


def test_setup_method(registry):
    assert registry[_compat.SETUP_METHOD] == "setup_anndata"


def test_model_name(registry):
    assert registry[_compat.MODEL_NAME] == "ToyModel"


def test_scvi_version(registry):
    assert registry[_compat.SCVI_VERSION] == scvi.__version__


def test_scvi_uuid_and_manager_uuid(registered):
    assert isinstance(registered.uns[_compat.SCVI_UUID], str)
    assert isinstance(registered.uns[_compat.MANAGER_UUID], str)


def test_setup_traces_are_all_that_registering_leaves(toy_class, counts):
    columns, entries = set(counts.obs.columns), set(counts.uns)
    toy_class.setup_anndata(counts, batch_key="batch")
    assert set(counts.obs.columns) - columns <= set(_compat.SETUP_TRACES_OBS)
    assert set(counts.uns) - entries == set(_compat.SETUP_TRACES_UNS)


def test_setup_method_args(toy_class, counts):
    found = _compat.setup_method_args(
        {"cls": toy_class, "adata": counts, "layer": "a", "batch_key": None, "kwargs": {}}
    )
    assert found[_compat.MODEL_NAME] == "ToyModel"
    assert found[_compat.SETUP_METHOD] == "setup_anndata"
    assert found[_compat.SETUP_ARGS] == {"layer": "a", "batch_key": None}


def test_init_params_and_flat_init_params(toy_class, registered):
    model = toy_class(registered, n_latent=3)
    assert model.init_params_ == _compat.init_params(
        model, {"self": model, "adata": registered, "registry": None, "n_latent": 3}
    )
    assert _compat.flat_init_params(model.init_params_) == {"n_latent": 3}
    both = {"non_kwargs": {"a": 1}, "kwargs": {"model_kwargs": {"b": 2}}}
    assert _compat.flat_init_params(both) == {"a": 1, "b": 2}
    assert _compat.flat_init_params({}) == {}


def test_attach_and_latest_manager(toy_class, registered):
    model = toy_class(registry=toy_class(registered).registry_)
    assert model.adata is None
    manager = _compat.latest_manager(toy_class, registered)
    assert isinstance(manager, AnnDataManager)
    assert manager.adata is registered
    _compat.attach(model, registered, manager)
    assert model.adata is registered
    assert model.adata_manager is manager
    assert model.get_anndata_manager(registered) is manager


def test_latest_manager_of_data_that_were_not_set_up(toy_class, counts):
    with pytest.raises(ValueError, match="setup_anndata"):
        _compat.latest_manager(toy_class, counts)


def test_data_loader(toy_class, registered):
    """All cells, in order, the last minibatch short; of data that were not set up too."""
    model = toy_class(registered)
    for adata in (registered, registered[::-1].copy()):
        batches = [batch["X"].numpy() for batch in _compat.data_loader(model, adata, 32)]
        assert {len(batch) for batch in batches[:-1]} == {32}
        np.testing.assert_array_equal(np.concatenate(batches), adata.X.toarray())


def test_forget_setup_and_managers_held(toy_class, counts):
    gc.collect()  # models of other tests
    held = _compat.managers_held(toy_class)
    toy_class.setup_anndata(counts)
    assert _compat.managers_held(toy_class) == held + 1
    _compat.forget_setup(toy_class, counts)
    assert _compat.managers_held(toy_class) == held
    _compat.forget_setup(toy_class, counts)  # a second time is harmless


def test_forget_with_model(toy_class, counts):
    gc.collect()  # models of other tests
    toy_class.setup_anndata(counts)
    held = _compat.managers_held(toy_class)
    model = toy_class(counts)
    assert _compat.managers_held(toy_class) == held + 1
    del model
    gc.collect()
    assert _compat.managers_held(toy_class) == held


def test_resolve_device():
    assert _compat.resolve_device("cpu", "auto") == torch.device("cpu")
    assert isinstance(_compat.resolve_device("auto", "auto"), torch.device)


def test_modality_names(toy_class):
    found = _compat.modality_names(
        toy_class,
        {"layer": "rna"},
        {_compat.SETUP_ARGS: {"layer": None, "batch_key": None, "modalities": None}},
    )
    assert found.layer == "rna"
    assert found.batch_key is None


def test_random_split_is_that_of_scvi_tools(counts):
    """The zoo's splitter repeats scvi-tools' own split when the seed is set."""
    from scvi.dataloaders import DataSplitter

    from sczoo.base import ZooDataSplitter

    manager = AnnDataManager([LayerField("X", None)], setup_method_args={})
    manager.register_fields(counts)
    scvi.settings.seed = 5
    ours, theirs = (
        cls(manager, train_size=0.7, batch_size=32) for cls in (ZooDataSplitter, DataSplitter)
    )
    ours.setup()
    theirs.setup()
    np.testing.assert_array_equal(ours.train_idx, theirs.train_idx)
    np.testing.assert_array_equal(ours.val_idx, theirs.val_idx)


@pytest.mark.parametrize(
    ("accelerator", "device"), [("gpu9", "auto"), ("tpu", "auto"), ("cpu", "first"), ("cpu", 0)]
)
def test_a_device_that_is_not_there_is_refused_by_name(accelerator, device):
    with pytest.raises(InputError, match=f"accelerator='{accelerator}'.*accelerator='cpu'"):
        _compat.resolve_device(accelerator, device)
    with pytest.raises(InputError, match=f"accelerator='{accelerator}'.*accelerator='cpu'"):
        _compat.check_devices(accelerator, device)


def test_devices_that_are_there():
    assert _compat.resolve_device("cpu", 1).type == "cpu"
    for accelerator, devices in (("auto", "auto"), ("cpu", 2), ("cpu", "auto"), ("auto", 1)):
        _compat.check_devices(accelerator, devices)
