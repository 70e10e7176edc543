"""The choice of genes: stored with what is released, and covered by no epsilon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import PrivacyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["check_gene_list"]

# what scanpy and Seurat write into var when they choose genes
_CHOSEN_MARKS = ("highly_variable", "vst.variable", "vf_vst_counts_variable", "selected")


def check_gene_list(adata: AnnData, acknowledge: Sequence[str]) -> None:
    """Refuse genes that were chosen on the private cells, unless that is accepted by name."""
    if "gene_list" in acknowledge:
        return
    for mark in _CHOSEN_MARKS:
        if mark in adata.var and bool(np.all(adata.var[mark].to_numpy() == True)):  # noqa: E712
            raise PrivacyError(
                f"adata.var[{mark!r}] is true for all genes: they look chosen on these cells. The "
                "choice depends on single cells, is stored with the model, and no epsilon covers "
                "it. Use a list from outside, such as the genes of a public atlas, or accept it "
                "with acknowledge=['gene_list'], which the card will state."
            )
