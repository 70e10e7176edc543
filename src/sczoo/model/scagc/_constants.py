"""Aggregate statistics of the training cells: what later cells need to get the same transform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.linalg import eigh

from sczoo.base._reading import iter_row_blocks
from sczoo.errors import EmptyDataError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["CLIP", "N_COMPONENTS", "InputConstants", "input_constants", "variable_genes"]

N_COMPONENTS = 50
CLIP = 10.0
# Axes of the first graph are fitted to at most this many cells; means and variances to all.
_MOST_CELLS = 20_000
_N_BINS = 20
_ROUNDING = 1e-6


@dataclass(frozen=True)
class InputConstants:
    """Aggregates over the training cells; nothing of a single cell."""

    target_total: float
    """Median library size, the size factor's unit."""
    chosen_genes: NDArray[np.int64]
    """Positions of the genes that the model reads, ascending."""
    gene_mean: NDArray[np.float64]
    gene_scale: NDArray[np.float64]
    """Mean and standard deviation of the log-normalised expression of the chosen genes."""
    gene_fraction: NDArray[np.float64]
    """Mean share of the library, of all genes."""
    component_scale: float
    """What brings the first component to unit variance."""
    axes: NDArray[np.float64]
    """Principal axes, chosen genes x components; zero columns where there are fewer."""


def _scaled(block: Any, factor: NDArray[np.float64]) -> sparse.csr_matrix:
    return sparse.csr_matrix(sparse.diags(factor) @ sparse.csr_matrix(block, dtype=np.float64))


def variable_genes(
    mean: NDArray[np.float64], variance: NDArray[np.float64], n_top_genes: int
) -> NDArray[np.int64]:
    """Choose genes by their dispersion among genes of like mean (scanpy's flavour "seurat").

    Parameters
    ----------
    mean, variance
        Of the normalised, not logarithmic, expression of each gene.
    n_top_genes
        Number of genes.

    Returns
    -------
    Positions, ascending.
    """
    if n_top_genes >= len(mean):
        return np.arange(len(mean))
    dispersion = variance / np.where(mean == 0, 1e-12, mean)
    with np.errstate(divide="ignore"):
        log_dispersion = np.log(np.where(dispersion == 0, np.nan, dispersion))
    table = pd.DataFrame({"dispersion": log_dispersion})
    table["bin"] = pd.cut(np.log1p(mean), bins=_N_BINS, labels=False)
    groups = table.groupby("bin")["dispersion"]
    centre, spread = groups.transform("mean"), groups.transform(lambda d: d.std(ddof=1))
    alone = spread.isna()  # a gene alone in its bin counts as one standard deviation above
    score = (
        (table["dispersion"] - centre.where(~alone, 0)) / spread.where(~alone, centre)
    ).to_numpy()
    score = np.where(np.isnan(score), -np.inf, score)
    order = np.argsort(-score, kind="stable")
    return np.sort(order[:n_top_genes])


def input_constants(
    adata: AnnData, layer: str | None, n_top_genes: int, *, seed: int
) -> InputConstants:
    """Aggregate the training cells in streamed passes.

    Parameters
    ----------
    adata
        Raw counts.
    layer
        Their layer.
    n_top_genes
        Number of genes to choose; all if there are no more.
    seed
        Seed of the cells that the principal axes are fitted to, where there are many.
    """
    totals = np.zeros(adata.n_obs)
    for rows, block in iter_row_blocks(adata, layer):
        totals[rows] = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
    if not (totals > 0).any():
        raise EmptyDataError(
            "Every cell has a total of zero: there is nothing to learn from. Check the layer."
        )
    target = float(np.median(totals[totals > 0]))
    factor = target / np.maximum(totals, 1e-6)
    sums = np.zeros((5, adata.n_vars))
    for rows, block in iter_row_blocks(adata, layer):
        linear = _scaled(block, factor[rows])
        logarithm = linear.log1p()
        for number, matrix in enumerate(
            (linear, linear.power(2), logarithm, logarithm.power(2), linear)
        ):
            sums[number] += np.asarray(matrix.sum(axis=0)).ravel()
    n = adata.n_obs
    mean, log_mean = sums[0] / n, sums[2] / n
    variance = (sums[1] / n - mean**2) * n / max(n - 1, 1)
    chosen = variable_genes(mean, variance, n_top_genes)
    spread = np.sqrt(np.maximum(sums[3] / n - log_mean**2, 0) * n / max(n - 1, 1))[chosen]
    constants = InputConstants(
        target_total=target,
        chosen_genes=chosen,
        gene_mean=log_mean[chosen],
        # below, it is the rounding of a gene that does not vary
        gene_scale=np.where(spread > _ROUNDING * (1 + log_mean[chosen]), spread, 1.0),
        gene_fraction=sums[4] / max(sums[4].sum(), 1e-12),
        component_scale=1.0,
        axes=np.zeros((len(chosen), min(N_COMPONENTS, len(chosen)))),
    )
    axes, variance = _axes(adata, layer, factor, constants, seed)
    return replace(
        constants,
        axes=axes,
        component_scale=1.0 / np.sqrt(variance) if variance > _ROUNDING else 1.0,
    )


def _axes(
    adata: AnnData,
    layer: str | None,
    factor: NDArray[np.float64],
    constants: InputConstants,
    seed: int,
) -> tuple[NDArray[np.float64], float]:
    """Principal axes of the scaled expression, with a fixed sign; variance of the first."""
    rows = np.arange(adata.n_obs)
    if len(rows) > _MOST_CELLS:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(len(rows), _MOST_CELLS, replace=False))
    n_genes, n_axes = constants.axes.shape
    scatter, centre = np.zeros((n_genes, n_genes)), np.zeros(n_genes)
    for at, block in iter_row_blocks(adata, layer, rows):
        values = _scaled(block, factor[at])[:, constants.chosen_genes].log1p().toarray()
        values = np.clip((values - constants.gene_mean) / constants.gene_scale, -CLIP, CLIP)
        scatter += values.T @ values
        centre += values.sum(axis=0)
    scatter -= np.outer(centre, centre) / len(rows)
    values, vectors = eigh(scatter, subset_by_index=[n_genes - n_axes, n_genes - 1])
    vectors = vectors[:, ::-1].copy()
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(n_axes)])
    vectors *= np.where(signs == 0, 1, signs)
    vectors[:, max(len(rows) - 1, 1) :] = 0  # no more directions than cells
    return vectors, float(values[-1]) / max(len(rows) - 1, 1)
