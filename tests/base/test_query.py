from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mudata import MuData
from scipy import sparse

from sczoo import errors
from sczoo.testing._snapshot import Snapshot

STORAGES = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda m: m.toarray()}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    adata = AnnData(sparse.csr_matrix(rng.poisson(1.5, size=(90, 20)).astype(np.float32)))
    adata.var_names = [f"GENE{i}" for i in range(20)]
    adata.obs_names = [f"cell{i}" for i in range(90)]
    adata.obs["batch"] = pd.Categorical(np.where(np.arange(90) % 3, "donor_b", "donor_a"))
    return adata


@pytest.fixture(scope="module")
def model(toy_class, data):
    adata = data.copy()
    toy_class.setup_anndata(adata, batch_key="batch")
    trained = toy_class(adata)
    trained.train(max_epochs=1)
    return trained


def read(model, adata=None, indices=None, batch_size=None, **kwargs):
    return list(model._iter_batches(adata, indices, batch_size, **kwargs))


def matrix_read(model, *args, **kwargs):
    return np.concatenate([batch["X"].numpy() for batch in read(model, *args, **kwargs)])


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(
    rows=st.lists(st.integers(0, 89), min_size=1, max_size=120),
    batch_size=st.integers(1, 130),
    order=st.permutations(range(20)),
    kind=st.sampled_from(["csr", "csc", "dense"]),
)
def test_the_values_are_those_of_the_rows_and_genes_asked_for(
    model, data, rows, batch_size, order, kind
):
    query = data[:, order].copy()
    query.X = STORAGES[kind](query.X)
    batches = read(model, query, rows, batch_size)
    assert all(len(batch["X"]) <= batch_size for batch in batches)
    assert all(batch["X"].dtype == torch.float32 for batch in batches)
    found = np.concatenate([batch["X"].numpy() for batch in batches])
    np.testing.assert_array_equal(found, data.X.toarray()[rows])


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_a_file_is_read_in_the_order_of_indices(model, data, kind, tmp_path):
    stored = data.copy()
    stored.X = {
        "csr": sparse.csr_matrix,
        "csc": sparse.csc_matrix,
        "dense": lambda m: m.toarray(),
    }[kind](stored.X)
    stored.write_h5ad(tmp_path / "query.h5ad")
    backed = anndata.read_h5ad(tmp_path / "query.h5ad", backed="r")
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = rng.integers(90, size=rng.integers(1, 150))
        np.testing.assert_array_equal(matrix_read(model, backed, rows), data.X.toarray()[rows])
    backed.file.close()


def test_blocks_larger_than_one_read_are_joined_in_order(model, data, monkeypatch):
    monkeypatch.setattr("sczoo.base._reading.iter_row_blocks.__defaults__", (None, None, 13))
    rows = np.random.default_rng(1).permutation(90)
    np.testing.assert_array_equal(matrix_read(model, data, rows), data.X.toarray()[rows])


def test_absent_genes_are_zero_and_masked(model, data):
    query = data[:, 3:].copy()
    batch = read(model, query)[0]
    np.testing.assert_array_equal(batch["gene_mask"].numpy(), np.arange(20) >= 3)
    assert not batch["X"][:, :3].any()


def test_a_prepared_query_keeps_its_mask(model, data):
    prepared = model.prepare_query_anndata(data[:, 3:].copy(), model)
    batch = read(model, prepared)[0]
    np.testing.assert_array_equal(batch["gene_mask"].numpy(), np.arange(20) >= 3)


def test_a_query_prepared_for_another_model_is_still_checked(model, data):
    """The mark of a preparation must not switch off the check of the genes."""
    strange = data.copy()
    strange.var_names = [f"OTHER{i}" for i in range(20)]
    strange.var["in_query"] = True
    strange.uns["sczoo"] = {"alignment": {}}
    with pytest.raises(errors.GeneOverlapError):
        read(model, strange)


def test_an_annotated_query_is_still_checked(model, data):
    query = data.copy()
    model.annotate(query)
    query.var["in_query"] = True
    few = query[:, :5].copy()
    with pytest.raises(errors.GeneOverlapError):
        read(model, few)


def test_categories_have_the_models_codes(model, data):
    query = data[:6].copy()
    query.obs["batch"] = ["donor_b", "donor_a", "nobody", None, "donor_a", "donor_b"]
    codes = read(model, query, registry_keys=("batch",))[0]["batch"]
    assert codes.shape == (6, 1)
    assert codes[:, 0].tolist() == [1, 0, -1, -1, 0, 1]
    del query.obs["batch"]
    codes = read(model, query, registry_keys=("batch",))[0]["batch"]
    assert codes[:, 0].tolist() == [-1] * 6
    codes = read(model, data, indices=[5, 3], registry_keys=("batch",))[0]["batch"]
    assert codes[:, 0].tolist() == [1, 0]


def test_nothing_is_asked_of_no_rows(model, data):
    assert read(model, data, indices=[]) == []
    assert model.get_latent_representation(data, indices=[]).shape[0] == 0


