r"""A projection of the genes to few dimensions, from two noisy sums.

Cells are log-normalised by constants and scaled to unit length, :math:`x_i`. The first release is
the mean profile :math:`\sum_i x_i / n`, to which every unit contributes at most 1. From it, the
genes with the highest means are chosen; fewer where noise is large, for the noise in the second
release grows with the root of their number. The second is :math:`\sum_i r_i r_i^\top` of the
deviations :math:`r_i` from the noisy profile in those genes, again scaled to unit length: most of
the length of :math:`x_i` is common to all cells, and would use up the budget. The eigenvectors of
the second release are the projection. Everything after the two sums is post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo.errors import PrivacyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sczoo.privacy._noise import NoiseSource

__all__ = ["Projection", "fit_projection", "leading_eigenvectors", "unit_profiles", "unit_weights"]

_DEPTH = 1e4
# keeps rounding to 32 bits from carrying a length above one
_BELOW_ONE = 1.0 - 1e-6
# genes for a number of units over noise: factor and power, chosen on pbmc3k, pbmc_facs_zheng,
# baron_mouse and cbmc_cite
_GENES_FACTOR, _GENES_POWER = 1.8, 0.75
_FEWEST_GENES, _MOST_GENES = 50, 2000


@dataclass(frozen=True)
class Projection:
    """The result: both arrays are zero for genes that were not chosen.

    Parameters
    ----------
    profile
        Mean unit profile of the chosen genes, positive; shape ``(genes,)``.
    components
        Orthonormal columns, shape ``(genes, components)``.
    """

    profile: np.ndarray
    components: np.ndarray


def unit_profiles(counts: Any) -> Any:
    """``log1p`` of counts per 10,000, each cell scaled to unit length.

    Every cell by itself: no number of another cell takes part.

    Parameters
    ----------
    counts
        CSR or dense, ``(cells, genes)``.

    Returns
    -------
    Array of the same kind, float32; empty cells stay zero, and so do those with values that are
    no numbers or too large: a unit may change a sum by at most 1 whatever it holds.
    """
    if sparse.issparse(counts):
        x = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
        total = np.maximum(np.asarray(x.sum(axis=1)).ravel(), 1.0)
        x.data = np.log1p(x.data * np.repeat(_DEPTH / total, np.diff(x.indptr)))
        square = np.asarray(x.multiply(x).sum(axis=1)).ravel()
        length = np.sqrt(np.where(square > 0, square, 1.0))
        lost = np.repeat(~np.isfinite(square), np.diff(x.indptr))
        x.data *= np.repeat(_BELOW_ONE / length, np.diff(x.indptr))
        x.data[lost] = 0.0
        return x.astype(np.float32)
    # in 64 bits: in fewer, a sum of squares is rounded so far that a length can come out above one
    counts = np.asarray(counts, dtype=np.float64)
    x = np.log1p(counts * (_DEPTH / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)))
    return _to_unit(x).astype(np.float32)


def _to_unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    scaled = x * (_BELOW_ONE / np.where(length > 0, length, 1.0))
    return np.where(np.isfinite(length), scaled, 0.0)


def unit_weights(units: np.ndarray | None, n_rows: int) -> np.ndarray:
    """Weight of each row, so that every unit weighs one however many rows it has."""
    if units is None:
        return np.ones(n_rows)
    return 1.0 / np.bincount(units)[units]


def fit_projection(
    blocks: Callable[[], Iterable[Any]],
    weights: np.ndarray,
    n_units: int,
    n_components: int,
    *,
    profile_noise: float,
    moment_noise: float,
    source: NoiseSource,
) -> Projection:
    """Release a mean profile and second moments with noise, and derive a projection.

    Parameters
    ----------
    blocks
        Function that yields the counts of the training cells in blocks of rows, in order; called
        twice.
    weights
        Weight of each row (:func:`unit_weights`).
    n_units
        Number of cells or donors; treated as public.
    n_components
        Columns of the projection.
    profile_noise, moment_noise
        Noise multipliers of the two releases; 0 for public data.
    source
        Noise.
    """
    total: np.ndarray | None = None
    start = 0
    for block in blocks():
        weight = weights[start : start + block.shape[0]]
        start += block.shape[0]
        part = np.asarray(unit_profiles(block).T @ weight).ravel()
        total = part if total is None else total + part
    if total is None:
        raise PrivacyError("There are no cells to compute a projection from.")
    n_genes = len(total)
    profile = (total + profile_noise * source.normal(n_genes, np.float64)) / n_units
    chosen = _choose(profile, n_units, moment_noise)
    if len(chosen) < n_components:
        raise PrivacyError(
            f"Only {len(chosen)} genes have a positive noisy mean, fewer than the {n_components} "
            "latent dimensions: the noise is larger than the data. Allow a larger epsilon, use "
            "more cells or donors, or give public_adata."
        )
    moment = np.zeros((len(chosen), len(chosen)))
    start = 0
    for block in blocks():
        weight = weights[start : start + block.shape[0]]
        start += block.shape[0]
        unit = unit_profiles(block)[:, chosen]
        dense = unit.toarray() if sparse.issparse(unit) else unit
        residual = _to_unit(dense - profile[chosen])
        moment += residual.T @ (residual * weight[:, None])
    moment += moment_noise * source.symmetric(len(chosen))
    kept = np.zeros(n_genes)
    kept[chosen] = profile[chosen]
    components = np.zeros((n_genes, n_components))
    components[chosen] = leading_eigenvectors(moment, n_components)
    return Projection(kept, components)


def _choose(profile: np.ndarray, n_units: int, noise: float) -> np.ndarray:
    number = _MOST_GENES
    if noise > 0:
        wanted = _GENES_FACTOR * (n_units / noise) ** _GENES_POWER
        number = int(np.clip(wanted, _FEWEST_GENES, number))
    order = np.argsort(-profile, kind="stable")[:number]
    return np.sort(order[profile[order] > 0])


def leading_eigenvectors(matrix: np.ndarray, n: int) -> np.ndarray:
    """Eigenvectors of the `n` largest eigenvalues of a symmetric matrix, largest first."""
    from scipy.linalg import eigh

    size = len(matrix)
    _, vectors = eigh(matrix, subset_by_index=[size - n, size - 1])
    vectors = vectors[:, ::-1]
    # the sign of an eigenvector is arbitrary
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.sign(vectors[largest, np.arange(n)])
