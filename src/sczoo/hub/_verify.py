"""Checking an artefact again: hashes, documents, card, self-test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sczoo.errors import RevokedError, SczooError
from sczoo.hub._load import (
    is_path,
    open_artefact,
    open_cells,
    open_model,
    require_place,
    run_selftest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sczoo.base._artefact import Artefact
    from sczoo.hub._registry import Location

__all__ = ["Check", "VerifyReport", "verify"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    result: Literal["passed", "failed", "skipped"]
    message: str


@dataclass(frozen=True)
class VerifyReport:
    """Result of :func:`verify`."""

    target: str
    path: Path | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(check.result != "failed" for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{check.result:<8}{check.name}: {check.message}" for check in self.checks]
        return "\n".join([f"{self.target}: {'ok' if self.ok else 'NOT ok'}", *lines])


def verify(
    name_or_dir: str | os.PathLike[str],
    *,
    registry: Location | Sequence[Location] | None = None,
    figures: bool = True,
) -> VerifyReport:
    """Check an artefact's hashes, documents, card and self-test, and measure its figures again.

    Parameters
    ----------
    name_or_dir
        ``id``, ``id:version``, or a folder.
    registry
        Further registries, which win over the others.
    figures
        Measure the figures of the card again, for artefacts of the zoo whose data are at hand.

    Returns
    -------
    A report. Failures are in the report; only an unknown name or a revoked entry is an error.
    """
    require_place(name_or_dir)
    target = os.fspath(name_or_dir)
    entry = None
    if not is_path(name_or_dir):
        from sczoo.hub._registry import find

        entry = find(target, registry).entry
    try:
        artefact = open_artefact(name_or_dir, registry)
    except RevokedError:
        raise
    except SczooError as error:
        return VerifyReport(target, None, (Check("files", "failed", str(error)),))
    files = set(artefact.manifest.files)
    checks = [Check("files", "passed", f"{len(files)} files have the size and hash stated")]
    foreign = sorted({item.name for item in artefact.path.iterdir()} - files - {"manifest.json"})
    if foreign:
        message = f"not part of the artefact, never read: {', '.join(foreign)}"
        checks.append(Check("other files", "skipped", message))
    checks.append(_check_card(artefact, entry))
    content, opened = _check_content(artefact)
    checks.append(content)
    if figures and entry is not None and opened is not None:
        from sczoo.hub._reproduce import figure_checks, recipe_of

        recipe = recipe_of(entry)
        if recipe is not None:
            checks += figure_checks(entry, recipe, opened)
    return VerifyReport(target, artefact.path, tuple(checks))


def _check_card(artefact: Artefact, entry: object) -> Check:
    from sczoo.hub._card import card_differs
    from sczoo.hub._schema import RegistryEntry

    card = artefact.card
    if card is None:
        return Check("card", "skipped", "not published yet, so there is no card")
    if not isinstance(entry, RegistryEntry):
        return Check("card", "skipped", "a folder has no registry entry to compare with")
    differs = card_differs(entry, card)
    if differs is None:
        return Check("card", "skipped", "written by another version of the card's template")
    if differs:
        return Check("card", "failed", "the card says something else than the registry entry")
    return Check("card", "passed", "the card agrees with the registry entry")


def _check_content(artefact: Artefact) -> tuple[Check, Any]:
    """Check what is inside; returns it too, unless it is not sound."""
    if artefact.record.kind == "dataset":
        try:
            adata = open_cells(artefact)
        except SczooError as error:
            return Check("cells", "failed", str(error)), None
        if list(map(str, adata.var_names)) != artefact.gene_ids():
            message = "data.h5ad has other genes than genes.tsv"
            return Check("cells", "failed", message), None
        return Check("cells", "passed", f"{adata.n_obs} cells with the genes stated"), adata
    try:
        model = open_model(artefact)
        difference = run_selftest(model, artefact)
    except SczooError as error:
        return Check("self-test", "failed", str(error)), None
    if difference is None:
        return Check("self-test", "failed", "the artefact has no self-test"), None
    return Check("self-test", "passed", f"largest difference {difference:.2g}"), model
