"""``data.h5ad`` of a dataset from anybody: read whole, or refused with a typed error in time."""

import numpy as np
import pytest
from anndata import AnnData

import sczoo
from sczoo.base._artefact import ArtefactRecord, InputContract, genes_sha256, write_artefact
from sczoo.errors import CorruptedArtefactError, InputError
from sczoo.hub import _cells


@pytest.fixture
def whole(tmp_path):
    adata = AnnData(np.arange(40, dtype=np.float32).reshape(8, 5))
    adata.obs["kind"] = ["a", "b"] * 4
    adata.write_h5ad(tmp_path / "whole.h5ad")
    return (tmp_path / "whole.h5ad").read_bytes()


@pytest.fixture
def dataset(tmp_path):
    ids = [str(i) for i in range(5)]
    record = ArtefactRecord(
        kind="dataset",
        method="toy",
        input=InputContract(
            n_genes=5, genes_sha256=genes_sha256(ids), scale="counts", min_coverage=0.8
        ),
    )

    def build(data):
        return write_artefact(
            tmp_path / "dataset",
            record,
            tensors=None,
            genes=[{"id": name} for name in ids],
            extra_files={"data.h5ad": data},
            overwrite=True,
        )

    return build


def test_round_trip(dataset, whole):
    adata = sczoo.load(dataset(whole))
    np.testing.assert_array_equal(adata.X, np.arange(40).reshape(8, 5))
    assert list(adata.obs["kind"]) == ["a", "b"] * 4
    with pytest.raises(InputError, match="dataset"):
        sczoo.load(dataset(whole), adata)


@pytest.mark.parametrize("data", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 200])
def test_what_is_not_h5ad(dataset, data):
    with pytest.raises(CorruptedArtefactError, match="not a readable h5ad"):
        sczoo.load(dataset(data))


def test_an_encoding_that_nobody_knows(dataset, whole):
    changed = whole.replace(b"csr_matrix", b"csr_mutrix").replace(b"categorical", b"cutegorical")
    assert changed != whole
    with pytest.raises(CorruptedArtefactError, match="not a readable h5ad"):
        sczoo.load(dataset(changed))


@pytest.mark.slow
def test_damaged_and_made_to_fit(dataset, whole, monkeypatch):
    """As in the fuzz of the other files, with fewer cases: each starts a child process."""
    monkeypatch.setattr(_cells, "_SECONDS", 5.0)
    rng = np.random.default_rng(0)
    counts = {"refused": 0, "read": 0}
    offsets, deltas = rng.integers(0, len(whole), 100), rng.integers(1, 256, 100)
    for offset, delta in zip(offsets, deltas, strict=True):
        changed = bytearray(whole)
        changed[offset] = (changed[offset] + int(delta)) % 256
        try:
            sczoo.load(dataset(bytes(changed)))
        except CorruptedArtefactError:
            counts["refused"] += 1
        else:
            counts["read"] += 1
    assert sum(counts.values()) == 100
    print(f"\ndata.h5ad, manifest made to fit: {counts}")


def test_truncated(dataset, whole):
    for share in (0.01, 0.3, 0.6, 0.95):
        with pytest.raises(CorruptedArtefactError):
            sczoo.load(dataset(whole[: int(len(whole) * share)]))


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual"])
def test_links_are_refused(dataset, whole, tmp_path, kind):
    import h5py

    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.zeros(40, dtype=np.float32)
    path = tmp_path / "linked.h5ad"
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        if kind == "external link":
            file["uns/other"] = h5py.ExternalLink(str(secret), "data")
        elif kind == "soft link":
            file["uns/other"] = h5py.SoftLink("/X")
        elif kind == "external storage":
            file.create_dataset("uns/other", (4,), "f4", external=[(str(secret), 0, 16)])
        else:
            layout = h5py.VirtualLayout((40,), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "data", (40,))
            file.create_virtual_dataset("uns/other", layout)
    with pytest.raises(CorruptedArtefactError, match="links"):
        sczoo.load(dataset(path.read_bytes()))


def test_a_file_that_never_ends(dataset, whole, monkeypatch):
    """One changed byte can send the HDF5 library into an endless loop; the child is stopped."""
    monkeypatch.setattr(_cells, "_WALK", "while True: pass")
    monkeypatch.setattr(_cells, "_SECONDS", 0.3)
    with pytest.raises(CorruptedArtefactError, match="does not come to an end"):
        sczoo.load(dataset(whole))


def test_a_file_that_crashes_the_library(dataset, whole, monkeypatch):
    monkeypatch.setattr(_cells, "_WALK", "import os; os.abort()")
    with pytest.raises(CorruptedArtefactError, match="crashed"):
        sczoo.load(dataset(whole))
