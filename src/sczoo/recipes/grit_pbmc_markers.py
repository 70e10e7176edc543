"""grit/pbmc-markers: eight types of blood cells by their markers, refined on the graph."""

from __future__ import annotations

from typing import Any

from sczoo.recipes._figures import card_metrics, cross_validated, labelling, logistic_regression
from sczoo.recipes._pbmc import HELD_OUT, data, pbmc_card
from sczoo.recipes._recipe import Recipe, trained

# names of the types in the data -> in the marker table
TYPES = {
    "B cells": "B cell",
    "CD14+ Monocytes": "CD14 monocyte",
    "CD4 T cells": "CD4 T cell",
    "CD8 T cells": "CD8 T cell",
    "Dendritic cells": "dendritic cell",
    "FCGR3A+ Monocytes": "CD16 monocyte",
    "Megakaryocytes": "megakaryocyte",
    "NK cells": "natural killer cell",
}


def train() -> Any:
    """Build the marker scorer and its graph on every donor but the held-out one."""
    return trained("GRIT", data()[0], classes=list(TYPES.values()))


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the labels of the held-out donor's cells; no label was used for them."""
    reference, patient = data()
    truth = patient.obs["cell_type"].astype(str).map(TYPES).to_numpy(dtype=str)
    beside = {}
    if baselines:
        named = patient.obs["cell_type"].astype(str).to_numpy(dtype=str)
        beside = {
            "markers_without_refinement": labelling(
                truth, model.predict(patient, raw=True).astype(str)
            ),
            "trained_on_the_patients_labels": labelling(named, cross_validated(patient)),
            "trained_on_the_other_donors_labels": labelling(
                named, logistic_regression(reference, patient)
            ),
        }
    measured = labelling(truth, model.predict(patient).astype(str))
    return card_metrics(measured, beside, f"{HELD_OUT}, held out", RECIPE.verify)


def card(model: Any) -> dict[str, Any]:
    """State what the card says besides its figures."""
    limits = [
        "Eight candidate types: cells of any other type get the label of one of them, unless "
        "coverage= is used.",
        "CD4 and CD8 T cells are told apart poorly; predict_parents() calls both T cells.",
    ]
    return pbmc_card(RECIPE, "Eight types of blood cells by markers, without labels", limits)


RECIPE = Recipe("grit/pbmc-markers", 1, train, figures, card)
