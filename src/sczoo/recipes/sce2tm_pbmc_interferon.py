"""sce2tm/pbmc-interferon: gene programs of interferon-stimulated blood cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sczoo.recipes._figures import clustering_metrics, held_out_clustering
from sczoo.recipes._pbmc import HELD_OUT, data, pbmc_card
from sczoo.recipes._recipe import Recipe, trained

if TYPE_CHECKING:
    from anndata import AnnData


def fit(cells: AnnData) -> Any:
    """Train on some cells, with the defaults."""
    return trained("SCE2TM", cells)


def train() -> Any:
    """Train on every donor but the held-out one."""
    return fit(data()[0])


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the model on the held-out donor."""
    reference, patient = data()
    scores = held_out_clustering(
        model.get_latent_representation(patient),
        reference,
        patient,
        own=lambda: fit(patient).get_latent_representation(),
        baselines=baselines,
    )
    return clustering_metrics(*scores, HELD_OUT, RECIPE.verify)


def card(model: Any, command: str | None = None) -> dict[str, Any]:
    """State what the card says besides its figures."""
    return pbmc_card(
        RECIPE,
        "Gene programs of interferon-stimulated blood cells",
        ["Stimulated cells come from a single training donor and five cell types."],
        command=command,
    )


RECIPE = Recipe("sce2tm/pbmc-interferon", 1, train, figures, card)
