from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from mudata import MuData
from scipy import sparse

from sczoo import errors
from sczoo.base import check_input
from sczoo.base._checks import scan_matrix
from sczoo.testing._snapshot import Snapshot

STORAGES = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "dense": np.array,
}


def first_in(matrix, bad):
    """Find the first bad place by looking at every value in reading order."""
    for row in range(matrix.shape[0]):
        for column in range(matrix.shape[1]):
            if bad(matrix[row, column]):
                return row, column
    return None


VALUES = st.sampled_from([0, 0, 0, 1, 2, 7, 0.5, -1, -0.5, np.nan, np.inf, -np.inf])


@st.composite
def matrices(draw):
    n_obs, n_vars = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    values = draw(st.lists(VALUES, min_size=n_obs * n_vars, max_size=n_obs * n_vars))
    return np.array(values, dtype=np.float32).reshape(n_obs, n_vars)


def require_scan(scan, matrix):
    place = lambda found: None if found is None else found[:2]
    assert place(scan.first_not_finite) == first_in(matrix, lambda v: not np.isfinite(v))
    assert place(scan.first_negative) == first_in(matrix, lambda v: v < 0)
    fraction = lambda v: np.isfinite(v) and v != np.floor(v)
    assert place(scan.first_fraction) == first_in(matrix, fraction)
    whole = np.isfinite(matrix).all() and (matrix >= 0).all() and (matrix % 1 == 0).all()
    assert scan.whole_numbers == whole
    np.testing.assert_array_equal(scan.cell_detected, (matrix != 0).sum(1))
    if np.isfinite(matrix).all():
        np.testing.assert_allclose(scan.cell_totals, matrix.sum(1), rtol=1e-6)
        np.testing.assert_allclose(scan.gene_totals, matrix.sum(0), rtol=1e-6)
        assert scan.maximum == max(0, matrix.max())


@pytest.mark.parametrize("storage", STORAGES)
@settings(deadline=None, max_examples=100)
@given(matrix=matrices())
def test_a_scan_finds_what_looking_at_every_value_finds(storage, matrix):
    require_scan(scan_matrix(AnnData(STORAGES[storage](matrix))), matrix)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_a_scan_of_a_file_finds_the_same(storage, tmp_path):
    rng = np.random.default_rng(1)
    matrix = rng.choice([0, 0, 0, 1, 3, 0.5, -1, np.nan], size=(50, 9)).astype(np.float32)
    AnnData(STORAGES[storage](matrix)).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    require_scan(scan_matrix(backed), matrix)
    backed.file.close()


def test_the_first_place_does_not_depend_on_the_order_within_a_sparse_row():
    unsorted = sparse.csr_matrix((3, 6), dtype=np.float32)
    unsorted.data = np.array([-1, -2, -3], dtype=np.float32)
    unsorted.indices = np.array([4, 1, 3], dtype=np.int32)
    unsorted.indptr = np.array([0, 0, 3, 3], dtype=np.int32)
    assert scan_matrix(AnnData(unsorted)).first_negative == (1, 1, -2.0)


def test_a_scan_sees_beyond_the_first_block(monkeypatch):
    monkeypatch.setattr("sczoo.base._reading.iter_row_blocks.__defaults__", (None, None, 7))
    matrix = np.ones((40, 3), dtype=np.float32)
    matrix[33, 2] = np.nan
    scan = scan_matrix(AnnData(sparse.csr_matrix(matrix)))
    assert scan.first_not_finite[:2] == (33, 2)
    np.testing.assert_array_equal(scan.cell_detected, 3)


