"""Make the zoo's own artefacts: ``python -m sczoo.recipes [ID ...]``, in a source tree.

An artefact that the index has already is left alone: versions never change. A changed recipe
gets the next version.
"""

from __future__ import annotations

import logging
import shutil
import sys

from sczoo.errors import RegistryError, UnknownArtefactError
from sczoo.hub import publish, show
from sczoo.hub._fetch import pull
from sczoo.hub._registry import embedded_registry
from sczoo.recipes import get_recipe, list_recipes

logger = logging.getLogger("sczoo")


def main(identifiers: list[str]) -> None:
    """Make and publish into the index of this source tree."""
    root = embedded_registry().parent
    if not (root / "pyproject.toml").is_file():
        raise RegistryError("The zoo's own artefacts are made in a source tree, not in a package.")
    for identifier in identifiers or list_recipes():
        recipe = get_recipe(identifier)
        name = f"{recipe.id}:{recipe.version}"
        try:
            show(name)
        except UnknownArtefactError:
            model = recipe.make()
            entry = publish(
                model, name, registry=root, card=recipe.full_card(model), allow=recipe.allow
            )
            logger.info("%s is made: %.2f MB.", name, entry.size / 1e6)
        card = root / "model_cards" / f"{identifier.replace('/', '-')}.md"
        shutil.copyfile(pull(identifier) / "card.md", card)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(sys.argv[1:])
