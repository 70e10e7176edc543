"""Loading by name and by function, from a local mirror."""

from __future__ import annotations

import inspect
import os

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sczoo import datasets
from sczoo.errors import FetchError, IntegrityError

NAMES = [info.name for info in datasets.list_datasets()]


@pytest.fixture(autouse=True)
def bare_environment(tmp_path, monkeypatch):
    for name in ("SCZOO_DATA_DIR", "SCZOO_DATA_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCZOO_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def mirror(shared_data, monkeypatch):
    """The smallest shared file, in place."""
    path = shared_data("zeisel_3005_200g.h5ad")
    monkeypatch.setenv("SCZOO_DATA_DIR", str(path.parent))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_each_dataset_has_a_documented_function(name):
    function = getattr(datasets, name)
    assert function.__name__ == name
    assert function.__module__ == "sczoo.datasets"
    info = datasets.list_datasets(name)[0]
    for text in (info.study, info.accession, f"{info.n_cells:,} cells", info.licence):
        assert text in inspect.getdoc(function)
    assert list(inspect.signature(function).parameters) == []
    assert name in dir(datasets)
    assert getattr(datasets, name) is function


def test_other_attributes_do_not_exist():
    with pytest.raises(AttributeError, match="list_datasets"):
        datasets.kang_ifn  # noqa: B018
    assert not hasattr(datasets, "_nothing")


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_loads_from_the_mirror(name, shared_data, monkeypatch):
    path = shared_data(f"{name}.h5ad")
    monkeypatch.setenv("SCZOO_DATA_DIR", str(path.parent))
    adata = datasets.load(name)
    assert isinstance(adata.X, csr_matrix)
    assert adata.X.dtype == np.float32
    assert not adata.isbacked
    expected = ad.read_h5ad(path)
    assert (adata.X != expected.X).nnz == 0
    assert adata.obs.equals(expected.obs)
    assert adata.var.equals(expected.var)


def test_function_and_name_are_the_same(mirror):
    assert (datasets.zeisel_3005_200g().X != datasets.load("zeisel_3005_200g").X).nnz == 0


def test_the_embedded_dataset_loads_by_name_without_any_setting():
    assert datasets.load("kang_ifnb_demo").n_obs == 10_581


def test_the_mirror_is_read_in_place(mirror, tmp_path):
    before = mirror.stat()
    assert datasets.fetch("zeisel_3005_200g") == mirror
    datasets.load("zeisel_3005_200g")
    after = mirror.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "empty"])
def test_a_damaged_mirror_is_refused_and_left_alone(damage, shared_data, tmp_path, monkeypatch):
    content = bytearray(shared_data("zeisel_3005_200g.h5ad").read_bytes())
    if damage == "flip":
        content[1000] ^= 0x10
    elif damage == "truncate":
        del content[len(content) // 2 :]
    elif damage == "append":
        content += b"x"
    else:
        content.clear()
    path = tmp_path / "zeisel_3005_200g.h5ad"
    path.write_bytes(content)
    monkeypatch.setenv("SCZOO_DATA_DIR", str(tmp_path))
    # a server that could help must not hide that the mirror is wrong
    monkeypatch.setenv("SCZOO_DATA_URL", "https://example.invalid/")
    for call in (datasets.load, datasets.fetch):
        with pytest.raises(IntegrityError, match="left as it is") as caught:
            call("zeisel_3005_200g")
        assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == [path]


def test_without_settings_the_error_says_what_to_set():
    with pytest.raises(FetchError) as caught:
        datasets.load("pbmc3k")
    text = str(caught.value)
    info = datasets.list_datasets("pbmc3k")[0]
    for part in ("SCZOO_DATA_DIR", "SCZOO_DATA_URL", "pbmc3k.h5ad", info.sha256):
        assert part in text
    assert "not hosted publicly yet" in text
    assert "kang_ifnb_demo" in text


def test_a_file_missing_from_the_mirror_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SCZOO_DATA_DIR", str(tmp_path))
    with pytest.raises(FetchError, match=rf"SCZOO_DATA_DIR \({tmp_path}\)"):
        datasets.load("pbmc3k")


def test_a_mirror_that_is_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SCZOO_DATA_DIR", str(tmp_path / "absent"))
    with pytest.raises(FetchError, match="not a folder"):
        datasets.load("pbmc3k")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads files without permission")
def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / "pbmc3k.h5ad"
    path.write_bytes(b"")
    path.chmod(0)
    monkeypatch.setenv("SCZOO_DATA_DIR", str(tmp_path))
    with pytest.raises(FetchError, match="permissions"):
        datasets.load("pbmc3k")


def test_every_name_is_public():
    named = {info.name for info in datasets.list_datasets()}
    assert len(named) == 24
    assert named < set(datasets.__all__)
    assert dir(datasets) == sorted(datasets.__all__)
    there = {}
    exec("from sczoo.datasets import *", there)
    assert named < set(there)