def bad_data(value, storage, layer):
    rng = np.random.default_rng(0)
    matrix = rng.poisson(2.0, size=(30, 8)).astype(np.float64)
    good = matrix.copy()
    matrix[12, 5] = matrix[20, 0] = value
    adata = AnnData(STORAGES[storage](good if layer else matrix))
    if layer:
        adata.layers[layer] = STORAGES[storage](matrix)
    adata.obs_names = [f"cell{i}" for i in range(30)]
    adata.var_names = [f"GENE{i}" for i in range(8)]
    return adata


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.nan, errors.NotFiniteError),
        (np.inf, errors.NotFiniteError),
        (-np.inf, errors.NotFiniteError),
        (-2.0, errors.NegativeValuesError),
        (1.5, errors.NotCountsError),
    ],
)
def test_bad_values_are_named_and_the_data_untouched(value, error, storage, layer):
    adata = bad_data(value, storage, layer)
    before = Snapshot(adata)
    with pytest.raises(error) as raised:
        check_input(adata, layer=layer)
    message = str(raised.value)
    assert "'cell12'" in message
    assert "'GENE5'" in message
    assert ("adata.layers['counts']" if layer else "adata.X") in message
    before.require_unchanged("check_input")


@pytest.mark.parametrize(
    ("scale", "value", "accepted"),
    [
        ("counts", 3.0, True),
        ("counts", 0.5, False),
        ("nonnegative", 0.5, True),
        ("nonnegative", -0.5, False),
        ("log1p", 0.5, True),
        ("log1p", -0.5, False),
        ("any", -0.5, True),
        ("any", np.nan, False),
    ],
)
def test_the_scale_decides_what_is_accepted(scale, value, accepted):
    adata = bad_data(value, "csr", None)
    if accepted:
        check_input(adata, scale=scale)
    else:
        with pytest.raises(errors.InputError):
            check_input(adata, scale=scale)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, bool, np.float32, np.float64])
@pytest.mark.parametrize("storage", ["csr", "dense"])
def test_every_numeric_type_of_counts_is_accepted(dtype, storage):
    matrix = (np.arange(12).reshape(4, 3) % 2).astype(dtype)
    scan = check_input(AnnData(STORAGES[storage](matrix)))
    np.testing.assert_array_equal(scan.cell_totals, matrix.sum(1))


def test_totals_of_small_integer_types_do_not_overflow():
    matrix = np.full((2, 50), 60000, dtype=np.uint16)
    for storage in ("csr", "dense"):
        scan = scan_matrix(AnnData(STORAGES[storage](matrix)))
        np.testing.assert_array_equal(scan.cell_totals, 50 * 60000)
        np.testing.assert_array_equal(scan.gene_totals, 2 * 60000)


def test_the_remedy_points_to_the_layer_with_the_counts(counts):
    counts.layers["raw_counts"] = counts.X.copy()
    counts.X = counts.X.multiply(0.37).tocsr()
    with pytest.raises(errors.NotCountsError, match="layer='raw_counts'"):
        check_input(counts)


def test_the_remedy_points_to_raw(counts):
    counts.raw = counts.copy()
    counts.X = counts.X.multiply(0.37).tocsr()
    with pytest.raises(errors.NotCountsError, match=r"adata\.raw"):
        check_input(counts)


def test_a_bad_layer_beside_an_empty_x_is_reported(counts):
    counts.layers["scaled"] = counts.X.multiply(0.37).tocsr()
    counts.X = None
    with pytest.raises(errors.NotCountsError, match="scaled"):
        check_input(counts, layer="scaled")


@pytest.mark.parametrize(
    ("make", "kwargs", "error", "says"),
    [
        (lambda a: a[:10], {}, errors.ViewError, "copy"),
        (lambda a: a[:0].copy(), {}, errors.EmptyDataError, "0 cells"),
        (lambda a: a[:, :0].copy(), {}, errors.EmptyDataError, "0 genes"),
        (lambda a: a, {"layer": "no"}, errors.MissingKeyError, "no 'no'"),
        (lambda a: a[:3].copy(), {"min_cells": 4}, errors.TooFewCellsError, "at least 4"),
        (lambda a: a[:, :3].copy(), {"min_genes": 4}, errors.TooFewGenesError, "at least 4"),
        (lambda a: a, {"categorical_keys": ["no"]}, errors.MissingKeyError, "'no'"),
        (lambda a: a, {"obsm_keys": ["no"]}, errors.MissingKeyError, "'no'"),
        (lambda a: a.X, {}, errors.InputError, "AnnData"),
        (lambda a: MuData({"rna": a}), {}, errors.InputError, "setup_mudata"),
        (lambda a: AnnData(shape=(3, 2)), {}, errors.EmptyDataError, "X is None"),
    ],
)
def test_data_of_the_wrong_shape_are_refused(counts, make, kwargs, error, says):
    with pytest.raises(error, match=says):
        check_input(make(counts), **kwargs)


