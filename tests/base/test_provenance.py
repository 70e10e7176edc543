from __future__ import annotations

import json
import random

import anndata
import numpy as np
import pytest
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sczoo.base._provenance import fingerprint, hardware, isolated_random_state, versions
from sczoo.base._training import plain

COUNTS = np.random.default_rng(5).poisson(1.0, size=(40, 7))


def stored(matrix, tmp_path):
    """Yield the same numbers in every storage."""
    yield AnnData(matrix.astype(np.float32))
    yield AnnData(matrix.astype(np.float64))
    yield AnnData(matrix.astype(np.int32))
    for maker in (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array):
        yield AnnData(maker(matrix.astype(np.float32)))
    explicit = sparse.csr_matrix(np.ones(matrix.shape, dtype=np.float32))
    explicit.data[:] = matrix.ravel()  # zeros are stored
    yield AnnData(explicit)
    backwards = sparse.csr_matrix(matrix.astype(np.float32))
    for start, stop in zip(backwards.indptr[:-1], backwards.indptr[1:], strict=True):
        backwards.indices[start:stop] = backwards.indices[start:stop][::-1]
        backwards.data[start:stop] = backwards.data[start:stop][::-1]
    backwards.has_sorted_indices = False
    yield AnnData(backwards)
    for number, maker in enumerate((np.array, sparse.csr_matrix, sparse.csc_matrix)):
        AnnData(maker(matrix.astype(np.float32))).write_h5ad(tmp_path / f"{number}.h5ad")
        yield anndata.read_h5ad(tmp_path / f"{number}.h5ad", backed="r")


def test_the_fingerprint_does_not_depend_on_storage_or_names(tmp_path):
    found = set()
    for number, adata in enumerate(stored(COUNTS, tmp_path)):
        adata.obs_names = [f"{number}-{name}" for name in adata.obs_names]
        found.add(fingerprint(adata, None))
        adata_layer = AnnData(layers={"counts": COUNTS.astype(np.float32)})
        found.add(fingerprint(adata_layer, "counts"))
        if adata.isbacked:
            adata.file.close()
    assert len(found) == 1


def test_taking_the_fingerprint_changes_nothing():
    matrix = sparse.csr_matrix(np.ones((4, 3), dtype=np.float32))
    matrix.data[::2] = 0
    before = (matrix.data.copy(), matrix.indices.copy())
    fingerprint(AnnData(matrix), None)
    np.testing.assert_array_equal(matrix.data, before[0])
    np.testing.assert_array_equal(matrix.indices, before[1])


@settings(deadline=None, max_examples=50)
@given(
    row=st.integers(0, 39), column=st.integers(0, 6), value=st.integers(0, 9).map(lambda v: v + 20)
)
def test_one_other_value_is_another_fingerprint(row, column, value):
    changed = COUNTS.copy()
    changed[row, column] = value
    assert fingerprint(AnnData(changed), None) != fingerprint(AnnData(COUNTS), None)


def test_rows_and_their_order_matter():
    adata = AnnData(COUNTS)
    whole = fingerprint(adata, None)
    assert fingerprint(adata, None, np.arange(40)) == whole
    assert fingerprint(adata, None, np.arange(40)[::-1]) != whole
    chosen = np.array([3, 8, 30])
    assert fingerprint(adata, None, chosen) == fingerprint(adata[chosen].copy(), None)


def draws():
    return (
        random.random(),
        np.random.rand(),  # noqa: NPY002
        float(torch.rand(1)),
    )


def test_random_numbers_inside_depend_on_the_seed_alone():
    def inside(seed):
        with isolated_random_state(seed):
            return draws()

    first = inside(3)
    draws()
    assert inside(3) == first
    assert all(a != b for a, b in zip(inside(4), first, strict=True))


@pytest.mark.parametrize("failing", [False, True])
def test_the_callers_random_state_is_restored(failing):
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    expected = draws()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    try:
        with isolated_random_state(99):
            draws()
            if failing:
                raise ValueError("on purpose")
    except ValueError:
        pass
    assert draws() == expected


def test_versions_and_hardware_are_plain_and_say_nothing_about_the_owner():
    import getpass
    import platform

    text = json.dumps([versions(), hardware()])
    assert {"python", "sczoo", "scvi-tools", "torch"} <= set(versions())
    node = platform.node()
    assert len(node) < 4 or node not in text
    assert f'"{getpass.getuser()}"' not in text


def test_plain_values_can_always_be_written_as_json():
    given_values = {
        "a": np.float32(1.5),
        "b": (1, {2}),
        3: None,
        "c": object(),
        "d": {"e": np.int64(4)},
        "f": np.arange(2),
    }
    written = json.loads(json.dumps(plain(given_values)))
    assert written["a"] == 1.5
    assert written["b"] == [1, [2]]
    assert written["3"] is None
    assert written["c"] == "object"
    assert written["d"] == {"e": 4}
