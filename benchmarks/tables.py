"""Write the tables of the documentation from the results of the benchmarks.

A table stands in a page between two comments, the first of which says where it comes from::

    <!-- table
    file: gramdr_masks
    where: {mask: strong}
    rows: [data]
    columns: [method]
    values: {ari: 2, purity: 2}
    -->
    ...
    <!-- end of table -->

``file`` is the name of a result, or ``registry`` for the figures of the zoo's own artefacts.
``values`` maps columns of the results to decimals; several are joined by ``" / "``, or without
``columns`` stand in columns of their own. Rows that
agree in everything named are averaged. Optional: ``order`` (lists of wanted values by column,
which also select), ``names`` (headings in plain words), ``mean: true`` (a last line with the
mean), ``spread: true`` (plus or minus the standard deviation), ``count: true`` (how many results
each mean is of).

Run with ``python benchmarks/tables.py`` (``make tables``), or ``--check`` to only compare.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts),
]
_TABLE = re.compile(r"(<!-- table\n(.*?)-->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
_KNOWN = {
    "file",
    "where",
    "rows",
    "columns",
    "values",
    "order",
    "names",
    "mean",
    "spread",
    "count",
}


def table(spec: dict[str, Any]) -> str:
    """Return the markdown of one table."""
    if unknown := set(spec) - _KNOWN:
        raise ValueError(f"unknown in a table: {sorted(unknown)}")
    data = pd.DataFrame(_read(spec["file"]))
    for key, wanted in spec.get("where", {}).items():
        data = data[data[key].isin(wanted if isinstance(wanted, list) else [wanted])]
    order = spec.get("order", {})
    for key, wanted in order.items():
        data = data[data[key].isin(wanted)]
    if data.empty:
        raise ValueError(f"no rows of {spec['file']} are left: {spec}")
    rows, columns = spec["rows"], spec.get("columns", [])
    cells = _cells(data, [*rows, *columns], spec)
    wide = cells.unstack(columns) if columns else _apart(data, spec)
    lines = _arranged(wide.index, rows, order)
    heads = _arranged(wide.columns, columns, order) if columns else list(wide.columns)
    names = spec.get("names", {})
    body = [[*_words(line, names), *(wide.loc[line, head] for head in heads)] for line in lines]
    if spec.get("mean"):
        body.append(["**mean**", *[""] * (len(rows) - 1), *_means(data, heads, lines, spec)])
    header = [names.get(key, key.replace("_", " ")) for key in rows]
    header += [", ".join(_words(head, names)) for head in heads]
    out = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(_shown(cell) for cell in line) + " |\n" for line in out)


def _read(name: str) -> list[dict[str, Any]]:
    """Rows of a benchmark, or, for ``registry``, the figures of the zoo's own artefacts."""
    if name != "registry":
        return json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    rows = []
    for entry in yaml.safe_load((ROOT / "registry.yaml").read_text())["entries"]:
        for metric in entry["metrics"]:
            beside = metric["baseline"]
            own = [key for key in beside if key.startswith("trained_on_the_patient")]
            others = [key for key in beside if key not in own]
            rows.append(
                {
                    "artefact": f"`{entry['id']}`",
                    "figure": metric["name"].replace("_", " "),
                    "data": metric["split"],
                    "value": metric["value"],
                    "patient": beside[own[0]] if own else None,
                    "baseline": others[0].replace("_", " ") if others else "",
                    "other": beside[others[0]] if others else None,
                }
            )
    return rows


def _cells(data: pd.DataFrame, keys: list[str], spec: dict[str, Any]) -> pd.Series:
    return data.groupby(keys, sort=False, dropna=False).apply(
        lambda group: _cell(group, spec), include_groups=False
    )


def _apart(data: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """Without columns, each value has a column of its own."""
    return pd.DataFrame(
        {
            key: _cells(data, spec["rows"], {**spec, "values": {key: digits}})
            for key, digits in spec["values"].items()
        }
    )


def _cell(group: pd.DataFrame, spec: dict[str, Any]) -> str:
    parts = []
    for key, digits in spec["values"].items():
        known = pd.to_numeric(group[key], errors="coerce").dropna()
        if known.empty:
            parts.append("")
            continue
        part = f"{known.mean():.{digits}f}"
        if spec.get("spread") and len(known) > 1:
            part += f" ± {known.std():.{digits}f}"
        parts.append(part)
    if not any(parts):
        return ""
    return " / ".join(parts) + (f" ({len(group)})" if spec.get("count") else "")


def _means(data: pd.DataFrame, heads: list, lines: list, spec: dict[str, Any]) -> list[str]:
    """Mean over the lines of each column, where the column has them all."""
    rows, columns = spec["rows"], spec.get("columns", [])
    means = []
    for head in heads:
        chosen = data
        if columns:
            wanted = head if isinstance(head, tuple) else (head,)
            for key, value in zip(columns, wanted, strict=True):
                chosen = chosen[chosen[key] == value]
        groups = chosen.groupby(rows, dropna=False)
        if groups.ngroups < len(lines):
            means.append("")
            continue
        average = groups[list(spec["values"])].mean(numeric_only=True)
        cell = _cell(average.reset_index(), {**spec, "spread": False, "count": False})
        means.append(f"**{cell}**")
    return means


def _arranged(index: Any, keys: list[str], order: dict[str, list]) -> list:
    """Labels of an index, sorted by the wanted order and else as they came."""
    labels = list(index)

    def rank(label: Any) -> tuple:
        parts = label if isinstance(label, tuple) else (label,)
        return tuple(
            order[key].index(part) if key in order else 0
            for key, part in zip(keys, parts, strict=True)
        )

    return sorted(labels, key=rank)


def _words(label: Any, names: dict[str, str]) -> list[str]:
    parts = label if isinstance(label, tuple) else (label,)
    return [names.get(part, _number(part)) for part in parts]


def _number(part: Any) -> str:
    if isinstance(part, float):
        return "" if part != part else f"{part:g}"
    return str(part)


def _shown(cell: Any) -> str:
    return "" if isinstance(cell, float) and cell != cell else str(cell)


def rewritten(page: str) -> str:
    """Return a page with its tables made anew."""

    def anew(match: re.Match[str]) -> str:
        return match[1] + "\n" + table(yaml.safe_load(match[2])) + "\n" + match[4]

    return _TABLE.sub(anew, page)


def stale() -> dict[Path, str]:
    """Return the pages whose tables are not those of the results, as they should be."""
    pages = {page: page.read_text() for page in PAGES if page.exists()}
    new = {page: rewritten(text) for page, text in pages.items()}
    return {page: text for page, text in new.items() if text != pages[page]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if outdated")
    check = parser.parse_args().check
    for page, text in stale().items():
        print(page.relative_to(ROOT))
        if not check:
            page.write_text(text)
    sys.exit(bool(check and stale()))
