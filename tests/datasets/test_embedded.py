"""What is in the embedded file, proved on the file and against its source."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sczoo import datasets
from sczoo.datasets import _embedded
from sczoo.errors import CorruptedArtefactError

FILE = Path(_embedded.__file__).parent / "data" / _embedded.FILENAME
BARCODE = re.compile(rb"[ACGT]{12,}")
COLUMNS = ["patient", "condition", "cell_type"]


@pytest.fixture(scope="module")
def demo():
    return datasets.kang_ifnb_demo()


def strings_of(file: h5py.File):
    """Every name, attribute and string value of an HDF5 file, as bytes."""

    def texts(value):
        array = np.asarray(value)
        if array.dtype.kind in "OSU":
            for item in array.ravel():
                yield item if isinstance(item, bytes) else str(item).encode()

    found = [text for value in file.attrs.values() for text in texts(value)]

    def visit(name, item):
        found.append(name.encode())
        for key, value in item.attrs.items():
            found.extend([key.encode(), *texts(value)])
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "OS":
            found.extend(texts(item[()]))

    file.visititems(visit)
    return found


def test_the_file_is_small_and_is_the_pinned_one():
    content = FILE.read_bytes()
    assert len(content) == _embedded.SIZE < 4_000_000
    assert hashlib.sha256(content).hexdigest() == _embedded.SHA256


def test_matrix_is_raw_counts_in_csr_float32(demo):
    assert isinstance(demo.X, csr_matrix)
    assert demo.X.dtype == np.float32
    assert demo.X.indices.dtype == np.int32
    assert demo.shape == (10_581, 1_016)
    assert demo.X.data.min() >= 1
    np.testing.assert_array_equal(demo.X.data % 1, 0)
    assert demo.X.has_canonical_format
    assert (demo.X.sum(axis=1) > 0).all()


def test_donors_and_conditions(demo):
    assert list(demo.obs) == COLUMNS
    cells = pd.crosstab(demo.obs["patient"], demo.obs["condition"])
    assert cells.loc["donor_101"].to_dict() == {"ctrl": 858, "stim": 500}
    assert cells.loc["donor_107"].to_dict() == {"ctrl": 517, "stim": 306}
    others = cells.drop(["donor_101", "donor_107"])
    assert len(others) == 6
    assert (others["stim"] == 0).all()
    assert others["ctrl"].sum() == 8_400
    assert demo.obs["cell_type"].nunique() == 8
    assert not demo.obs.isna().any(axis=None)


def test_interferon_genes_are_there_and_respond(demo):
    genes = ["ISG15", "IFI6", "ISG20", "LY6E", "IFITM3"]
    assert set(genes) <= set(demo.var_names)
    assert demo.var_names.is_unique
    assert demo.var["ensembl_id"]["ISG15"] == "ENSG00000187608"
    stimulated = (demo.obs["condition"] == "stim").to_numpy()
    same_donors = demo.obs["patient"].isin(["donor_101", "donor_107"]).to_numpy()
    for gene in genes:
        values = demo[:, gene].X.toarray().ravel()
        control = values[same_donors & ~stimulated].mean()
        assert values[stimulated].mean() > 3 * control


def test_no_barcode_anywhere_in_the_file():
    assert not BARCODE.search(FILE.read_bytes())
    with h5py.File(FILE) as file:
        found = strings_of(file)
    assert b"cell_00001" in found  # the walk does see names
    assert b"GSE96583" in found
    assert not [text for text in found if BARCODE.search(text)]
    assert BARCODE.search(b"AAACATACATTTCC-1_ctrl")  # the pattern does match what it looks for


def test_names_are_neutral_and_the_order_is_shuffled(demo):
    expected = [f"cell_{i:05d}" for i in range(1, demo.n_obs + 1)]
    assert demo.obs_names.tolist() == expected
    first, last = demo.obs["patient"][:2_000], demo.obs["patient"][-2_000:]
    assert first.nunique() == last.nunique() == 8


def test_it_says_where_it_comes_from_and_on_what_terms(demo):
    source = demo.uns["source"]
    assert source["accession"] == "GSE96583"
    assert "no licence stated" in source["licence"]
    assert "GPL-3" in source["licence"]
    assert "donors 101 and 107 whole" in source["how_made"]
    assert datasets.list_datasets("kang_ifnb")[0].sha256 in source["derived_from"]


def test_plain_anndata_reads_it_too(demo):
    plain = ad.read_h5ad(FILE)
    assert (plain.X != demo.X).nnz == 0
    pd.testing.assert_frame_equal(plain.obs, demo.obs)
    backed = ad.read_h5ad(FILE, backed="r")
    np.testing.assert_array_equal(backed[:5].X.toarray(), demo.X[:5].toarray())
    backed.file.close()


def test_each_call_gives_an_object_of_its_own(demo):
    other = datasets.kang_ifnb_demo()
    other.X.data[:] = 0
    other.obs["patient"] = "nobody"
    assert demo.X.data.min() >= 1
    assert demo.obs["patient"].nunique() == 8


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "missing"])
def test_a_damaged_file_is_refused_and_left_alone(damage, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / _embedded.FILENAME
    content = bytearray(FILE.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "truncate":
        del content[-1:]
    elif damage == "empty":
        content.clear()
    if damage != "missing":
        path.write_bytes(content)
    monkeypatch.setattr(_embedded, "files", lambda package: tmp_path)
    with pytest.raises(CorruptedArtefactError, match="reinstall sczoo"):
        datasets.kang_ifnb_demo()
    assert (path.read_bytes() == content) if damage != "missing" else not path.exists()


def test_every_cell_is_a_cell_of_the_source(demo, shared_data):
    source = ad.read_h5ad(shared_data("kang_ifnb.h5ad"))
    np.testing.assert_array_equal(source.var_names, demo.var_names)
    np.testing.assert_array_equal(source.var["ensembl_id"], demo.var["ensembl_id"])

    def rows(adata):
        labels = zip(*(adata.obs[column].astype(str) for column in COLUMNS), strict=True)
        dense = adata.X.toarray().astype(np.int32)
        return Counter((*label, row.tobytes()) for label, row in zip(labels, dense, strict=True))

    ours, theirs = rows(demo), rows(source)
    assert ours <= theirs  # as a multiset: no cell twice that the source has once
    whole = Counter({k: n for k, n in theirs.items() if k[0] in ("donor_101", "donor_107")})
    assert whole <= ours


def test_the_sample_keeps_the_composition(demo, shared_data):
    source = ad.read_h5ad(shared_data("kang_ifnb.h5ad")).obs

    def strata(obs):
        pool = obs[~obs["patient"].isin(["donor_101", "donor_107"])]
        return pool.groupby(["patient", "cell_type"], observed=True).size()

    ours, theirs = strata(demo.obs), strata(source)
    exact = theirs * 8_400 / theirs.sum()
    assert ((ours.reindex(theirs.index, fill_value=0) - exact).abs() < 1).all()
