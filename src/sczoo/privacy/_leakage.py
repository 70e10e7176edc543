"""Leakage of synthetic data: nearness to the cells that they were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo.base._checks import check_input
from sczoo.errors import GeneOverlapError, InputError
from sczoo.privacy._projection import unit_profiles

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["nearest_synthetic"]

_BLOCK = 1024
_FEWEST_GENES = 10


def nearest_synthetic(
    synthetic: AnnData, adata: AnnData, *, layer: str | None = None, normalise: bool = True
) -> np.ndarray:
    """Score cells by their cosine to the nearest synthetic cell.

    Parameters
    ----------
    synthetic
        Synthetic or distilled cells, from any method.
    adata
        Cells that were, or were not, in the training data.
    layer
        Layer of both with the expression.
    normalise
        Compare log-normalised counts. Otherwise the values as they are.

    Returns
    -------
    Shape ``(cells,)``; higher means nearer.
    """
    if synthetic.n_obs == 0:
        raise InputError("There are no synthetic cells.")
    shared = synthetic.var_names.intersection(adata.var_names)
    if len(shared) < min(_FEWEST_GENES, adata.n_vars):
        raise GeneOverlapError(
            f"The synthetic cells share {len(shared)} gene names with the cells to compare with. "
            "Use the same kind of names in both."
        )
    scale: Any = "nonnegative" if normalise else "any"
    check_input(synthetic, layer=layer, scale=scale)
    check_input(adata, layer=layer, scale=scale)
    left, right = (_rows(part[:, shared], layer, normalise) for part in (synthetic, adata))
    nearest = np.empty(adata.n_obs)
    for start in range(0, adata.n_obs, _BLOCK):
        product = right[start : start + _BLOCK] @ left.T
        dense = product.toarray() if sparse.issparse(product) else product
        nearest[start : start + _BLOCK] = dense.max(axis=1)
    return nearest


def _rows(adata: AnnData, layer: str | None, normalise: bool) -> Any:
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    if sparse.issparse(matrix):
        matrix = sparse.csr_matrix(matrix, dtype=np.float64)
    else:
        matrix = np.asarray(matrix, dtype=np.float64)
    if normalise:
        return unit_profiles(matrix)
    square = np.asarray(
        matrix.multiply(matrix).sum(axis=1) if sparse.issparse(matrix) else (matrix**2).sum(1)
    ).ravel()
    length = 1.0 / np.sqrt(np.where(square > 0, square, 1.0))
    return sparse.diags(length) @ matrix if sparse.issparse(matrix) else matrix * length[:, None]
