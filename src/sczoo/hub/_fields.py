"""What a card says, gathered from the artefact, the method and the person who publishes."""

from __future__ import annotations

import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sczoo.base._provenance import interruption
from sczoo.errors import SchemaError
from sczoo.hub._schema import CardFields, RegistryEntry, to_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sczoo.base._artefact import ArtefactRecord
    from sczoo.hub._gate_report import GateReport

__all__ = ["complete_entry", "gather"]

_COMPUTED = {"per_cell_content", "per_donor_content", "compared_with_data", "allowed"}
_LIBRARIES = {"python": "python", "torch": "torch", "scvi_tools": "scvi-tools"}
# How to state each field that only a person can know.
_EXAMPLES = {
    "summary": '"30 gene programs of interferon-stimulated PBMC"',
    "licence": '{"weights": "CC-BY-4.0", "data": "CC-BY-4.0"}',
    "citation": '[{"doi": "10.1038/..."}]',
    "training.data": '[{"name": "Kang 2018", "accession": "GSE96583", "access": "open"}]',
    "training.n_cells": "8000",
    "training.n_donors": '7, or "not applicable: <why>"',
    "training.split": '"donors; held out: one"',
    "training.command": '"sczoo train sce2tm data.h5ad -o model"',
    "training.seed": "0",
    "metrics": '[{"name": "ari", "value": 0.71, "ci95": [0.68, 0.74], "split": "held-out donor", '
    '"baseline": {"pca": 0.62}, "command": "..."}], or "not applicable: <why>"',
    "limits": '["trained on blood of adults only"]',
    "out_of_scope": '["diagnosis"]',
    "input.species": '"homo_sapiens"',
    "compat.trained_with": '{"python": "3.11", "torch": "2.13", "scvi_tools": "1.4.2"}',
}


def gather(
    record: ArtefactRecord, method_class: Any, card: Mapping[str, Any] | CardFields | None
) -> dict[str, Any]:
    """Merge what is known and what a person states into the document of an entry.

    A statement replaces what the method says of itself; it cannot contradict what the run
    recorded.
    """
    provenance = record.provenance
    libraries = provenance.get("versions")
    libraries = libraries if isinstance(libraries, dict) else {}
    known: dict[str, Any] = {
        "compat": {"sczoo": _compatible_range(), "trained_with": {}},
        "training": {},
        "released": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "input": record.input.model_dump(exclude_none=True, exclude={"genes_sha256"}),
    }
    for name, package in _LIBRARIES.items():
        if package in libraries:
            known["compat"]["trained_with"][name] = libraries[package]
    for name in ("n_cells", "n_donors", "seed"):
        if name in provenance:
            known["training"][name] = provenance[name]
    dp = _guarantee(provenance.get("privacy"))
    if dp is not None:
        known["privacy"] = {"dp": dp}
    if getattr(method_class, "_summary", ""):
        known["summary"] = method_class._summary
    if getattr(method_class, "_citation", None):
        known["citation"] = [dict(item) for item in method_class._citation]

    stated = to_document(card) if isinstance(card, CardFields) else dict(card or {})
    computed = _COMPUTED & set(stated.get("privacy") or {})
    if computed:
        raise SchemaError(
            f"card['privacy'] must not state {', '.join(sorted(computed))}: the release gate "
            "computes it."
        )
    if dp is not None and (stated.get("privacy") or {}).get("dp", dp) != dp:
        raise SchemaError(
            "card['privacy']['dp'] says something else than the artefact itself, which accounted "
            "for its training; leave it out."
        )
    for name, value in known["training"].items():
        said = (stated.get("training") or {}).get(name, value)
        if said != value:
            raise SchemaError(
                f"card['training']['{name}'] is {said}, but the artefact itself says {value}; "
                "leave it out."
            )
    contract = set(stated.get("input") or {}) - {"species"}
    if contract:
        raise SchemaError(
            f"card['input'] must not state {', '.join(sorted(contract))}: the artefact "
            "itself does."
        )
    merged = _merge(known, stated)
    interrupted = interruption(provenance)
    limits = merged.get("limits")
    if interrupted is not None and isinstance(limits, list):
        merged["limits"] = [interrupted, *(limit for limit in limits if limit != interrupted)]
    return merged


def _guarantee(recorded: Any) -> Any:
    """Read what a private method recorded about its guarantee, or that there is none."""
    if not isinstance(recorded, dict):
        return None
    if recorded.get("epsilon") is None:
        return recorded.get("statement")
    return dict(recorded)


def _compatible_range() -> str:
    try:
        major, minor = version("sczoo").split(".")[:2]
    except (PackageNotFoundError, ValueError):
        return ">=0.1"
    return f">={major}.{minor}"


def _merge(known: dict[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(known)
    for key, value in stated.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def complete_entry(
    fields: Mapping[str, Any], report: GateReport, **artefact: Any
) -> RegistryEntry:
    """Build an entry from the gathered fields, the gate's report and facts of the artefact.

    Raises
    ------
    SchemaError
        If something is missing or wrong; the message lists all of it with an example each.
    """
    privacy = {
        **(fields.get("privacy") or {}),
        "per_cell_content": report.per_cell_content,
        "per_donor_content": report.per_donor_content,
        "compared_with_data": report.compared_with_data,
        "allowed": sorted({finding.code for finding in report.allowed}),
    }
    try:
        return RegistryEntry.model_validate({**fields, **artefact, "privacy": privacy})
    except ValidationError as error:
        raise SchemaError(_describe(error)) from error


def _describe(error: ValidationError) -> str:
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=False):
        steps = [str(step) for step in item["loc"] if "[" not in str(step)]
        place = ".".join(steps) or "card"
        example = next(
            (
                _EXAMPLES[".".join(steps[:length])]
                for length in range(len(steps), 0, -1)
                if ".".join(steps[:length]) in _EXAMPLES
            ),
            None,
        )
        hint = f", for example {example}" if example else ""
        lines.setdefault(place, f"  {place}: {item['msg']}{hint}")
    return (
        "The card is not complete. State what is missing with card={...} (or in the file given "
        "to sczoo publish --card):\n" + "\n".join(lines.values())
    )
