from __future__ import annotations

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from mudata import MuData
from scipy import sparse

from sczoo import errors
from sczoo.base import read_artefact
from sczoo.base._persistence import run_selftest
from sczoo.testing._snapshot import Snapshot


@pytest.fixture
def model(toy_class, counts):
    toy_class.setup_anndata(counts, batch_key="batch")
    trained = toy_class(counts)
    trained.train(max_epochs=1)
    return trained


def weights(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# --- set-up -----------------------------------------------------------------------------------


def test_a_refused_setup_leaves_an_earlier_one_in_force(toy_class, counts):
    toy_class.setup_anndata(counts, batch_key="batch")
    before = Snapshot(counts)
    counts.layers["bad"] = -counts.X
    del before.content  # the layer is new
    before = Snapshot(counts)
    with pytest.raises(errors.NegativeValuesError):
        toy_class.setup_anndata(counts, layer="bad")
    before.require_unchanged("a refused set-up")
    toy_class(counts).train(max_epochs=1)


def test_a_setup_that_fails_inside_scvi_tools_is_undone(toy_class, counts, tmp_path):
    """The second field fails after the first has written into the data."""
    from scvi.data.fields import CategoricalObsField, LayerField, NumericalObsField

    class Failing(toy_class):
        @classmethod
        def setup_anndata(cls, adata, *, batch_key=None, **kwargs):
            setup_locals = locals()
            fields = [
                LayerField("X", None),
                CategoricalObsField("batch", batch_key),
                NumericalObsField("size", "no_such_column"),
            ]
            cls._register(adata, fields, setup_locals, **kwargs)

    for prepared in (False, True):
        if prepared:  # codes of an earlier set-up must come back too
            toy_class.setup_anndata(counts, batch_key="batch")
        before = Snapshot(counts)
        with pytest.raises(KeyError):
            Failing.setup_anndata(counts, batch_key="cell_type")
        before.require_unchanged("a set-up that failed")


def test_the_class_needs_data_that_were_set_up(toy_class, counts):
    with pytest.raises(errors.InputError, match="setup_anndata"):
        toy_class()
    with pytest.raises(errors.InputError, match="setup_anndata"):
        toy_class(counts)


# --- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_epochs": 0},
        {"max_epochs": "a"},
        {"max_epochs": 2.5},
        {"batch_size": 1},
        {"batch_size": True},
        {"train_size": 2.0},
        {"train_size": "most"},
        {"validation_size": -0.1},
    ],
)
def test_impossible_training_arguments_are_refused(toy_class, counts, arguments):
    toy_class.setup_anndata(counts)
    with pytest.raises(errors.InputError, match=next(iter(arguments))):
        toy_class(counts).train(**arguments)


def test_one_cell_is_refused_before_training(toy_class, counts):
    one = counts[:1].copy()
    toy_class.setup_anndata(one)
    with pytest.raises(errors.TooFewCellsError, match="1 cell"):
        toy_class(one).train()


def test_training_again_lengthens_the_history(model):
    assert len(model.history["train_loss"]) == 1
    model.train(max_epochs=2)
    assert len(model.history["train_loss"]) == 3


def test_an_error_in_training_leaves_the_model_as_untrained(toy_class, counts):
    class Boom(Callback):
        def on_train_batch_end(self, *args, **kwargs):
            raise ZeroDivisionError

    toy_class.setup_anndata(counts)
    made = toy_class(counts)
    with pytest.raises(ZeroDivisionError):
        made.train(callbacks=[Boom()])
    assert not made.is_trained_
    with pytest.raises(errors.NotTrainedError):
        made.get_latent_representation()


def test_an_interrupt_before_the_first_step_leaves_the_model_untrained(toy_class, counts):
    class Stop(Callback):
        def on_train_start(self, *args, **kwargs):
            raise KeyboardInterrupt

    toy_class.setup_anndata(counts)
    made = toy_class(counts)
    with pytest.raises(KeyboardInterrupt):
        made.train(callbacks=[Stop()])
    assert not made.is_trained_


