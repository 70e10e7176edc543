"""scagc/pbmc: clusters of blood cells on a graph that was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sczoo.recipes._figures import (
    card_metrics,
    clustering,
    label_free_clustering,
    pca_projection,
)
from sczoo.recipes._pbmc import HELD_OUT, data, pbmc_card
from sczoo.recipes._recipe import Recipe, trained

if TYPE_CHECKING:
    from anndata import AnnData


def fit(cells: AnnData) -> Any:
    """Train on some cells, with the defaults; the number of clusters is found, not given."""
    return trained("SCAGC", cells)


def train() -> Any:
    """Train on every donor but the held-out one."""
    return fit(data()[0])


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the clusters that the model gives to the held-out donor's cells."""
    reference, patient = data()
    truth = patient.obs["cell_type"].astype(str).to_numpy()
    beside = {}
    if baselines:
        beside = {
            "pca_50_leiden": label_free_clustering(pca_projection(reference, patient), truth),
            "trained_on_the_patient": clustering(truth, fit(patient).get_cluster_assignments()),
        }
    split = f"{HELD_OUT}, held out; clusters of the frozen model, no labels used"
    return card_metrics(clustering(truth, model.predict(patient)), beside, split, RECIPE.verify)


def card(model: Any) -> dict[str, Any]:
    """State what the card says besides its figures."""
    limits = [
        "Clusters are numbered, not named; a type that the training donors lack goes to the "
        "nearest cluster."
    ]
    return pbmc_card(RECIPE, "Clusters of blood cells on a learned graph of cells", limits)


RECIPE = Recipe("scagc/pbmc", 1, train, figures, card)