def test_duplicate_genes_are_counted_and_named(counts):
    names = list(counts.var_names)
    names[1] = names[2] = names[0]
    counts.var_names = names
    with pytest.raises(errors.DuplicateGenesError, match=r"2 gene name.*'GENE0'"):
        check_input(counts)


@pytest.mark.parametrize("name", ["", " GENE", "A\tB", "A\nB", "x" * 300])
def test_gene_names_that_could_not_be_saved_are_refused_before_training(counts, name):
    counts.var_names = [name, *counts.var_names[1:]]
    with pytest.raises(errors.InputError, match="gene"):
        check_input(counts)


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["a", None, "b"] * 50),
        np.array(["a", np.nan, "b"] * 50, dtype=object),
        np.array([0.0, np.nan, 1.0] * 50),
    ],
    ids=["categorical", "object", "float"],
)
def test_missing_categories_are_counted_and_the_cell_named(counts, values):
    counts.obs["kind"] = values
    with pytest.raises(errors.MissingValuesError, match=r"50 cell.*'cell1'"):
        check_input(counts, categorical_keys=["kind"])


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.full((150, 2), np.nan), errors.NotFiniteError),
        (np.ones((150, 2)), errors.InputError),
        (sparse.csr_matrix(np.ones((150, 2))), errors.InputError),
    ],
)
def test_useless_embeddings_are_refused(counts, values, error):
    counts.obsm["X_fm"] = values
    with pytest.raises(error, match="X_fm"):
        check_input(counts, obsm_keys=["X_fm"])


def test_a_useful_embedding_is_accepted_dense_sparse_or_framed(counts):
    values = np.random.default_rng(0).normal(size=(150, 3))
    framed = pd.DataFrame(values, index=counts.obs_names, columns=list("abc"))
    for content in (values, sparse.csr_matrix(values), framed):
        counts.obsm["X_fm"] = content
        check_input(counts, obsm_keys=["X_fm"])


def test_values_that_are_not_numbers_are_refused(counts):
    counts.layers["words"] = np.full(counts.shape, "a", dtype=object)
    with pytest.raises(errors.InputError, match="numeric"):
        check_input(counts, layer="words")


def test_a_scale_that_does_not_exist_is_refused():
    adata = AnnData(np.ones((3, 2), dtype=np.float32))
    with pytest.raises(errors.InputError, match="one of counts, log1p"):
        check_input(adata, scale="foo")


def test_complex_numbers_are_refused():
    adata = AnnData(np.ones((3, 2), dtype=np.complex64))
    with pytest.raises(errors.InputError, match="complex64"):
        check_input(adata)


@pytest.mark.parametrize("storage", ["dense", "csr"])
def test_missing_values_are_accepted_only_where_they_have_a_meaning(counts, storage):
    matrix = np.asarray(counts.X.toarray() if sparse.issparse(counts.X) else counts.X, float)
    matrix[2, 3] = np.nan
    counts.X = STORAGES[storage](matrix)
    with pytest.raises(errors.NotFiniteError):
        check_input(counts, scale="any")
    scan = check_input(counts, scale="any", allow_missing=True)
    np.testing.assert_allclose(scan.cell_totals, np.nansum(matrix, axis=1))
    np.testing.assert_allclose(scan.gene_totals, np.nansum(matrix, axis=0))
    found = counts.X.toarray() if sparse.issparse(counts.X) else counts.X
    assert np.isnan(found).sum() == 1, "the data were changed"
    counts.X = STORAGES[storage](np.where(np.isnan(matrix), np.inf, matrix))
    with pytest.raises(errors.NotFiniteError):
        check_input(counts, scale="any", allow_missing=True)
