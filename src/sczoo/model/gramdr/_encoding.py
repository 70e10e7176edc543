"""From observed values to the rows of the factor of the Gram matrix, and their scales.

One set of formulas serves the cells of the fit and the cells of a new patient, so that a trained
model needs no cell of the training data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from sczoo.model.gramdr._rows import RowBlock
    from sczoo.model.gramdr._state import GeneState, NormaliserName

__all__ = ["Encoded", "encode", "observation_rates", "panels_of", "row_scales"]

# A rate below this would give one observation the weight of fifty.
_SMALLEST_RATE = 0.02
_FIXED_POINT_STEPS = 30


@dataclass
class Encoded:
    r"""Rows :math:`Y_i` of the factor, with what their normalisation needs.

    Attributes
    ----------
    values
        Centred observed values (masks), or :math:`x'_{is}\sqrt{a_s}` not yet centred (counts);
        ``(m, D)``, CSR or dense.
    observed
        Observed values (masks) or depth :math:`t_i` (counts) of each cell; ``(m,)``.
    square
        :math:`\lVert Y_i\rVert^2`; ``(m,)``.
    noise
        What the square of a row holds beyond its signal: for counts
        :math:`\sum_s a_s x_{is}/t_i^2`, else zero; ``(m,)``.
    overlap
        :math:`M_i \cdot q_b` (masks) or the number of shared genes (counts); ``(m, B)``.
    """

    values: Any
    observed: np.ndarray
    square: np.ndarray
    noise: np.ndarray
    overlap: np.ndarray


def observation_rates(
    observed: np.ndarray, state: GeneState, smallest: float = _SMALLEST_RATE
) -> np.ndarray:
    r"""Estimate :math:`p_{is} = \min(1, c_i g_s)` by moments.

    Parameters
    ----------
    observed
        Number of observed values of each cell, ``(m,)``.
    state
        The rates :math:`g_s` of the genes.
    smallest
        Lower limit of the rates.

    Returns
    -------
    ``(m, D)``.
    """
    mean_rate = max(float(state.rate.mean()), 1e-12)
    cell = observed / len(state.rate) / mean_rate
    return np.clip(cell[:, None] * state.rate, smallest, 1.0)


def encode(
    block: RowBlock,
    state: GeneState,
    normaliser: NormaliserName,
    clip: float | None,
    present: np.ndarray,
) -> Encoded:
    """Compute the rows of the factor for a block of cells.

    Parameters
    ----------
    block
        The cells.
    state
        Gene-side parameters.
    normaliser
        ``"depth"`` for counts, else the normaliser of a mask.
    clip
        For counts: largest excess over the expected count, in Poisson standard deviations.
    present
        Genes that the data have, ``(D,)``; the others are unknown.
    """
    if block.pattern is None:
        return _encode_counts(block, state, clip, present)
    pattern, values = block.pattern, block.values
    overlap = np.asarray(pattern @ state.co_observed.T.astype(pattern.dtype), dtype=float)
    if sparse.issparse(values):
        observed = np.asarray(pattern.sum(axis=1), dtype=float).ravel()
        centred = (values - pattern.multiply(state.centre[None, :])).tocsr()
        if normaliser == "ht":
            rows = np.repeat(np.arange(centred.shape[0]), np.diff(centred.indptr))
            mean_rate = max(float(state.rate.mean()), 1e-12)
            cell = observed / len(state.rate) / mean_rate
            rate = np.clip(cell[rows] * state.rate[centred.indices], _SMALLEST_RATE, 1.0)
            kept = np.bincount(rows, centred.data**2 / rate, minlength=centred.shape[0])
            centred.data = centred.data / rate
            square = np.bincount(rows, centred.data**2, minlength=centred.shape[0])
            return Encoded(centred, observed, square, square - kept, overlap)
        square = np.asarray(centred.multiply(centred).sum(axis=1)).ravel()
    else:
        observed = pattern.sum(axis=1, dtype=float)
        centred = pattern * (values - state.centre.astype(values.dtype))
        if normaliser == "ht":
            rate = observation_rates(observed, state)
            kept = np.einsum("ij,ij->i", centred / rate, centred)
            centred = centred / rate
            square = np.einsum("ij,ij->i", centred, centred)
            return Encoded(centred, observed, square, square - kept, overlap)
        square = np.einsum("ij,ij->i", centred, centred).astype(float)
    return Encoded(centred, observed, square, np.zeros(len(square)), overlap)


def _encode_counts(
    block: RowBlock, state: GeneState, clip: float | None, present: np.ndarray
) -> Encoded:
    x = block.values
    panels, which = panels_of(block.batch, state, present)
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    counts = x.data
    if (panels == 0).any():
        counts = counts * panels[which[rows], x.indices]
    total = np.bincount(rows, counts, minlength=x.shape[0])
    share = (panels @ state.mean)[which]
    depth = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    clipped = clip_counts(counts, depth[rows], state.mean[x.indices], clip)
    weighted = clipped * state.scale[x.indices]
    # The noise of a clipped count is that of the count, shrunk as the count was.
    spread = np.divide(weighted**2, counts, out=np.zeros_like(weighted), where=counts > 0)
    safe = np.where(depth > 0, depth, 1.0)
    noise = np.bincount(rows, spread, minlength=x.shape[0]) / safe**2
    offset = state.centre * state.scale
    cross = np.bincount(rows, weighted * offset[x.indices], minlength=x.shape[0])
    square = np.bincount(rows, weighted**2, minlength=x.shape[0]) / safe**2
    square += (panels @ offset**2)[which] - 2 * cross / safe
    values = sparse.csr_matrix((weighted, x.indices, x.indptr), shape=x.shape)
    overlap = (panels @ state.panel.T)[which]
    return Encoded(values, depth, np.where(depth > 0, square, 0.0), noise, overlap)


def panels_of(
    batch: np.ndarray, state: GeneState, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the panels of the batches of a block, ``(u, D)``, and which one each cell has.

    An unknown batch is taken to have measured whatever genes the data have.
    """
    codes, which = np.unique(batch, return_inverse=True)
    panels = np.ones((len(codes), 1)) * (present & (state.mean > 0))
    known = codes >= 0
    panels[known] *= state.panel[codes[known]]
    return panels, which


