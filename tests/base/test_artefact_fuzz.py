"""Damaged files: a typed error each time, no code run, nothing written.

Each file of an artefact is truncated at 200 offsets and changed in 2,000 single bytes, once as
damage on the way (the manifest no longer fits, so every case must be refused) and once as an
attack (the manifest is made to fit, so that the parser itself is reached). Run with ``-s`` to see
the numbers of cases.
"""

import json
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from sczoo.base._artefact import (
    ArtefactRecord,
    InputContract,
    encode_typed,
    genes_sha256,
    read_artefact,
    write_artefact,
)
from sczoo.base._files import sha256_bytes
from sczoo.errors import SczooError

N_TRUNCATIONS = 200
N_CHANGES = 2_000
FILES = [
    "artefact.json",
    "genes.tsv",
    "weights.safetensors",
    "selftest.safetensors",
    "card.md",
    "manifest.json",
]


class Watch:
    """Notes every attempt to run code, open a connection or write a file while it is on."""

    def __init__(self):
        self.on = False
        self.seen = []

    def __call__(self, event, arguments):
        if not self.on:
            return
        if event in {"os.system", "exec", "compile", "socket.connect", "ctypes.dlopen"}:
            self.seen.append((event, str(arguments)[:200]))
        elif event.startswith(("subprocess.", "os.exec", "os.spawn", "os.posix_spawn", "pickle.")):
            self.seen.append((event, str(arguments)[:200]))
        elif event == "import":
            self.seen.append((event, arguments[0]))
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            self.seen.append((event, str(arguments)[:200]))
        elif event in {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink"}:
            self.seen.append((event, str(arguments)[:200]))

    @contextmanager
    def watching(self):
        self.on = True
        try:
            yield
        finally:
            self.on = False


WATCH = Watch()
sys.addaudithook(WATCH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    ids = [f"GENE{i}" for i in range(30)]
    record = ArtefactRecord(
        method="toy",
        input=InputContract(
            n_genes=30, genes_sha256=genes_sha256(ids), scale="counts", min_coverage=0.8
        ),
        scvi_registry=encode_typed({"mapping": np.array(["a", "b"]), "n": np.int64(3), "t": (1,)}),
        provenance={"seed": 0, "versions": {"python": "3.11"}},
        domain={"total_per_cell": [1.0, 2.0, 3.0]},
        attributes={"threshold": 0.25},
    )
    return write_artefact(
        tmp_path_factory.mktemp("fuzz") / "artefact",
        record,
        tensors={"weight": rng.normal(size=(30, 4)).astype(np.float32), "bias": np.zeros(4)},
        genes=[{"id": name, "symbol": None, "importance": 0.5} for name in ids],
        selftest={
            "x": rng.poisson(1, size=(32, 30)).astype(np.uint16),
            "expected": rng.normal(size=(32, 4)).astype(np.float32),
        },
        extra_files={"card.md": "# A card\n\nTexte en français.\n".encode()},
    )


def damaged(data, seed):
    """Yield the truncations and the single-byte changes of some bytes."""
    rng = np.random.default_rng(seed)
    for offset in rng.integers(0, len(data), size=N_TRUNCATIONS):
        yield data[:offset]
    for offset, delta in zip(
        rng.integers(0, len(data), size=N_CHANGES),
        rng.integers(1, 256, size=N_CHANGES),
        strict=True,
    ):
        changed = bytearray(data)
        changed[offset] = (changed[offset] + int(delta)) % 256
        yield bytes(changed)


def read_everything(path, digest):
    artefact = read_artefact(path, manifest_sha256=digest)
    artefact.tensors()
    artefact.selftest()
    _ = artefact.card
    return artefact


def outcome(path, digest):
    """Read under watch: ``"refused"`` or ``"read"``; any other exception fails the test."""
    WATCH.seen.clear()
    with WATCH.watching():
        try:
            artefact = read_everything(path, digest)
        except SczooError:
            result = "refused"
        else:
            result = "read"
            assert isinstance(artefact.record, ArtefactRecord)
    assert WATCH.seen == []
    return result


@pytest.mark.slow
@pytest.mark.parametrize("fits", [False, True], ids=["damage", "attack"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_file(folder, name, fits, record_property):
    original = {path.name: path.read_bytes() for path in folder.iterdir()}
    neighbours = sorted(path.name for path in folder.parent.iterdir())
    digest = sha256_bytes(original["manifest.json"])
    assert outcome(folder, digest) == "read"
    counts = {"refused": 0, "read": 0}
    try:
        for data in damaged(original[name], seed=len(name)):
            (folder / name).write_bytes(data)
            if fits and name != "manifest.json":
                manifest = json.loads(original["manifest.json"])
                manifest["files"][name] = {"sha256": sha256_bytes(data), "size": len(data)}
                (folder / "manifest.json").write_text(json.dumps(manifest))
            counts[outcome(folder, None if fits else digest)] += 1
    finally:
        for file, data in original.items():
            (folder / file).write_bytes(data)
    assert sorted(path.name for path in folder.parent.iterdir()) == neighbours
    assert sorted(path.name for path in folder.iterdir()) == sorted(original)
    assert sum(counts.values()) == N_TRUNCATIONS + N_CHANGES
    if not fits:
        assert counts["read"] == 0
    record_property("cases", counts)
    print(f"\n{name}, {'manifest made to fit' if fits else 'as damaged'}: {counts}")


STRANGE = [
    None, True, -1, 2**63, 1e308, "", "../x", "\x00", "os:system", [], {}, [[]], {"": None},
    {"__type__": "array", "dtype": "object", "shape": [10**9], "values": []},
    {"__type__": "tuple", "items": {}}, {"$genes": "/etc/passwd"}, "A" * 10_000, [0] * 1_000,
]  # fmt: skip


def places(document, path=()):
    yield path
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def replaced(document, path, value):
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


def test_strange_values_in_every_place_of_the_json(folder):
    """Structure-aware: every value of both documents replaced by every strange one."""
    original = {path.name: path.read_bytes() for path in folder.iterdir()}
    counts = {"refused": 0, "read": 0}
    try:
        for name in ("artefact.json", "manifest.json"):
            document = json.loads(original[name])
            for path in list(places(document)):
                for value in STRANGE:
                    data = json.dumps(replaced(document, path, value)).encode()
                    (folder / name).write_bytes(data)
                    if name == "artefact.json":
                        manifest = json.loads(original["manifest.json"])
                        manifest["files"][name] = {"sha256": sha256_bytes(data), "size": len(data)}
                        (folder / "manifest.json").write_text(json.dumps(manifest))
                    counts[outcome(folder, None)] += 1
            for file, data in original.items():
                (folder / file).write_bytes(data)
    finally:
        for file, data in original.items():
            (folder / file).write_bytes(data)
    assert counts["refused"] > 500
    print(f"\nstrange values: {counts}")


def test_safetensors_with_lying_headers(folder):
    """Overlaps, holes, sizes beyond the file, unknown types, a pickle under that name."""

    def safetensors(header, body=b"\x00" * 64):
        text = json.dumps(header).encode() if isinstance(header, dict) else header
        return len(text).to_bytes(8, "little") + text + body

    def tensor(dtype="F32", shape=(4,), start=0, end=16):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}

    cases = {
        "overlap": safetensors({"a": tensor(), "b": tensor(start=8, end=24)}, b"\x00" * 24),
        "hole": safetensors({"a": tensor(), "b": tensor(start=32, end=48)}, b"\x00" * 48),
        "beyond": safetensors({"a": tensor(shape=(10**12,), end=4 * 10**12)}),
        "overflow": safetensors({"a": tensor(shape=(2**62, 2**62, 4), end=16)}),
        "unknown dtype": safetensors({"a": tensor(dtype="PICKLE")}),
        "shape and size differ": safetensors({"a": tensor(shape=(5,))}, b"\x00" * 16),
        "negative": safetensors({"a": tensor(start=-16, end=0)}),
        "duplicate": safetensors(
            b'{"a":%s,"a":%s}' % ((json.dumps(tensor()).encode(),) * 2), b"\x00" * 16
        ),
        "huge header": (2**63).to_bytes(8, "little") + b"{}",
        "deep header": safetensors(b'{"a":' * 10_000),
        "pickle": b"\x80\x04cos\nsystem\n(S'echo'\ntR.",
        "empty": b"",
    }
    original = {path.name: path.read_bytes() for path in folder.iterdir()}
    try:
        for title, data in cases.items():
            (folder / "weights.safetensors").write_bytes(data)
            manifest = json.loads(original["manifest.json"])
            manifest["files"]["weights.safetensors"] = {
                "sha256": sha256_bytes(data),
                "size": len(data),
            }
            (folder / "manifest.json").write_text(json.dumps(manifest))
            assert outcome(folder, None) == "refused", title
    finally:
        for file, data in original.items():
            (folder / file).write_bytes(data)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-s"]))
