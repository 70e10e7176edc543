"""The artefact: what is written comes back, and whatever is wrong is refused by name."""

import json
import os
import stat

import numpy as np
import pytest

from sczoo.base import _record
from sczoo.base._artefact import (
    Artefact,
    ArtefactRecord,
    InputContract,
    SetupCall,
    decode_typed,
    encode_typed,
    genes_sha256,
    read_artefact,
    upgrade,
    write_artefact,
)
from sczoo.base._files import sha256_bytes
from sczoo.errors import (
    ArtefactError,
    CorruptedArtefactError,
    SchemaError,
    SchemaVersionError,
    SczooError,
)

IDS = [f"GENE{i}" for i in range(12)]
GENES = [
    {"id": name, "symbol": f"S{i}" if i % 2 else None, "importance": i / 7 if i % 3 else None}
    for i, name in enumerate(IDS)
]


def make_record(**changes):
    fields = {
        "method": "toy",
        "input": InputContract(
            species="homo_sapiens",
            n_genes=len(IDS),
            genes_sha256=genes_sha256(IDS),
            scale="counts",
            min_coverage=0.8,
        ),
        "init_params": {"n_topics": 3},
        "setup": SetupCall(args={"layer": None}),
        "provenance": {"n_cells": 777, "seed": 0},
        "domain": {"total_per_cell": [1.0, 2.5]},
    }
    return ArtefactRecord(**{**fields, **changes})


def make_contents(**changes):
    rng = np.random.default_rng(0)
    contents = {
        "tensors": {
            "weight": rng.normal(size=(12, 3)).astype(np.float32),
            "transposed": rng.normal(size=(2, 5)).T,
            "scalar": np.float32(3.5),
            "steps": np.arange(4),
            "flags": np.array([True, False]),
            "empty": np.zeros((0, 3), dtype=np.float32),
        },
        "genes": GENES,
        "selftest": {
            "x": rng.poisson(2, size=(32, 12)).astype(np.uint16),
            "expected": rng.normal(size=(32, 3)).astype(np.float32),
            "tolerance": 1e-3,
        },
    }
    return {**contents, **changes}


@pytest.fixture
def folder(tmp_path):
    return write_artefact(tmp_path / "artefact", make_record(), **make_contents())


