"""sce2tm/pbmc-interferon: gene programs of interferon-stimulated blood cells."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sczoo.recipes._figures import clustering_metrics, held_out_clustering
from sczoo.recipes._recipe import OUT_OF_SCOPE, Recipe

if TYPE_CHECKING:
    from anndata import AnnData

HELD_OUT = "donor_107"


@lru_cache(maxsize=1)
def data() -> tuple[AnnData, AnnData]:
    """Cells for training, and those of the held-out donor."""
    from sczoo.datasets import kang_ifnb_demo

    adata = kang_ifnb_demo()
    held_out = (adata.obs["patient"].astype(str) == HELD_OUT).to_numpy()
    return adata[~held_out].copy(), adata[held_out].copy()


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
    reference, patient = data()
    latent = model.get_latent_representation(patient)
    scores = held_out_clustering(latent, reference, patient, baselines=baselines)
    return clustering_metrics(*scores, HELD_OUT, f"sczoo verify {RECIPE.id}:{RECIPE.version}")


def card(model: Any, command: str | None = None) -> dict[str, Any]:
    """State what the card says besides its figures."""
    reference, _ = data()
    return {
        "summary": "Gene programs of interferon-stimulated blood cells",
        "licence": {"weights": "CC-BY-4.0", "data": "public (GEO), no licence stated"},
        "training": {
            "data": [
                {
                    "name": "Kang et al. 2018, PBMC with and without interferon-beta",
                    "accession": "GSE96583",
                    "access": "open",
                }
            ],
            "n_donors": int(reference.obs["patient"].nunique()),
            "split": f"by donor: {HELD_OUT} held out, all others for training",
            "command": command or f"sczoo reproduce {RECIPE.id}:{RECIPE.version}",
        },
        "input": {"species": "homo_sapiens"},
        "limits": [
            "One tissue (blood), one laboratory, one chemistry (10x 3' v1); nothing is known of "
            "others.",
            "1,016 genes only: most interferon-stimulated genes of the literature are not among "
            "them.",
            "Stimulated cells come from a single training donor and five cell types.",
        ],
        "out_of_scope": [
            OUT_OF_SCOPE,
            "Tissues other than blood and species other than human.",
        ],
    }


RECIPE = Recipe("sce2tm/pbmc-interferon", 1, train, figures, card)
