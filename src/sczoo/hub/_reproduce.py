"""Making an artefact of the zoo again, and measuring the figures of its card again."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from sczoo.errors import ArtefactError, FetchError, UnknownArtefactError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sczoo.base._artefact import Artefact
    from sczoo.hub._registry import Location
    from sczoo.hub._schema import RegistryEntry
    from sczoo.hub._verify import Check, VerifyReport
    from sczoo.recipes._recipe import Recipe

__all__ = ["reproduce"]


def reproduce(
    name: str,
    output: str | os.PathLike[str] | None = None,
    *,
    registry: Location | Sequence[Location] | None = None,
) -> VerifyReport:
    """Train an artefact of the zoo again by its recipe, and compare.

    Parameters
    ----------
    name
        ``id`` or ``id:version`` of an artefact that has a recipe.
    output
        New folder for what was made; not kept unless given.
    registry
        Further registries, which win over the others.

    Returns
    -------
    A report with a check of the self-test's outputs and one of each figure on the card. The same
    machine and library versions give the same weights; others may differ in the last digits, and
    figures within the recipe's tolerance pass.

    Raises
    ------
    UnknownArtefactError
        If the artefact is unknown or has no recipe of this version.
    FetchError
        If the training data cannot be had.
    ArtefactError
        If `output` exists.
    """
    from sczoo.hub._fetch import open_found
    from sczoo.hub._registry import find
    from sczoo.hub._verify import VerifyReport

    found = find(name, registry)
    recipe = recipe_of(found.entry)
    if recipe is None:
        raise UnknownArtefactError(
            f"{found.entry.name} has no recipe in this version of sczoo. The command on its card "
            "says how it was made: sczoo show."
        )
    if output is not None and os.path.lexists(output):
        raise ArtefactError(f"{os.fspath(output)} exists already; choose another folder.")
    artefact = open_found(found)
    model = recipe.make()
    if output is not None:
        _save(model, output)
    figures = figure_checks(found.entry, recipe, model, recipe.retrained_tolerance)
    checks = [_compare_outputs(artefact, model), *figures]
    return VerifyReport(found.entry.name, artefact.path, tuple(checks))


def recipe_of(entry: RegistryEntry) -> Recipe | None:
    """Find the recipe that made an entry; ``None`` if this sczoo has none of that version."""
    from sczoo.recipes import get_recipe

    try:
        recipe = get_recipe(entry.id)
    except UnknownArtefactError:
        return None
    return recipe if recipe.version == entry.version else None


def _save(model: Any, output: str | os.PathLike[str]) -> None:
    if hasattr(model, "save"):
        model.save(output)
        return
    from sczoo.model.scdd import save_dataset

    save_dataset(model, output)


def figure_checks(
    entry: RegistryEntry, recipe: Recipe, model: Any, tolerance: float | None = None
) -> list[Check]:
    """Measure the figures of a card again."""
    from sczoo.hub._verify import Check

    if isinstance(entry.metrics, str):
        return [Check("figures", "skipped", entry.metrics)]
    allowed = recipe.tolerance if tolerance is None else tolerance
    try:
        measured = recipe.figures(model, baselines=False)
    except FetchError as error:
        return [Check("figures", "skipped", f"the data to measure them on are missing. {error}")]
    now = {(item["name"], item["split"]): float(item["value"]) for item in measured}
    checks = []
    for metric in entry.metrics:
        value = now.get((metric.name, metric.split), math.nan)
        # nan, a figure that the recipe does not know, agrees with nothing
        agrees = abs(value - metric.value) <= allowed
        message = f"card {metric.value:g}, measured again {value:g} ({metric.split})"
        checks.append(Check(f"figure {metric.name}", "passed" if agrees else "failed", message))
    return checks


def _compare_outputs(artefact: Artefact, model: Any) -> Check:
    import numpy as np

    from sczoo.base._persistence import selftest_output
    from sczoo.hub._verify import Check

    stored = artefact.selftest()
    if stored is None:
        return Check("outputs", "skipped", "the artefact has no self-test")
    computed = selftest_output(model, stored.x)
    if computed.shape != stored.expected.shape:
        return Check("outputs", "failed", "the model made again has outputs of another shape")
    difference = float(np.max(np.abs(computed - stored.expected)))
    if difference <= stored.tolerance:
        return Check("outputs", "passed", f"the same weights: largest difference {difference:.2g}")
    made_with = artefact.record.provenance.get("versions")
    return Check(
        "outputs",
        "skipped",
        f"other weights (largest difference {difference:.2g}); only the machine and versions that "
        f"made the artefact give the same: {made_with}",
    )