def test_the_weights_depend_on_the_seed_of_the_settings(toy_class, counts):
    def fit(seed):
        scvi.settings.seed = seed
        adata = counts.copy()
        toy_class.setup_anndata(adata)
        made = toy_class(adata)
        made.train(max_epochs=1)
        return weights(made)

    assert same(fit(1), fit(1))
    assert not same(fit(1), fit(2))


def test_provenance_counts_the_training_cells(toy_class, counts):
    toy_class.setup_anndata(counts)
    made = toy_class(counts)
    made.train(max_epochs=1, train_size=0.8)
    assert made.provenance_["n_cells"] == 120
    assert made.provenance_["arguments"]["train"]["train_size"] == 0.8
    assert made.provenance_["arguments"]["init"] == {"n_latent": 4}


def test_the_domain_holds_quantiles_of_the_data(model, counts):
    totals = np.asarray(counts.X.sum(1)).ravel()
    np.testing.assert_allclose(
        model.domain["total_per_cell"],
        np.quantile(totals, model.domain["quantiles"]),
        atol=1e-3,
    )


# --- save and load ----------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one(toy_class, model, counts, tmp_path):
    model.save(tmp_path / "model")
    loaded = toy_class.load(tmp_path / "model", accelerator="cpu")
    assert same(weights(model), weights(loaded))
    assert loaded.provenance_ == model.provenance_
    assert loaded.domain == model.domain
    np.testing.assert_array_equal(
        loaded.get_latent_representation(counts.copy()), model.get_latent_representation()
    )


def test_large_outputs_can_be_saved_and_tested(toy_class, model, tmp_path):
    with torch.no_grad():
        model.module.encoder.weight *= 1e5
    model.save(tmp_path / "model")
    loaded = toy_class.load(tmp_path / "model", accelerator="cpu")
    assert run_selftest(loaded, read_artefact(tmp_path / "model")) is not None
    with torch.no_grad():
        loaded.module.encoder.weight *= 1.01
    with pytest.raises(errors.SelfTestError):
        run_selftest(loaded, read_artefact(tmp_path / "model"))


def test_small_changes_of_small_outputs_are_seen(toy_class, model, tmp_path):
    with torch.no_grad():
        model.module.encoder.weight *= 1e-6
        model.module.encoder.bias *= 1e-6
    model.save(tmp_path / "model")
    loaded = toy_class.load(tmp_path / "model", accelerator="cpu")
    with torch.no_grad():
        loaded.module.encoder.weight *= 2
    with pytest.raises(errors.SelfTestError):
        run_selftest(loaded, read_artefact(tmp_path / "model"))


