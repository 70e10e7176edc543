"""scdd/pbmc: ten cells of each of eight blood types, to train a classifier on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sczoo.recipes._figures import card_metrics, cross_validated, labelling, logistic_regression
from sczoo.recipes._pbmc import HELD_OUT, data, pbmc_card
from sczoo.recipes._recipe import Recipe, trained

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.recipes._figures import Score

PER_CLASS = 10
ALLOWED = ("categories:cell_type",)
NOT_ANONYMOUS = (
    "Distilled is not anonymous: the cells are synthetic, but no differential-privacy guarantee "
    "is given."
)


def distil(cells: AnnData) -> AnnData:
    """Train on some cells, and distil them."""
    return trained("SCDD", cells, setup={"labels_key": "cell_type"}).distill(PER_CLASS)


def train() -> AnnData:
    """Distil every donor but the held-out one."""
    return distil(data()[0])


def labels_by(distilled: AnnData, query: AnnData) -> Any:
    """Labels of the classifier that `sczoo.transfer` trains on distilled cells.

    Another study may share few genes; the card says so.
    """
    import sczoo

    query = query.copy()
    sczoo.transfer(distilled, query, min_coverage=0.5)
    return query.obs["scdd_label"].to_numpy(dtype=str)


def beside(reference: AnnData, query: AnnData) -> dict[str, dict[str, Score]]:
    """Measure the same classifier on averages, on all cells, and on the query's own cells."""
    from sczoo.model.scdd import select_cells

    truth = query.obs["cell_type"].astype(str).to_numpy(dtype=str)
    averages = select_cells(reference, "pseudobulk", PER_CLASS, labels_key="cell_type")
    genes = reference.var_names.intersection(query.var_names)
    everything = logistic_regression(reference[:, genes], query[:, genes])
    return {
        "pseudobulk_of_the_same_size": labelling(truth, labels_by(averages, query)),
        "trained_on_all_cells": labelling(truth, everything),
        "trained_on_the_patient": labelling(truth, cross_validated(query)),
    }


def figures(distilled: AnnData, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Train on the distilled cells and label the held-out donor's."""
    reference, patient = data()
    truth = patient.obs["cell_type"].astype(str).to_numpy(dtype=str)
    measured = labelling(truth, labels_by(distilled, patient))
    others = beside(reference, patient) if baselines else {}
    split = f"{HELD_OUT}, held out; logistic regression on the distilled cells"
    return card_metrics(measured, others, split, RECIPE.verify)


def card(distilled: AnnData) -> dict[str, Any]:
    """State what the card says besides its figures."""
    return pbmc_card(RECIPE, "Ten synthetic cells of each of eight blood types", [NOT_ANONYMOUS])


RECIPE = Recipe("scdd/pbmc", 1, train, figures, card, allow=ALLOWED, retrained_tolerance=0.02)
