"""gramdr/pbmc: components of blood cells, corrected for depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.recipes._figures import (
    bootstrap,
    card_metrics,
    clustering_metrics,
    held_out_clustering,
    pca_projection,
)
from sczoo.recipes._pbmc import HELD_OUT, data, pbmc_card
from sczoo.recipes._recipe import Recipe, trained

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.recipes._figures import Score

N_LATENT = 20


def fit(cells: AnnData) -> Any:
    """Train on some cells."""
    return trained("GramDR", cells, n_latent=N_LATENT)


def train() -> Any:
    """Train on every donor but the held-out one."""
    return fit(data()[0])


def depth_within_types(latent: np.ndarray, patient: AnnData) -> Score:
    """Largest correlation of the ten leading components with log depth, types taken out."""
    depth = np.log(np.asarray(patient.X.sum(axis=1), dtype=np.float64).ravel())
    kind = patient.obs["cell_type"].astype(str).to_numpy()
    values = np.column_stack([latent[:, :10], depth]).astype(np.float64)

    def largest(rows: np.ndarray) -> float:
        chosen, types = values[rows], kind[rows]
        within = np.empty_like(chosen)
        for name in np.unique(types):
            cells = types == name
            within[cells] = chosen[cells] - chosen[cells].mean(axis=0)
        return float(np.abs(np.corrcoef(within.T)[-1, :-1]).max())

    return bootstrap(len(kind), largest)


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the projection of the held-out donor's cells."""
    reference, patient = data()
    latent = model.get_latent_representation(patient)
    scores = held_out_clustering(
        latent,
        reference,
        patient,
        own=lambda: fit(patient).get_latent_representation(),
        baselines=baselines,
    )
    beside = {}
    if baselines:
        pca = pca_projection(reference, patient, N_LATENT)
        beside = {"pca_20": {"depth_correlation": depth_within_types(pca, patient)}}
    depth = {"depth_correlation": depth_within_types(latent, patient)}
    split = f"{HELD_OUT}, held out; lower is better"
    return [
        *clustering_metrics(*scores, HELD_OUT, RECIPE.verify),
        *card_metrics(depth, beside, split, RECIPE.verify),
    ]


def card(model: Any) -> dict[str, Any]:
    """State what the card says besides its figures."""
    return pbmc_card(RECIPE, "Components of blood cells, corrected for sequencing depth", [])


RECIPE = Recipe("gramdr/pbmc", 1, train, figures, card)
