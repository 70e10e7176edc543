"""The form of every small training set: what a selection or a distillation returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

__all__ = ["COLUMNS", "NOT_ANONYMOUS", "SYNTHETIC", "UNS_KEY", "small_set"]

SYNTHETIC = "is_synthetic"
UNS_KEY = "scdd"
# what every small set says about its cells, beside the labels
COLUMNS = (SYNTHETIC, "library_size", "weight")
NOT_ANONYMOUS = (
    "Distilled is not anonymous: the cells were computed from patients' cells without a privacy "
    "guarantee, and an attacker may learn from them whether a patient's cells took part. Treat "
    "them under the terms of the source data."
)


def small_set(
    counts: Any,
    codes: np.ndarray,
    *,
    labels_key: str,
    categories: Sequence[Any],
    var: pd.DataFrame,
    obs_names: Sequence[str],
    synthetic: bool,
    sizes: np.ndarray,
    record: Mapping[str, Any],
    columns: Mapping[str, Any] | None = None,
    layers: Mapping[str, Any] | None = None,
    obsm: Mapping[str, np.ndarray] | None = None,
) -> AnnData:
    """Build the AnnData that all methods return.

    Parameters
    ----------
    counts
        Whole numbers, ``(n_cells, n_genes)``.
    codes
        Class of each cell, a position in `categories`.
    labels_key, categories
        Column of the labels, and the categories of the source.
    var
        The genes of the source.
    obs_names
        Names of the cells.
    synthetic
        Whether the cells were computed rather than chosen.
    sizes
        Cells of each class in the source; they give ``obs["weight"]``, by which a classifier can
        restore the class shares that equal numbers hide.
    record
        Where the cells come from; becomes ``uns["scdd"]``.
    columns, layers, obsm
        Further columns of ``obs``, layers and ``obsm``.
    """
    from anndata import AnnData

    matrix = sparse.csr_matrix(counts).astype(np.float32)
    matrix.eliminate_zeros()
    labels = pd.Categorical.from_codes(codes, categories=pd.Index(categories))
    made = np.bincount(codes, minlength=len(sizes))
    share = sizes[codes] / max(1, sizes.sum()) * len(codes) / made[codes]
    obs = pd.DataFrame(
        {
            labels_key: labels,
            SYNTHETIC: np.full(len(codes), synthetic),
            "library_size": np.asarray(matrix.sum(axis=1)).ravel().astype(np.int64),
            "weight": share.astype(np.float32),
            **(columns or {}),
        },
        index=pd.Index(list(map(str, obs_names))),
    )
    adata = AnnData(matrix, obs=obs, var=var.copy())
    # a copy of its own: X is what people normalise in place
    adata.layers["counts"] = matrix.copy()
    for name, layer in (layers or {}).items():
        adata.layers[name] = layer
    for name, values in (obsm or {}).items():
        adata.obsm[name] = values
    adata.uns[UNS_KEY] = {**record, "labels_key": labels_key, "notice": NOT_ANONYMOUS}
    return adata
