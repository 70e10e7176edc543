"""sce2tm/pbmc-interferon: gene programs of interferon-stimulated blood cells."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sczoo.recipes._figures import label_free_clustering, pca_projection
from sczoo.recipes._recipe import OUT_OF_SCOPE, Recipe

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.recipes._figures import Score

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


def score(
    model: Any, reference: AnnData, patient: AnnData, *, baselines: bool = True
) -> tuple[dict[str, Score], dict[str, Score]]:
    """Cluster the held-out cells without labels and compare with the known types.

    The same clustering is applied to the model's representation and to the principal components
    of the training cells.

    Returns
    -------
    Scores of the model and of the baseline: ``ari`` and ``nmi``.
    """
    truth = patient.obs["cell_type"].astype(str).to_numpy()
    measured = label_free_clustering(model.get_latent_representation(patient), truth)
    if not baselines:
        return measured, {}
    return measured, label_free_clustering(pca_projection(reference, patient), truth)


def metrics(
    measured: dict[str, Score], baseline: dict[str, Score], command: str
) -> list[dict[str, Any]]:
    """Write the scores as the ``metrics`` of a card."""
    split = f"{HELD_OUT}, held out; Leiden at resolution 1.0, no labels used"
    return [
        measured[name].metric(
            name, split, {"pca_50": baseline[name]} if baseline else None, command
        )
        for name in ("ari", "nmi")
    ]


def figures(model: Any, *, baselines: bool = True) -> list[dict[str, Any]]:
    """Measure the model on the held-out donor."""
    measured, baseline = score(model, *data(), baselines=baselines)
    return metrics(measured, baseline, f"sczoo verify {RECIPE.id}:{RECIPE.version}")


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
