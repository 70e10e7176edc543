"""dpdcan/pbmc: an embedding of blood cells that is differentially private for each cell."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.recipes._figures import (
    Score,
    card_metrics,
    clustering_metrics,
    held_out_clustering,
)
from sczoo.recipes._pbmc import HELD_OUT, data, pbmc_card
from sczoo.recipes._recipe import Recipe, trained

if TYPE_CHECKING:
    from anndata import AnnData

EPSILON = 4.0
_SHARE_OF_MEMBERS = 0.8


def members() -> tuple[AnnData, AnnData]:
    """Cells for training, and cells of the same donors that are kept for the attack."""
    reference, _ = data()
    drawn = np.random.default_rng(0).random(reference.n_obs) < _SHARE_OF_MEMBERS
    return reference[drawn].copy(), reference[~drawn].copy()


def fit(cells: AnnData, target_epsilon: float) -> Any:
    """Train with a budget; infinity is the twin without privacy."""
    return trained("DPDCAN", cells, target_epsilon=target_epsilon, acknowledge=["gene_list"])


def train() -> Any:
    """Train on four fifths of the cells of every donor but the held-out one."""
    return fit(members()[0], EPSILON)


def attack(model: Any) -> dict[str, Score]:
    """AUC of telling cells of the training from others of the same donors."""
    from sczoo.privacy import audit

    found = audit(model, *members()).attacks["model", "cell"]
    return {"membership_auc": Score(found.auc, *found.auc_ci95)}


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the embedding of the held-out donor's cells, and attack the model."""
    reference, patient = data()
    scores, beside = held_out_clustering(
        model.get_latent_representation(patient),
        reference,
        patient,
        own=lambda: fit(patient, EPSILON).get_latent_representation(),
        baselines=baselines,
    )
    attacked: dict[str, dict[str, Score]] = {}
    if baselines:
        twin = fit(members()[0], np.inf)
        again = partial(held_out_clustering, reference=reference, patient=patient)
        latent = twin.get_latent_representation(patient)
        beside["without_privacy"] = again(latent, baselines=False)[0]
        attacked["without_privacy"] = attack(twin)
    split = "cells of the training donors, four fifths of them in training; 0.5 is chance"
    return [
        *clustering_metrics(scores, beside, HELD_OUT, RECIPE.verify),
        *card_metrics(attack(model), attacked, split, RECIPE.verify),
    ]


def card(model: Any) -> dict[str, Any]:
    """State what the card says besides its figures."""
    limits = [
        "The guarantee is for single cells: that a donor is among the training donors is not "
        "protected.",
        "The list of genes was chosen on these data, outside the guarantee.",
    ]
    stated = pbmc_card(
        RECIPE,
        f"Embedding of blood cells, differentially private at epsilon {EPSILON:g} for each cell",
        limits,
        split=f"by donor: {HELD_OUT} held out; four fifths of the other cells for training, the "
        "rest for the attack",
    )
    # without it the card would say that no attack was measured, beside the figure of one
    attacked = (
        "the figure membership_auc; where the model without privacy, beside it, is no easier to "
        "attack, the attack shows nothing"
    )
    return {**stated, "privacy": {"audit": {"membership of a cell": attacked}}}


# the noise of a private training has no seed: another model of the same kind comes out
RECIPE = Recipe("dpdcan/pbmc", 1, train, figures, card, retrained_tolerance=0.15)