def clip_counts(
    counts: np.ndarray, depth: np.ndarray, mean: np.ndarray, clip: float | None
) -> np.ndarray:
    """Limit counts to `clip` Poisson standard deviations above what depth and mean predict."""
    if clip is None:
        return counts
    expected = depth * mean
    return np.minimum(counts, expected + clip * np.sqrt(expected))


def row_scales(
    encoded: Encoded, batch: np.ndarray, state: GeneState, normaliser: NormaliserName
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Return :math:`r_i`, :math:`n_{ib}` and :math:`\delta_i` of cells of the fit.

    The corrected Gram matrix is :math:`Y_iY_j^\top/(r_j n_{i b(j)})` off the diagonal, where
    :math:`n_{ib} = r_i H_{b(i)b}`; :math:`\delta_i` is what the same expression has too much on
    the diagonal.

    Returns
    -------
    ``(m,)``, ``(m, B)`` and ``(m,)``; cells without an observation have :math:`r_i = 0`.
    """
    seen = encoded.observed > 0
    coupling = state.coupling[batch]  # (m, B)
    own = np.take_along_axis(coupling, batch[:, None], axis=1)[:, 0]
    if normaliser in ("depth", "ht"):
        r = seen.astype(float)
        between = coupling * r[:, None]
        delta = np.divide(encoded.noise, own, out=np.zeros_like(r), where=seen)
        return r, between, delta
    if normaliser == "paper":
        g2, g1 = float(state.rate @ state.rate), float(state.rate.sum())
        unit = len(state.rate) * float(state.rate_scale)
        r = encoded.observed * np.sqrt(g2) / unit
        diagonal = encoded.observed * g1 / unit
    else:
        r = _least_squares_scale(encoded, coupling, own, state.mass)
        diagonal = encoded.observed
    between = coupling * r[:, None]
    inverse = np.divide(1.0, r**2 * own, out=np.zeros_like(r), where=r**2 * own > 0)
    inverse -= np.divide(1.0, diagonal, out=np.zeros_like(r), where=diagonal > 0)
    return r, between, np.where(seen, encoded.square * inverse, 0.0)


def _least_squares_scale(
    encoded: Encoded, coupling: np.ndarray, own: np.ndarray, mass: np.ndarray
) -> np.ndarray:
    r"""Solve :math:`r(R - H^2r^2) = A - Hmr`: least squares over all pairs but the cell itself."""
    a = np.einsum("ib,ib->i", coupling, encoded.overlap)
    total = coupling**2 @ mass
    m = encoded.observed
    r = np.divide(a, total + own * m, out=np.zeros_like(a), where=total > 0)
    for _ in range(_FIXED_POINT_STEPS):
        below = np.maximum(total + own * m - own**2 * r**2, 1e-3 * (total + own * m))
        new = np.divide(a, below, out=np.zeros_like(a), where=below > 0)
        if np.allclose(new, r, rtol=1e-14, atol=0):
            break
        r = new
    return r