@pytest.mark.parametrize("where", [0, 57, 89])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.nan, errors.NotFiniteError),
        (-1.0, errors.NegativeValuesError),
        (0.5, errors.NotCountsError),
    ],
)
def test_bad_values_are_named_as_in_the_query(model, data, value, error, where):
    query = data[:, ::-1].copy()
    query.obs_names = [f"mine{i}" for i in range(90)]
    matrix = query.X.toarray()
    matrix[where, 4] = value  # GENE15 there
    query.X = matrix
    before = Snapshot(query)
    with pytest.raises(error, match="GENE15") as raised:
        read(model, query, batch_size=8)
    assert f"'mine{where}'" in str(raised.value)
    with pytest.raises(error):
        model.annotate(query)
    before.require_unchanged("a refused query")


def test_bad_values_in_rows_and_genes_not_asked_for_do_not_matter(model, data):
    query = AnnData(
        np.hstack([data.X.toarray(), np.full((90, 1), np.nan)]),
        obs=data.obs.copy(),
        var=pd.DataFrame(index=[*data.var_names, "UNUSED"]),
    )
    query.X[7, 3] = np.nan
    np.testing.assert_array_equal(
        matrix_read(model, query, np.arange(8, 90)), data.X.toarray()[8:]
    )


def test_duplicate_genes_that_the_model_does_not_use_do_not_matter(model, data):
    query = AnnData(
        np.hstack([data.X.toarray(), np.ones((90, 2), dtype=np.float32)]),
        var=pd.DataFrame(index=[*data.var_names, "UNUSED", "UNUSED"]),
    )
    np.testing.assert_array_equal(matrix_read(model, query), data.X.toarray())
    query.var_names = [*data.var_names, "GENE3", "UNUSED"]
    with pytest.raises(errors.DuplicateGenesError, match="GENE3"):
        read(model, query)


def test_a_missing_layer_is_named_with_the_remedy(toy_class, data):
    adata = data.copy()
    adata.layers["counts"] = adata.X.copy()
    toy_class.setup_anndata(adata, layer="counts")
    trained = toy_class(adata)
    trained.train(max_epochs=1)
    with pytest.raises(errors.MissingKeyError, match="'counts'"):
        read(trained, data.copy())
    prepared = toy_class.prepare_query_anndata
    with pytest.raises(errors.MissingKeyError, match="'counts'"):
        prepared(data.copy(), trained)
    elsewhere = data.copy()
    elsewhere.layers["raw"] = elsewhere.X.copy()
    ready = prepared(elsewhere, trained, layer="raw")
    np.testing.assert_array_equal(matrix_read(trained, ready), data.X.toarray())


def test_annotate_writes_what_it_says(model, data):
    query = data.copy()
    written = model.annotate(query, key_added="mine")
    assert set(written) == {"obsm['X_mine']"}
    np.testing.assert_array_equal(
        query.obsm["X_mine"], model.get_latent_representation(data.copy())
    )
    record = query.uns["sczoo"]["mine"]
    assert record["genes"]["n_matched"] == 20
    assert record["method"] == "toy"
    model.annotate(query)
    assert set(query.uns["sczoo"]) == {"mine", "toy"}


def test_an_annotated_query_can_be_written_and_read(model, data, tmp_path):
    query = data.copy()
    model.annotate(query)
    query.write_h5ad(tmp_path / "annotated.h5ad")
    again = anndata.read_h5ad(tmp_path / "annotated.h5ad")
    np.testing.assert_array_equal(again.obsm["X_toy"], query.obsm["X_toy"])
    assert again.uns["sczoo"]["toy"]["genes"]["coverage"] == 1.0


@pytest.mark.parametrize("thing", ["a path", 3, np.ones((3, 20))])
def test_what_is_not_annotated_data_is_refused(model, thing):
    with pytest.raises(errors.InputError, match="AnnData"):
        read(model, thing)


def test_a_mudata_without_modalities_in_the_model_is_refused(model, data):
    with pytest.raises(errors.MissingKeyError, match="modality"):
        read(model, MuData({"rna": data.copy()}))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_without_cells_is_refused(model, data, batch_size):
    with pytest.raises(errors.InputError, match="batch_size"):
        read(model, data, batch_size=batch_size)


def test_annotate_does_not_write_over_foreign_records(model, data):
    query = data.copy()
    query.uns["sczoo"] = "my notes"
    before = Snapshot(query)
    with pytest.raises(errors.InputError, match="holds a str"):
        model.annotate(query)
    before.require_unchanged("annotate")


def test_counts_are_refused_by_a_model_of_log_values(toy_class, data):
    class LogToy(toy_class):
        _input_scale = "log1p"

    logged = data.copy()
    logged.X = np.log1p(logged.X * 0.7)
    LogToy.setup_anndata(logged)
    model = LogToy(logged)
    model.train(max_epochs=1)
    assert model.get_latent_representation(logged).shape == (90, 4)
    for bad in (data.X, data.X * 10.5):  # counts, and counts that were scaled but not logged
        query = data.copy()
        query.X = bad
        with pytest.raises(errors.NotLogNormalisedError, match=r"adata\.X must hold log"):
            model.get_latent_representation(query)