def rewrite(folder, name, data):
    """Change one file and make the manifest agree, so that the parser itself is reached."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": sha256_bytes(data), "size": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_json(folder, change):
    document = json.loads((folder / "artefact.json").read_text())
    change(document)
    rewrite(folder, "artefact.json", json.dumps(document).encode())


def test_round_trip(folder):
    artefact = read_artefact(folder)
    assert isinstance(artefact, Artefact)
    assert artefact.record == make_record()
    assert artefact.genes() == GENES
    assert artefact.gene_ids() == IDS
    written = make_contents()["tensors"]
    read = artefact.tensors()
    assert read.keys() == written.keys()
    for name, array in written.items():
        array = np.asarray(array)
        np.testing.assert_array_equal(read[name], array, err_msg=name)
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype
    stored = artefact.selftest()
    assert stored.tolerance == 1e-3
    np.testing.assert_array_equal(stored.x, make_contents()["selftest"]["x"])
    assert artefact.card is None
    assert artefact.data_path is None


def test_writing_is_deterministic(tmp_path, folder):
    again = write_artefact(tmp_path / "again", make_record(), **make_contents())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in again.iterdir()
    }


def test_big_endian_and_fortran_arrays_keep_their_values(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    path = write_artefact(
        tmp_path / "a", make_record(), **make_contents(tensors={"weight": array})
    )
    np.testing.assert_array_equal(read_artefact(path).tensors()["weight"], array)


def test_card_and_dataset_files(tmp_path):
    path = write_artefact(
        tmp_path / "a",
        make_record(kind="dataset"),
        tensors=None,
        genes=GENES,
        extra_files={"card.md": "# ε".encode(), "data.h5ad": b"cells"},
    )
    artefact = read_artefact(path)
    assert artefact.card == "# ε"
    assert artefact.data_path.read_bytes() == b"cells"
    with pytest.raises(CorruptedArtefactError, match=r"no weights\.safetensors"):
        artefact.tensors()
    artefact.data_path.write_bytes(b"other")
    with pytest.raises(CorruptedArtefactError, match=r"data\.h5ad.*another hash"):
        _ = artefact.data_path


def test_pinned_manifest(folder):
    digest = sha256_bytes((folder / "manifest.json").read_bytes())
    assert read_artefact(folder, manifest_sha256=digest).manifest_sha256 == digest
    with pytest.raises(CorruptedArtefactError, match="not the artefact that was published"):
        read_artefact(folder, manifest_sha256="0" * 64)


def test_a_changed_value_in_a_valid_file_is_caught_by_the_hash(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the last byte of an array: still a valid safetensors file
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptedArtefactError, match=r"weights\.safetensors.*another hash"):
        read_artefact(folder)


def test_a_change_after_opening_is_caught(folder):
    artefact = read_artefact(folder)
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(CorruptedArtefactError, match="another hash"):
        artefact.tensors()


@pytest.mark.parametrize(
    "name", ["artefact.json", "genes.tsv", "weights.safetensors", "manifest.json"]
)
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(CorruptedArtefactError, match=f"{name} is missing"):
        read_artefact(folder)


@pytest.mark.parametrize("name", ["artefact.json", "manifest.json", "weights.safetensors"])
def test_links_are_refused(folder, tmp_path, name):
    real = tmp_path / "elsewhere"
    (folder / name).rename(real)
    (folder / name).symlink_to(real)
    with pytest.raises(CorruptedArtefactError, match=name):
        read_artefact(folder)


@pytest.mark.parametrize("name", ["artefact.json", "manifest.json"])
def test_pipes_are_refused_without_waiting(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert stat.S_ISFIFO((folder / name).stat().st_mode)
    with pytest.raises(CorruptedArtefactError, match=name):
        read_artefact(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "model.pt",
        "ARTEFACT.JSON",
        "artefact.json\x00",
        "",
        "sub/card.md",
    ],
)
def test_manifest_may_list_known_names_only(folder, name):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "size": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SchemaError, match="may not hold"):
        read_artefact(folder)


def test_manifest_size_caps(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["artefact.json"]["size"] = 1 << 40
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SchemaError, match="at most"):
        read_artefact(folder)
    (folder / "manifest.json").write_bytes(b" " * (1 << 20))
    with pytest.raises(CorruptedArtefactError, match="larger than"):
        read_artefact(folder)


DEPTH = 200_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"schema": 1, "schema": 1}', "twice"),
        (b'{"schema": NaN}', "NaN is not"),
        (b'{"schema": -Infinity}', "-Infinity is not"),
        (b'{"schema": 1e999}', "out of range"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "64 bits"),
        (b"[" * DEPTH + b"]" * DEPTH, "nested deeper"),
        (b"[" * 150 + b"]" * 150, "nested deeper"),
        (b'{"a":' * DEPTH, "nested deeper"),
        (b'{"schema": "\\ud800"}', "surrogate"),
        (b'\xef\xbb\xbf{"schema": 1}', "BOM"),
        (b'{"schema": 1} x', "Extra data"),
        (b"\xff\xfe", "decode"),
        (b"", "Expecting value"),
    ],
)
def test_json_with_more_than_one_reading_is_refused(folder, data, message):
    rewrite(folder, "artefact.json", data)
    with pytest.raises(CorruptedArtefactError, match=message):
        read_artefact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(extra=1), "extra: Extra inputs"),
        (lambda d: d["input"].update(species=7), "input.species"),
        (lambda d: d.update(kind="pickle"), "kind"),
        (lambda d: d.update(method="os.system"), "method"),
        (lambda d: d.update(method="../x"), "method"),
        (lambda d: d["input"].update(min_coverage=2.0), "min_coverage"),
        (lambda d: d.pop("input"), "input: Field required"),
        (lambda d: d["setup"].update(method="eval"), "setup.method"),
        (lambda d: d.pop("schema"), "schema version"),
        (lambda d: d.update(schema="1"), "schema version"),
        (lambda d: d.update(schema=True), "schema version"),
        (lambda d: d.update(domain={"a": [["b"]]}), "domain"),
    ],
)
def test_schema_violations_name_the_place(folder, change, message):
    edit_json(folder, change)
    with pytest.raises(SchemaError, match=message):
        read_artefact(folder)


def test_a_document_that_is_not_a_mapping(folder):
    rewrite(folder, "artefact.json", b"[]")
    with pytest.raises(SchemaError, match="schema version"):
        read_artefact(folder)


def test_newer_schema(folder):
    edit_json(folder, lambda d: d.update(schema=2))
    with pytest.raises(SchemaVersionError, match="Update sczoo"):
        read_artefact(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schema"] = 9
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SchemaVersionError, match="Update sczoo"):
        read_artefact(folder)


def test_older_schemas_are_migrated_step_by_step(monkeypatch):
    def to_one(document):
        return {**document, "schema": 1, "method": document["algorithm"]}

    monkeypatch.setitem(_record._MIGRATIONS, 0, to_one)
    assert upgrade({"schema": 0, "algorithm": "toy"})["method"] == "toy"
    with pytest.raises(SchemaError, match="never existed"):
        upgrade({"schema": -1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tsymbol\n", "first line"),
        ("id\tsymbol\timportance\nA\t\t", "line feed"),
        ("id\tsymbol\timportance\nA\t\t\nA\t\t\n", "twice"),
        ("id\tsymbol\timportance\n\tA\t\n", "empty, padded"),
        ("id\tsymbol\timportance\nA\r\t\t\n", "empty, padded"),
        ("id\tsymbol\timportance\nA\t\tnan\n", "not a number"),
        ("id\tsymbol\timportance\nA\t\t1e999\n", "out of range"),
        ("id\tsymbol\timportance\nA\t\t٣\n", "not a number"),
        ("id\tsymbol\timportance\nA\t\n", "2 columns"),
        ("id\tsymbol\timportance\nA\t\t\n", "lists 1 genes"),
        ("id\tsymbol\timportance\n" + "".join(f"X{i}\t\t\n" for i in range(12)), "other genes"),
    ],
)
def test_gene_table_is_read_strictly(folder, text, message):
    rewrite(folder, "genes.tsv", text.encode())
    with pytest.raises(CorruptedArtefactError, match=message):
        read_artefact(folder)


def test_gene_order_is_part_of_the_contract(folder):
    header, *rows = (folder / "genes.tsv").read_text().splitlines()
    rewrite(folder, "genes.tsv", ("\n".join([header, *rows[::-1]]) + "\n").encode())
    with pytest.raises(CorruptedArtefactError, match="another order"):
        read_artefact(folder)


@pytest.mark.parametrize(
    "genes",
    [
        [{"id": "A\tB", "symbol": None, "importance": None}],
        [{"id": "", "symbol": None, "importance": None}],
        [{"id": "A", "symbol": None, "importance": float("nan")}],
        [{"id": "A", "name": "x"}],
        [{"id": "A"}, {"id": "A"}],
        [{"id": "\ud800"}],
    ],
)
def test_genes_that_cannot_be_read_back_are_not_written(tmp_path, genes):
    with pytest.raises(SchemaError):
        write_artefact(tmp_path / "a", make_record(), **make_contents(genes=genes))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": None},
        {"tensors": {"a": np.array(["text"])}},
        {"tensors": {"a": np.array([object()])}},
        {"tensors": {"a": np.zeros(2, dtype=complex)}},
        {"genes": GENES[:-1]},
        {"selftest": {"x": np.zeros((32, 5))}},
        {"selftest": {"x": np.zeros((32, 12)), "expected": np.zeros((31, 2))}},
        {"selftest": {"x": np.zeros((32, 12)), "expected": np.zeros((32, 2)), "tolerance": 0.0}},
        {"extra_files": {"model.pt": b""}},
        {"extra_files": {"../x": b""}},
    ],
)
def test_nothing_inconsistent_is_written(tmp_path, changes):
    with pytest.raises(SczooError):
        write_artefact(tmp_path / "a", make_record(), **make_contents(**changes))
    assert list(tmp_path.iterdir()) == []


def test_infinite_numbers_are_not_written(tmp_path):
    record = make_record(provenance={"loss": float("inf")})
    with pytest.raises(SchemaError, match="finite"):
        write_artefact(tmp_path / "a", record, **make_contents())


def test_overwrite(tmp_path, folder):
    with pytest.raises(ArtefactError, match="overwrite=True"):
        write_artefact(folder, make_record(), **make_contents())
    write_artefact(folder, make_record(version=2), **make_contents(), overwrite=True)
    assert read_artefact(folder).record.version == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".artefact.lock", "artefact"]


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtefactError, match=r"thesis\.tex"):
        write_artefact(home, make_record(), **make_contents(), overwrite=True)
    assert (home / "thesis.tex").read_text() == "years of work"
    link = tmp_path / "link"
    link.symlink_to(home)
    with pytest.raises(ArtefactError, match="link"):
        write_artefact(link, make_record(), **make_contents(), overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match="not a folder"):
        write_artefact(tmp_path / "file", make_record(), **make_contents(), overwrite=True)


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(ArtefactError, match="does not exist"):
        read_artefact(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match="not a folder"):
        read_artefact(tmp_path / "file")


VALUES = [
    None,
    True,
    3,
    2.5,
    "text",
    [1, "a", None],
    (1, (2, "b")),
    {"a": {"b": [1.5]}},
    {1: "one", ("k", 2): "tuple"},
    {"__type__": "array"},
    np.float32(0.1),
    np.int64(-3),
    np.bool_(True),
    np.array([[1, 2], [3, 4]], dtype=np.uint16),
    np.array([], dtype=np.float64),
    np.array(["b", "a"]),
    np.array(["b", None, 3, 2.5, True], dtype=object),
    np.array([0.1, np.nan, -np.inf], dtype=np.float32),
    np.array(7),
    float("nan"),
    {"field": {"mapping": np.array(["x"], dtype=object), "n": np.int64(1)}},
]


def same(left, right):
    if isinstance(left, np.ndarray):
        return (
            isinstance(right, np.ndarray)
            and left.shape == right.shape
            and left.dtype == right.dtype
            and all(same(a, b) for a, b in zip(left.ravel(), right.ravel(), strict=True))
        )
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (left != left and right != right)


@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{type(v).__name__}-{str(v)[:20]}")
def test_typed_json_round_trip(value):
    document = json.loads(json.dumps(encode_typed(value), allow_nan=False))
    assert same(decode_typed(document), value)


def test_typed_json_of_pandas_columns():
    pandas = pytest.importorskip("pandas")
    decoded = decode_typed(encode_typed(pandas.Index(["a", "b"])))
    np.testing.assert_array_equal(decoded, np.array(["a", "b"], dtype=object))


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"bytes", lambda: 0, 1j, np.datetime64("now")]
)
def test_typed_json_refuses_what_has_no_safe_form(value):
    with pytest.raises(SchemaError, match="cannot be stored safely"):
        encode_typed({"here": value}, where="registry")


@pytest.mark.parametrize(
    "document",
    [
        {"__type__": "pickle", "data": ""},
        {"__type__": ["array"]},
        {"__type__": "array", "dtype": "object", "shape": [2], "values": ["a"]},
        {"__type__": "array", "dtype": "object", "shape": [-1], "values": []},
        {"__type__": "array", "dtype": "datetime64[ns]", "shape": [0], "values": []},
        {"__type__": "array", "dtype": "int8", "shape": [1], "values": [400]},
        {"__type__": "array", "dtype": "int8", "shape": [1], "values": ["a"]},
        {"__type__": "array", "dtype": "object", "shape": [1], "values": [[1]]},
        {"__type__": "array", "dtype": "str", "shape": [1], "values": [1]},
        {"__type__": "array", "dtype": "int8", "shape": [True], "values": [1]},
        {"__type__": "array", "dtype": "int8", "shape": [1], "values": [1], "code": "x"},
        {"__type__": "dict", "items": [[[], 1]]},
        {"__type__": "dict", "items": [1]},
        {"__type__": "tuple", "items": 3},
        {"__type__": "float", "value": "1.5"},
        {"__type__": "scalar", "dtype": "int8"},
    ],
)
def test_typed_json_refuses_malformed_tags(document):
    with pytest.raises(CorruptedArtefactError):
        decode_typed({"inner": [document]})
