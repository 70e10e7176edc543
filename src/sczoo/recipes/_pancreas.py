"""Cells of the pancreas of two donors, one of them held out, and another study of the same."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sczoo.recipes._recipe import OUT_OF_SCOPE

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.recipes._recipe import Recipe


@lru_cache(maxsize=1)
def data() -> tuple[AnnData, AnnData, str]:
    """Cells for training, cells of the held-out donor, and that donor's name."""
    from sczoo.datasets import load

    adata = load("baron_human")
    # the smaller of the two donors is held out
    held_out = str(adata.obs["patient"].value_counts().index[-1])
    rows = (adata.obs["patient"].astype(str) == held_out).to_numpy()
    return adata[~rows].copy(), adata[rows].copy(), held_out


@lru_cache(maxsize=1)
def other_study() -> AnnData:
    """Cells of Segerstolpe et al. (Smart-seq2) of the types that the training cells have."""
    from sczoo.datasets import load

    adata = load("segerstolpe")
    known = set(data()[0].obs["cell_type"].astype(str))
    return adata[adata.obs["cell_type"].astype(str).isin(known).to_numpy()].copy()


def pancreas_card(recipe: Recipe, summary: str, limits: list[str]) -> dict[str, Any]:
    """State what the cards of these data have in common."""
    reference, _, held_out = data()
    return {
        "summary": summary,
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
            "command": recipe.reproduce,
        },
        "input": {"species": "homo_sapiens"},
        "limits": [
            "Trained on the islets of one donor: what is this donor's own and what is the "
            "pancreas's cannot be told apart.",
            "Six cell types, inDrop only, 2,000 genes.",
            *limits,
        ],
        "out_of_scope": [
            OUT_OF_SCOPE,
            "Tissues other than the pancreas and species other than human.",
        ],
    }