def test_other_genes_cannot_be_attached(toy_class, model, counts, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(errors.InputError, match="prepare_query_anndata"):
        toy_class.load(tmp_path / "model", adata=counts[:, ::-1].copy())


def test_a_model_of_another_method_is_refused(toy_class, model, tmp_path):
    class OtherModel(toy_class):
        _method = "other"

    model.save(tmp_path / "model")
    with pytest.raises(errors.ArtefactError, match="'toy'"):
        OtherModel.load(tmp_path / "model")


def test_arguments_that_json_cannot_hold_are_refused_at_saving(toy_class, counts, tmp_path):
    toy_class.setup_anndata(counts)
    made = toy_class(counts)
    made.train(max_epochs=1)
    made.init_params_["non_kwargs"]["n_latent"] = object()
    with pytest.raises(errors.ArtefactError, match="JSON"):
        made.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_backed_training_file_is_never_written(toy_class, counts, tmp_path):
    counts.write_h5ad(tmp_path / "a.h5ad")
    content = (tmp_path / "a.h5ad").read_bytes()
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    toy_class.setup_anndata(backed, batch_key="batch")
    made = toy_class(backed)
    made.train(max_epochs=1)
    made.save(tmp_path / "model")
    backed.file.close()
    assert (tmp_path / "a.h5ad").read_bytes() == content


# --- transfer ---------------------------------------------------------------------------------


def test_a_prepared_query_keeps_every_kind_of_obsm(model, counts):
    counts = counts.copy()
    counts.obsm["dense"] = np.arange(300.0).reshape(150, 2)
    counts.obsm["sparse"] = sparse.csr_matrix(np.eye(150, 4))
    counts.obsm["frame"] = pd.DataFrame({"a": range(150)}, index=counts.obs_names)
    prepared = model.prepare_query_anndata(counts, model)
    np.testing.assert_array_equal(prepared.obsm["dense"], counts.obsm["dense"])
    np.testing.assert_array_equal(prepared.obsm["sparse"].toarray(), np.eye(150, 4))
    assert list(prepared.obsm["frame"]["a"]) == list(range(150))


def test_a_prepared_query_shares_no_memory(toy_class, counts):
    counts.layers["counts"] = counts.X.copy()
    query = counts.copy()
    toy_class.setup_anndata(counts, layer="counts")
    made = toy_class(counts)
    made.train(max_epochs=1)
    expected = query.layers["counts"].toarray()
    prepared = made.prepare_query_anndata(query, made)
    prepared.X.data[:] = -1  # as an in-place normalisation would
    np.testing.assert_array_equal(prepared.layers["counts"].toarray(), expected)
    np.testing.assert_array_equal(query.layers["counts"].toarray(), expected)
    prepared.obs["batch"] = "changed"
    assert set(query.obs["batch"]) == {"donor_a", "donor_b"}


def test_a_folder_of_any_installed_method_prepares_a_query(toy_class, model, counts, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(errors.UnknownMethodError, match="toy"):
        toy_class.prepare_query_anndata(counts, tmp_path / "model")


def test_fine_tuning_changes_the_new_model_only(toy_class, model, counts):
    before = weights(model)
    tuned = toy_class.load_query_data(counts[:, ::-1].copy(), model, accelerator="cpu")
    assert same(before, weights(tuned))
    tuned.train(max_epochs=1)
    assert same(before, weights(model))
    assert not same(before, weights(tuned))


def test_an_untrained_model_cannot_be_fine_tuned(toy_class, counts):
    toy_class.setup_anndata(counts)
    with pytest.raises(errors.NotTrainedError):
        toy_class.load_query_data(counts.copy(), toy_class(counts))


def test_mudata_is_checked_before_it_is_registered(toy_class, counts):
    with pytest.raises(errors.InputError, match="MuData"):
        toy_class._modalities(counts, {"layer": "rna"}, {})
    with pytest.raises(errors.MissingKeyError, match="which modality"):
        toy_class._modalities(MuData({"rna": counts}), None, {})
    with pytest.raises(errors.MissingKeyError, match="'protein'"):
        toy_class._modalities(MuData({"rna": counts}), {"layer": "protein"}, {})


def test_the_library_is_silent(model, counts, caplog, capsys):
    with caplog.at_level(logging.WARNING, logger="sczoo"):
        model.get_latent_representation(counts.copy())
    assert caplog.text == ""
    assert capsys.readouterr().out == ""


def test_optional_knowledge_may_be_missing_in_a_query(toy_class, counts):
    class Guided(toy_class):
        _optional_setup_keys = ("batch_key", "knowledge_key")

        @classmethod
        def setup_anndata(cls, adata, *, batch_key=None, knowledge_key=None, **kwargs):
            from scvi.data.fields import CategoricalObsField, LayerField, ObsmField

            setup_locals = locals()
            cls._check_setup(adata, categorical_keys=[batch_key], obsm_keys=[knowledge_key])
            fields = [
                LayerField("X", None, is_count_data=False),
                CategoricalObsField("batch", batch_key),
            ]
            if knowledge_key is not None:
                fields.append(ObsmField("knowledge", knowledge_key))
            cls._register(adata, fields, setup_locals, **kwargs)

    query = counts.copy()
    del query.obs["batch"]
    counts.obsm["X_fm"] = np.random.default_rng(0).normal(size=(150, 3))
    Guided.setup_anndata(counts, batch_key="batch", knowledge_key="X_fm")
    model = Guided(counts)
    model.train(max_epochs=1)
    tuned = Guided.load_query_data(query, model, accelerator="cpu")
    tuned.train(max_epochs=1)
    assert tuned.get_latent_representation().shape == (150, 4)
    query.obsm["X_fm"] = np.full((150, 3), np.nan)
    with pytest.raises(errors.NotFiniteError, match="X_fm"):
        Guided.load_query_data(query, model, accelerator="cpu")
