"""Variable genes and principal components, computed in blocks without randomness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh

if TYPE_CHECKING:
    from sczoo.model.grit._expression import Expression

__all__ = ["Components", "fit_components", "project", "variable_genes"]

_N_VARIABLE, _N_BINS = 2000, 20
_CLIP = 10.0
# Loadings do not change beyond this many cells; every n-th of a larger dataset is used.
_MAX_CELLS = 20_000


@dataclass(frozen=True)
class Components:
    """Principal components of log-normalised expression.

    Attributes
    ----------
    mean, scale
        Of each gene, ``(n_genes,)``; a scale of zero marks genes that are not used.
    loadings
        ``(n_genes, n_components)``.
    """

    mean: np.ndarray
    scale: np.ndarray
    loadings: np.ndarray


def variable_genes(cells: Expression, n_top: int = _N_VARIABLE) -> np.ndarray:
    """Choose the genes whose dispersion is largest among genes of similar mean.

    Dispersions of the linear values are compared within twenty bins of the mean (Satija et al.,
    2015). With at most `n_top` genes all that vary are returned.
    """
    n_genes = len(cells.columns)
    total, squares, count = np.zeros(n_genes), np.zeros(n_genes), 0
    for _, block in cells.blocks(every=_stride(cells.n_obs)):
        linear = np.expm1(np.minimum(block, 20.0)).astype(np.float64)
        total += linear.sum(axis=0)
        squares += (linear**2).sum(axis=0)
        count += len(block)
    mean = total / max(count, 1)
    variance = np.maximum(squares / max(count, 1) - mean**2, 0.0)
    varies = np.flatnonzero(variance > 1e-12)
    if len(varies) <= n_top:
        return varies
    dispersion = np.log(variance[varies] / np.maximum(mean[varies], 1e-12))
    level = np.log1p(mean[varies])
    edges = np.linspace(level.min(), level.max(), _N_BINS + 1)[1:-1]
    bins = np.searchsorted(edges, level)
    normalised = np.empty(len(varies))
    for number in np.unique(bins):
        inside = bins == number
        values = dispersion[inside]
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        # a bin of one gene cannot be compared with itself
        normalised[inside] = (values - values.mean()) / spread if spread > 0 else 1.0
    return np.sort(varies[np.argsort(-normalised, kind="stable")[:n_top]])


def fit_components(cells: Expression, n_components: int) -> Components:
    """Principal components of the scaled values of the variable genes, by the covariance.

    Parameters
    ----------
    cells
        The cells.
    n_components
        Wanted; columns beyond what the data can carry are zero.
    """
    n_genes = len(cells.columns)
    genes = variable_genes(cells)
    mean_all, scale_all = np.zeros(n_genes), np.zeros(n_genes)
    loadings = np.zeros((n_genes, n_components), dtype=np.float32)
    if not len(genes):
        return Components(mean_all, scale_all, loadings)
    every = _stride(cells.n_obs)
    total, squares, count = np.zeros(len(genes)), np.zeros(len(genes)), 0
    for _, block in cells.blocks(genes, every):
        values = block.astype(np.float64)
        total += values.sum(axis=0)
        squares += (values**2).sum(axis=0)
        count += len(block)
    mean = total / count
    variance = np.maximum(squares - count * mean**2, 0.0) / max(count - 1, 1)
    scale = np.where(variance > 1e-12, np.sqrt(variance), 0.0)
    mean_all[genes], scale_all[genes] = mean, scale
    covariance = np.zeros((len(genes), len(genes)))
    for _, block in cells.blocks(genes, every):
        scaled = _scaled(block, mean, scale)
        covariance += (scaled.T @ scaled).astype(np.float64)
    wanted = min(n_components, len(genes), max(count - 1, 1))
    low = len(genes) - wanted
    values, vectors = eigh(covariance, subset_by_index=[low, len(genes) - 1])
    vectors = vectors[:, ::-1][:, values[::-1] > 1e-9 * max(values[-1], 1e-300)]
    # the sign of an eigenvector is arbitrary: make its largest entry positive
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    loadings[genes, : vectors.shape[1]] = vectors
    return Components(mean_all, scale_all, loadings)


def project(cells: Expression, components: Components) -> np.ndarray:
    """Coordinates of all cells, ``(n_cells, n_components)``, float32."""
    genes = np.flatnonzero(components.scale > 0)
    out = np.zeros((cells.n_obs, components.loadings.shape[1]), dtype=np.float32)
    mean, scale = components.mean[genes], components.scale[genes]
    loadings = components.loadings[genes]
    # a gene that the cells lack sits at its mean, where it says nothing
    absent = cells.columns[genes] < 0
    for rows, block in cells.blocks(genes):
        scaled = _scaled(block, mean, scale)
        scaled[:, absent] = 0.0
        out[rows] = scaled @ loadings
    return out


def _scaled(block: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    centred = block - mean.astype(np.float32)
    centred /= np.where(scale > 0, scale, np.inf).astype(np.float32)
    return np.clip(centred, -_CLIP, _CLIP, out=centred)


def _stride(n_cells: int) -> int:
    return max(1, -(-n_cells // _MAX_CELLS))
