"""The table of named datasets: complete, well-formed, and true to the shared files."""

from __future__ import annotations

import csv

import anndata as ad
import pytest
from pydantic import ValidationError

from sczoo import datasets
from sczoo.errors import RegistryError, UnknownArtefactError

NAMES = [info.name for info in datasets.list_datasets()]


def test_there_are_twenty_four_in_alphabetical_order():
    assert len(NAMES) == len(set(NAMES)) == 24
    assert sorted(NAMES) == NAMES


def test_patterns_select_names():
    assert [info.name for info in datasets.list_datasets("kang_*")] == [
        "kang_ctrl_2511g",
        "kang_ifnb",
        "kang_ifnb_2000cells_9k_genes",
    ]
    assert datasets.list_datasets("nothing*") == []


def test_entries_cannot_be_changed_or_extended():
    info = datasets.list_datasets("pbmc3k")[0]
    with pytest.raises(ValidationError):
        info.sha256 = "0" * 64
    with pytest.raises(ValidationError, match="extra"):
        datasets.DatasetInfo(**info.model_dump(), surprise=1)


def test_sharing_of_cells_is_mutual():
    by_name = {info.name: info for info in datasets.list_datasets()}
    for info in by_name.values():
        for other in info.shares_cells_with:
            assert info.name in by_name[other].shares_cells_with


def test_unknown_names_get_a_hint():
    with pytest.raises(UnknownArtefactError, match="did you mean kang_ifnb"):
        datasets.load("kang_ifn")
    with pytest.raises(RegistryError, match="list_datasets"):
        datasets.fetch("../../etc/passwd")
    with pytest.raises(UnknownArtefactError):
        datasets.load(None)


def test_hashes_and_sizes_are_those_of_the_manifest(shared_data):
    with open(shared_data("manifest.tsv")) as file:
        manifest = {row["path"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert {f"{name}.h5ad" for name in NAMES} == {p for p in manifest if p.endswith(".h5ad")}
    for info in datasets.list_datasets():
        assert info.sha256 == manifest[info.filename]["sha256"]
        assert info.size == int(manifest[info.filename]["bytes"])


@pytest.mark.parametrize("name", NAMES)
def test_entry_describes_the_file(name, shared_data):
    info = datasets.list_datasets(name)[0]
    adata = ad.read_h5ad(shared_data(info.filename))
    assert adata.shape == (info.n_cells, info.n_genes)
    assert tuple(adata.obs) == info.obs
    labels = set(adata.obs["cell_type"]) - {"unassigned", "unlabelled"}
    assert len(labels) == info.n_cell_types
    assert adata.uns["source"]["accession"] == info.accession
    assert adata.uns["source"]["species"] == info.species
    assert bool(adata.uns.get("gene_names_known", True)) == info.gene_names
    assert bool((adata.X.data % 1 == 0).all()) == info.is_counts
