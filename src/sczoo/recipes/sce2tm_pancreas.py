"""sce2tm/pancreas: gene programs of the human pancreas."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sczoo.recipes._figures import clustering_metrics, held_out_clustering
from sczoo.recipes._recipe import OUT_OF_SCOPE, Recipe

if TYPE_CHECKING:
    from anndata import AnnData


@lru_cache(maxsize=1)
def data() -> tuple[AnnData, AnnData, str]:
    """Cells for training, cells of the held-out donor, and that donor's name."""
    from sczoo.datasets import load

    adata = load("baron_human")
    # the smaller of the two donors is held out
    held_out = str(adata.obs["patient"].value_counts().index[-1])
    rows = (adata.obs["patient"].astype(str) == held_out).to_numpy()
    return adata[~rows].copy(), adata[rows].copy(), held_out


def train() -> Any:
    """Train on every donor but the held-out one."""
    from sczoo.model import SCE2TM

    reference = data()[0].copy()
    SCE2TM.setup_anndata(reference)
    model = SCE2TM(reference)
    model.train()
    return model


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the model on the held-out donor."""
    reference, patient, held_out = data()
    latent = model.get_latent_representation(patient)
    scores = held_out_clustering(latent, reference, patient, baselines=baselines)
    command = f"sczoo verify {RECIPE.id}:{RECIPE.version}"
    return clustering_metrics(*scores, f"donor {held_out}", command)


def card(model: Any) -> dict[str, Any]:
    """State what the card says besides its figures."""
    reference, _, held_out = data()
    return {
        "summary": "Gene programs of the human pancreas",
        "licence": {"weights": "CC-BY-4.0", "data": "public (GEO), no licence stated"},
        "training": {
            "data": [
                {
                    "name": "Baron et al. 2016, human pancreas",
                    "accession": "GSE84133",
                    "access": "open",
                }
            ],
            "n_donors": int(reference.obs["patient"].nunique()),
            "split": f"by donor: {held_out} held out, the other for training",
            "command": f"sczoo reproduce {RECIPE.id}:{RECIPE.version}",
        },
        "input": {"species": "homo_sapiens"},
        "limits": [
            "Trained on the islets of one donor: what is this donor's own and what is the "
            "pancreas's cannot be told apart.",
            "Six cell types, inDrop only, 2,000 genes.",
        ],
        "out_of_scope": [
            OUT_OF_SCOPE,
            "Tissues other than the pancreas and species other than human.",
        ],
    }


RECIPE = Recipe("sce2tm/pancreas", 1, train, figures, card)
