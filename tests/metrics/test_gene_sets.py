from __future__ import annotations

import gzip

import numpy as np
import pytest

from sczoo.errors import EmptyDataError, InputError, SczooError
from sczoo.metrics import read_gmt, topic_coherence

TEXT = "REACTOME_ISG\thttps://example.org\tISG15\tMX1\tISG15\nB_CELL\t\tCD79A\tMS4A1\n"


@pytest.mark.parametrize("packed", [False, True])
def test_reads_plain_and_gzipped(tmp_path, packed):
    path = tmp_path / "sets.gmt"
    path.write_bytes(gzip.compress(TEXT.encode()) if packed else TEXT.encode())
    expected = {"REACTOME_ISG": ("ISG15", "MX1"), "B_CELL": ("CD79A", "MS4A1")}
    assert read_gmt(path) == expected
    assert read_gmt(str(path)) == expected
    assert topic_coherence([["CD79A", "MS4A1"]], path) == pytest.approx(1)


def test_tolerates_what_other_programs_write(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_bytes(("\ufeff" + TEXT.replace("\n", "\t\r\n") + "\r\n").encode())
    assert read_gmt(path)["REACTOME_ISG"] == ("ISG15", "MX1")
    assert list(read_gmt(path)) == ["REACTOME_ISG", "B_CELL"]


@pytest.mark.parametrize("content", ["", "\n\n", "  \n"])
def test_empty_file(tmp_path, content):
    path = tmp_path / "empty.gmt"
    path.write_text(content)
    with pytest.raises(EmptyDataError, match=r"empty\.gmt holds no gene set"):
        read_gmt(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\tdescription\n", "line 1"),
        ("one\tdescription\tA\ntwo\n", "line 2"),
        ("\tdescription\tA\n", "line 1"),
        ("one\td\tA\none\td\tB\n", "line 2: the set 'one' occurs twice"),
        ("one\td\t\t \n", "line 1"),
    ],
)
def test_malformed_lines_are_named(tmp_path, content, message):
    path = tmp_path / "bad.gmt"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_gmt(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.gmt"):
        read_gmt(tmp_path / "nowhere.gmt")
    with pytest.raises(InputError):
        read_gmt(tmp_path)


def test_damaged_bytes_give_typed_errors_or_sets(tmp_path):
    whole = gzip.compress(TEXT.encode() * 1, mtime=0)
    rng = np.random.default_rng(0)
    damaged = [whole[:cut] for cut in range(len(whole))]
    for _ in range(500):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] = rng.integers(256)
        damaged.append(bytes(changed))
    path = tmp_path / "damaged.gmt.gz"
    for content in damaged:
        path.write_bytes(content)
        try:
            sets = read_gmt(path)
        except SczooError:
            continue
        assert sets


def test_reads_the_shared_collection(shared_data):
    sets = read_gmt(shared_data("resources/genesets_reactome_wikipathways_msigdb2024.1_hs.gmt.gz"))
    assert len(sets) == 1736 + 830
    assert "ISG15" in sets["REACTOME_INTERFERON_ALPHA_BETA_SIGNALING"]
