from __future__ import annotations

import anndata
import numpy as np
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from sczoo.base._reading import iter_row_blocks, matrix_of, read_rows, resolve_indices
from sczoo.errors import InputError

N_OBS, N_VARS = 37, 11
KINDS = ("csr", "csc", "csr_array", "dense", "backed csr", "backed csc", "backed dense")


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(3)
    return (rng.poisson(0.7, size=(N_OBS, N_VARS)) * rng.integers(1, 9)).astype(np.float32)


@pytest.fixture(scope="module")
def stored(truth, tmp_path_factory):
    """Return the same numbers in every kind of storage."""
    makers = {
        "csr": sparse.csr_matrix,
        "csc": sparse.csc_matrix,
        "csr_array": sparse.csr_array,
        "dense": np.array,
    }
    found, opened = {}, []
    folder = tmp_path_factory.mktemp("stored")
    for kind in KINDS:
        adata = AnnData(makers[kind.removeprefix("backed ")](truth))
        if kind.startswith("backed"):
            path = folder / f"{kind}.h5ad"
            adata.write_h5ad(path)
            adata = anndata.read_h5ad(path, backed="r")
            opened.append(adata)
        found[kind] = adata
    yield found
    for adata in opened:
        adata.file.close()


def as_dense(block):
    return block.toarray() if sparse.issparse(block) else np.asarray(block)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(rows=st.lists(st.integers(0, N_OBS - 1), max_size=2 * N_OBS))
def test_rows_come_in_the_order_asked_for(kind, rows, stored, truth):
    rows = np.asarray(rows, dtype=np.int64)
    block = read_rows(matrix_of(stored[kind], None), rows)
    assert isinstance(block, np.ndarray) or block.format == "csr"
    np.testing.assert_array_equal(as_dense(block), truth[rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_rows", [1, 5, N_OBS, 1000])
def test_blocks_join_to_the_whole(kind, block_rows, stored, truth):
    order = np.random.default_rng(0).permutation(N_OBS)
    pairs = list(iter_row_blocks(stored[kind], None, order, block_rows))
    assert all(len(rows) <= block_rows for rows, _ in pairs)
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in pairs]), order)
    np.testing.assert_array_equal(np.vstack([as_dense(b) for _, b in pairs]), truth[order])


def test_no_rows_give_no_blocks(stored):
    assert list(iter_row_blocks(stored["csr"], None, np.zeros(0, dtype=np.int64))) == []


def test_reading_never_returns_the_callers_memory(truth):
    for matrix in (truth.copy(), sparse.csr_matrix(truth)):
        block = read_rows(matrix, np.arange(N_OBS))
        (block.data if sparse.issparse(block) else block)[...] = -1
        np.testing.assert_array_equal(as_dense(matrix), truth)


@given(
    n_obs=st.integers(1, 30),
    data=st.data(),
)
def test_indices_mean_what_they_mean_in_numpy(n_obs, data):
    rows = data.draw(st.lists(st.integers(-n_obs, n_obs - 1), max_size=40))
    expected = np.arange(n_obs)[np.asarray(rows, dtype=int)]
    np.testing.assert_array_equal(resolve_indices(rows, n_obs), expected)
    mask = data.draw(st.lists(st.booleans(), min_size=n_obs, max_size=n_obs))
    np.testing.assert_array_equal(resolve_indices(np.array(mask), n_obs), np.flatnonzero(mask))


def test_no_indices_mean_all_rows_and_empty_ones_none():
    np.testing.assert_array_equal(resolve_indices(None, 4), np.arange(4))
    assert resolve_indices([], 4).shape == (0,)


@pytest.mark.parametrize(
    "indices",
    [[4], [-5], [0.0, 1.0], ["a"], [[0, 1]], [True, False], slice(0, 2), 10**6],
    ids=str,
)
def test_indices_that_mean_nothing_are_refused(indices):
    with pytest.raises(InputError, match="indices"):
        resolve_indices(indices, 4)
