"""scdd/pancreas: ten cells of each of six pancreatic types, to train a classifier on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sczoo.recipes._figures import card_metrics, labelling
from sczoo.recipes._pancreas import data, other_study, pancreas_card
from sczoo.recipes._recipe import Recipe
from sczoo.recipes.scdd_pbmc import ALLOWED, NOT_ANONYMOUS, beside, distil, labels_by

if TYPE_CHECKING:
    from anndata import AnnData


def train() -> AnnData:
    """Distil every donor but the held-out one."""
    return distil(data()[0])


def figures(distilled: AnnData, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Train on the distilled cells and label the held-out donor's, and those of another study."""
    reference, patient, held_out = data()
    metrics = []
    queries = {
        f"donor {held_out}, held out": patient,
        "Segerstolpe et al. 2016, 60 % of the genes": other_study(),
    }
    for name, query in queries.items():
        truth = query.obs["cell_type"].astype(str).to_numpy(dtype=str)
        others = beside(reference, query) if baselines else {}
        split = f"{name}; logistic regression on the distilled cells"
        measured = labelling(truth, labels_by(distilled, query))
        metrics += card_metrics(measured, others, split, RECIPE.verify)
    return metrics


def card(distilled: AnnData) -> dict[str, Any]:
    """State what the card says besides its figures."""
    limits = [NOT_ANONYMOUS]
    return pancreas_card(RECIPE, "Ten synthetic cells of each of six pancreatic types", limits)


RECIPE = Recipe("scdd/pancreas", 1, train, figures, card, allow=ALLOWED, retrained_tolerance=0.02)
