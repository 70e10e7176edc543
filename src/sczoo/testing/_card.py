"""Checks that a model can be published: the gate lets it pass, its card renders and validates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest import mock

from sczoo import hub
from sczoo.errors import UnknownMethodError
from sczoo.hub._card import SECTIONS, card_differs
from sczoo.model import get_model_class
from sczoo.testing._expect import CheckSkippedError, require, require_equal
from sczoo.testing._privacy import require_absent

if TYPE_CHECKING:
    from pathlib import Path

    from sczoo.hub import RegistryEntry
    from sczoo.testing._case import ModelCase

# What only a person knows; the rest must come from the model itself.
_FIELDS: dict[str, Any] = {
    "licence": {"weights": "CC-BY-4.0", "data": "CC-BY-4.0"},
    "training": {
        "data": [{"name": "Cells of the battery", "accession": "simulated", "access": "open"}],
        "n_donors": 2,
        "split": "all cells, no donor held out",
        "command": "sczoo.testing.check_model(Model)",
    },
    "metrics": "not applicable: cells of the battery",
    "limits": ["cells of the battery"],
    "out_of_scope": ["diagnosis"],
    "input": {"species": "homo_sapiens"},
}


def _published(case: ModelCase) -> tuple[str, RegistryEntry, Path]:
    """Publish the reference model once into a registry of the case."""

    def publish() -> tuple[str, RegistryEntry, Path]:
        name = f"{case.model_class._method}/check-model"
        registry = case.folder / "registry"
        return name, hub.publish(case.model, name, registry=registry, card=_FIELDS), registry

    return case.keep("published", publish)


def check_release_gate(case: ModelCase) -> None:
    """Require that the release gate finds nothing about single patients in a saved model."""
    report = hub.inspect(case.saved, case.model)
    codes = sorted({finding.code for finding in report.findings})
    require(not codes, f"The release gate finds {', '.join(codes)}.")


def check_card_renders_and_validates(case: ModelCase) -> None:
    """Require that publishing writes a complete card that agrees with the registry's entry."""
    name, entry, registry = _published(case)
    folder = registry / "artefacts" / name / str(entry.version)
    card = (folder / "card.md").read_text(encoding="utf-8")
    for section in SECTIONS:
        require(f"## {section}" in card, f"The card has no section {section!r}.")
    require(card_differs(entry, card) is False, "The card says something else than the entry.")
    require(entry.method == case.model_class._method, f"The entry's method is {entry.method!r}.")
    require(entry.summary == case.model_class._summary, "The entry has another summary.")
    require(
        entry.privacy.per_cell_content == entry.privacy.per_donor_content == "none",
        "The entry states content about single patients.",
    )
    require_absent(registry, case.cells().obs_names, "barcode")


def check_published_model_loads_by_name(case: ModelCase) -> None:
    """Require that a stranger loads the published model by name and gets equal results."""
    try:
        installed = get_model_class(case.model_class._method)
    except UnknownMethodError:
        installed = None
    if installed is not case.model_class:
        raise CheckSkippedError(
            f"{case.model_class.__name__} is not installed under the method "
            f"{case.model_class._method!r} (entry points of the group 'sczoo.methods')"
        )
    name, _, registry = _published(case)
    with mock.patch.dict(os.environ, {"SCZOO_CACHE_DIR": str(case.folder / "cache")}):
        require(hub.verify(name, registry=registry).ok, "sczoo.hub.verify finds a fault.")
        loaded = hub.load(name, registry=registry, accelerator="cpu")
        require_equal(case.embed(loaded, case.query(bare=True)), case.latent, "Loaded by name")
        query = case.query(bare=True)[:, ::-1].copy()
        result = hub.transfer(loaded, query)
    require(result.alignment.coverage == 1, "sczoo.transfer reports another coverage than 1.")
    stored = query.obsm[f"X_{case.model_class._method}"]
    require_equal(stored, case.latent, "The result that sczoo.transfer writes")
