"""sce2tm/pancreas: gene programs of the human pancreas."""

from __future__ import annotations

from typing import Any

from sczoo.recipes._figures import clustering_metrics, held_out_clustering
from sczoo.recipes._pancreas import data, pancreas_card
from sczoo.recipes._recipe import Recipe
from sczoo.recipes.sce2tm_pbmc_interferon import fit


def train() -> Any:
    """Train on every donor but the held-out one."""
    return fit(data()[0])


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the model on the held-out donor."""
    reference, patient, held_out = data()
    scores = held_out_clustering(
        model.get_latent_representation(patient),
        reference,
        patient,
        own=lambda: fit(patient).get_latent_representation(),
        baselines=baselines,
    )
    return clustering_metrics(*scores, f"donor {held_out}", RECIPE.verify)


def card(model: Any) -> dict[str, Any]:
    """State what the card says besides its figures."""
    return pancreas_card(RECIPE, "Gene programs of the human pancreas", [])


RECIPE = Recipe("sce2tm/pancreas", 1, train, figures, card)
