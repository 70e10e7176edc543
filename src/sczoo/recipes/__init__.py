"""How the zoo's own artefacts came to be: one file each, so that anybody can make them again.

A recipe trains an artefact from named data with a fixed seed and measures the figures of its
card. ``sczoo reproduce NAME`` runs all of it and compares; ``sczoo verify NAME`` measures the
figures again on the artefact as it is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sczoo.recipes._recipe import Recipe

# id of the artefact -> module of its recipe
_INDEX = {
    "dpdcan/pbmc": "dpdcan_pbmc",
    "gramdr/pbmc": "gramdr_pbmc",
    "grit/pbmc-markers": "grit_pbmc_markers",
    "scagc/pbmc": "scagc_pbmc",
    "scdd/pancreas": "scdd_pancreas",
    "scdd/pbmc": "scdd_pbmc",
    "sce2tm/pancreas": "sce2tm_pancreas",
    "sce2tm/pbmc-interferon": "sce2tm_pbmc_interferon",
}

__all__ = ["get_recipe", "list_recipes"]


def list_recipes() -> list[str]:
    """Ids of the artefacts that have a recipe."""
    return sorted(_INDEX)


def get_recipe(identifier: str) -> Recipe:
    """Return the recipe of an artefact.

    Parameters
    ----------
    identifier
        Id without version, such as ``"sce2tm/pbmc-interferon"``.

    Raises
    ------
    UnknownArtefactError
        If there is no recipe of that name.
    """
    from sczoo.errors import UnknownArtefactError

    if identifier not in _INDEX:
        raise UnknownArtefactError(
            f"There is no recipe for {identifier!r}; there are {', '.join(list_recipes())}. "
            "Artefacts of other registries are made again by the command on their card."
        )
    return import_module(f"sczoo.recipes.{_INDEX[identifier]}").RECIPE
