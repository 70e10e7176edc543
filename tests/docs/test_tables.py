"""The tables of the documentation are those of the benchmarks' results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("pandas")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tables.py"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("_benchmark_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_table_is_older_than_its_results(tables):
    outdated = [str(page) for page in tables.stale()]
    assert not outdated, f"run: make tables ({outdated})"


def test_a_table_is_the_mean_of_its_rows(tables, tmp_path, monkeypatch):
    rows = [
        {"data": name, "method": method, "seed": seed, "ari": value + seed, "note": "x"}
        for name, method, value in (("a", "M", 1.0), ("a", "N", 2.0), ("b", "M", 5.0))
        for seed in (0, 1)
    ]
    (tmp_path / "toy.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    spec = {"file": "toy", "rows": ["data"], "columns": ["method"], "values": {"ari": 1}}
    order = {"method": ["N", "M"]}
    made = tables.table({**spec, "order": order, "mean": True, "names": {"N": "ours"}})
    assert made.splitlines() == [
        "| data | ours | M |",
        "| --- | --- | --- |",
        "| a | 2.5 | 1.5 |",
        "| b |  | 5.5 |",
        "| **mean** |  | **3.5** |",
    ]
    made = tables.table({**spec, "where": {"data": "a", "method": "M"}, "count": True})
    assert made.splitlines()[2] == "| a | 1.5 (2) |"
    with pytest.raises(ValueError, match="no rows"):
        tables.table({**spec, "where": {"data": "c"}})
    page = f"text\n<!-- table\n{json.dumps(spec)}\n-->\nold\n<!-- end of table -->\nmore\n"
    new = tables.rewritten(page)
    assert "old" not in new
    assert new.endswith("<!-- end of table -->\nmore\n")
    assert tables.rewritten(new) == new
