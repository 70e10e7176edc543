"""Blood cells of eight donors, one of them held out: the data of most recipes.

They are embedded in the package, so that anybody can measure the figures again, offline.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sczoo.recipes._recipe import OUT_OF_SCOPE

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.recipes._recipe import Recipe

HELD_OUT = "donor_107"
LICENCE = {"weights": "CC-BY-4.0", "data": "public (GEO), no licence stated"}
PANEL = (
    "1,016 genes only, chosen for these data: most of the genes that mark B lymphocytes, and most "
    "of those that interferon induces, are not among them."
)


@lru_cache(maxsize=1)
def data() -> tuple[AnnData, AnnData]:
    """Cells for training, and those of the held-out donor."""
    from sczoo.datasets import kang_ifnb_demo

    adata = kang_ifnb_demo()
    held_out = (adata.obs["patient"].astype(str) == HELD_OUT).to_numpy()
    return adata[~held_out].copy(), adata[held_out].copy()


def pbmc_card(
    recipe: Recipe,
    summary: str,
    limits: list[str],
    *,
    command: str | None = None,
    split: str = f"by donor: {HELD_OUT} held out, all others for training",
) -> dict[str, Any]:
    """State what the cards of these data have in common."""
    reference, _ = data()
    return {
        "summary": summary,
        "licence": LICENCE,
        "training": {
            "data": [
                {
                    "name": "Kang et al. 2018, PBMC with and without interferon-beta",
                    "accession": "GSE96583",
                    "access": "open",
                }
            ],
            "n_donors": int(reference.obs["patient"].nunique()),
            "split": split,
            "command": command or recipe.reproduce,
        },
        "input": {"species": "homo_sapiens"},
        "limits": [
            "One tissue (blood), one laboratory, one chemistry (10x 3' v1); nothing is known of "
            "others.",
            PANEL,
            *limits,
        ],
        "out_of_scope": [
            OUT_OF_SCOPE,
            "Tissues other than blood and species other than human.",
        ],
    }
