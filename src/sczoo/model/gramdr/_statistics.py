"""What is estimated before the eigenproblem: means, observation rates, co-observation, panels."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from sczoo.errors import EmptyDataError
from sczoo.model.gramdr._encoding import Encoded, clip_counts, panels_of, row_scales
from sczoo.model.gramdr._rows import RowBlock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sczoo.model.gramdr._rows import RowReader
    from sczoo.model.gramdr._state import GeneState, NormaliserName

__all__ = ["GeneScaling", "fit_statistics"]

logger = logging.getLogger(__name__)

GeneScaling = Literal["poisson", "none"]
_SWEEPS = 40
_SWEEP_TOLERANCE = 1e-9
_KEPT_PATTERN_BYTES = 512 * 2**20
# A gene without a single count in a batch was not measured there if this many were expected.
_EXPECTED_COUNTS = 10.0
_FEW_SHARED = 50


def fit_statistics(
    reader: RowReader,
    state: GeneState,
    normaliser: NormaliserName,
    *,
    gene_scaling: GeneScaling,
    clip: float | None,
    centre: bool,
) -> None:
    """Estimate everything gene-side that the rows of the Gram matrix need, into `state`."""
    if normaliser == "depth":
        _fit_counts(reader, state, gene_scaling, clip, centre)
    else:
        _fit_masks(reader, state, normaliser, centre)


# --- masks ------------------------------------------------------------------------------------


def _fit_masks(
    reader: RowReader, state: GeneState, normaliser: NormaliserName, centre: bool
) -> None:
    n_genes = reader.n_genes
    total, seen = np.zeros(n_genes), np.zeros(n_genes)
    unseen_cells = 0
    most = 0
    patterns: list[RowBlock] | None = []
    size = 0.0
    for block in reader:
        if patterns is not None:
            light = _light(block)
            size += (
                light.pattern.nnz * 8.0 if sparse.issparse(block.pattern) else light.pattern.nbytes
            )
            patterns.append(light)
            patterns = patterns if size <= _KEPT_PATTERN_BYTES else None
        total += np.asarray(block.values.sum(axis=0, dtype=np.float64)).ravel()
        seen += np.asarray(block.pattern.sum(axis=0, dtype=np.float64)).ravel()
        per_cell = np.asarray(block.pattern.sum(axis=1)).ravel()
        unseen_cells += int((per_cell == 0).sum())
        most = max(most, int(per_cell.max(initial=0)))
    if not seen.any():
        raise EmptyDataError(
            "No value was observed: the mask leaves nothing. Check that it is not zero where "
            "values were observed (not where they are missing)."
        )
    if unseen_cells or (seen == 0).any():
        logger.warning(
            "%d cell(s) and %d gene(s) have no observed value; such cells are placed at the "
            "origin and such genes have no loadings.",
            unseen_cells,
            int((seen == 0).sum()),
        )
    state.mean = np.divide(total, seen, out=np.zeros(n_genes), where=seen > 0)
    state.centre = state.mean if centre else np.zeros(n_genes)
    state.rate = seen / reader.n_cells
    # the published divisor keeps every rate below one, and with it the estimate is biased
    observed = float(seen.sum()) / (reader.n_cells * n_genes)
    highest = float(most) / n_genes * float(state.rate[np.argmax(state.rate)])
    state.rate_scale = np.asarray(highest if highest > observed else observed)
    if normaliser == "ht":
        state.coupling = np.full((1, 1), float(n_genes))
    if normaliser in ("rank1", "pairwise"):
        _fit_co_observation(reader, patterns or reader, state, normaliser)


def _light(block: RowBlock) -> RowBlock:
    """Return a block with its pattern alone, a byte per value."""
    return RowBlock(block.rows, None, block.pattern.astype(bool), block.batch)


def _fit_co_observation(
    reader: RowReader,
    blocks: Iterable[RowBlock],
    state: GeneState,
    normaliser: NormaliserName,
) -> None:
    r"""Alternate least squares of :math:`(MM^\top)_{ij} \approx r_i r_j H_{b(i)b(j)}`, i ≠ j."""
    n_batch = len(state.panel)
    q = np.zeros((n_batch, reader.n_genes))
    counted = np.zeros(n_batch)
    for block in blocks:  # start: r_i = sqrt(m_i)
        r = np.sqrt(np.asarray(block.pattern.sum(axis=1), dtype=float).ravel())
        _add(q, block, r)
        counted += np.bincount(block.batch, r**2, minlength=n_batch)
    state.co_observed, state.mass = q, np.maximum(counted, 1e-12)
    state.coupling = np.ones((n_batch, n_batch))
    previous = np.zeros(0)
    for _ in range(_SWEEPS):
        q = np.zeros_like(q)
        mass, self_seen, fourth = np.zeros(n_batch), np.zeros(n_batch), np.zeros(n_batch)
        scales = np.zeros(reader.n_cells)
        for block in blocks:
            block = RowBlock(block.rows, None, block.pattern.astype(reader.dtype), block.batch)
            encoded = _overlaps(block, state)
            r = row_scales(encoded, block.batch, state, normaliser)[0]
            scales[block.rows] = r
            _add(q, block, r)
            mass += np.bincount(block.batch, r**2, minlength=n_batch)
            self_seen += np.bincount(block.batch, encoded.observed * r**2, minlength=n_batch)
            fourth += np.bincount(block.batch, r**4, minlength=n_batch)
        shared = q @ q.T - np.diag(self_seen)
        weight = np.outer(mass, mass) - np.diag(fourth)
        coupling = np.ones_like(shared)
        np.divide(shared, weight, out=coupling, where=weight > 1e-9 * np.outer(mass, mass))
        # Gauge: a batch is coupled to itself by one; its rows take up the rest.
        own = np.diag(coupling)
        unit = np.sqrt(np.where(own > 0, own, 1.0))
        state.co_observed = q * unit[:, None]
        state.mass = mass * unit**2
        state.coupling = np.maximum(coupling / np.outer(unit, unit), 0.0)
        if previous.size:
            change = float(np.linalg.norm(scales - previous))
            rounding = 20 * float(np.finfo(reader.dtype).eps)
            if change < max(_SWEEP_TOLERANCE, rounding) * float(np.linalg.norm(scales)):
                break
        previous = scales
    _warn_of_few_shared(state)


def _add(q: np.ndarray, block: RowBlock, r: np.ndarray) -> None:
    pattern, batch = block.pattern, block.batch
    r = r.astype(pattern.dtype if pattern.dtype.kind == "f" else np.float64)
    if len(q) == 1:
        q[0] += np.asarray(pattern.T @ r).ravel()
        return
    for code in np.unique(batch):
        chosen = np.flatnonzero(batch == code)
        q[code] += np.asarray(pattern[chosen].T @ r[chosen]).ravel()


def _overlaps(block: RowBlock, state: GeneState) -> Encoded:
    pattern = block.pattern
    observed = np.asarray(pattern.sum(axis=1), dtype=float).ravel()
    zero = np.zeros(len(observed))
    overlap = np.asarray(pattern @ state.co_observed.T.astype(pattern.dtype), dtype=float)
    return Encoded(None, observed, zero, zero, overlap)


def _warn_of_few_shared(state: GeneState) -> None:
    if len(state.panel) == 1:
        return
    if (state.coupling == 0).any():
        logger.warning(
            "Some batches share no observed gene: their cells are related only through the "
            "others, if at all."
        )


# --- counts -----------------------------------------------------------------------------------


def _fit_counts(
    reader: RowReader, state: GeneState, scaling: GeneScaling, clip: float | None, centre: bool
) -> None:
    n_batch, n_genes = state.panel.shape
    totals = np.zeros((n_batch, n_genes))
    empty = 0
    for block in reader:
        for code in np.unique(block.batch):
            chosen = block.values[np.flatnonzero(block.batch == code)]
            totals[code] += np.asarray(chosen.sum(axis=0)).ravel()
        empty += int((np.asarray(block.values.sum(axis=1)).ravel() == 0).sum())
    if not totals.any():
        raise EmptyDataError("All counts are zero: there is nothing to embed.")
    if empty:
        logger.warning("%d cell(s) have no counts; they are placed at the origin.", empty)
    state.mean, state.panel = _rates_and_panel(totals)
    positive = state.mean > 0
    if scaling == "poisson":
        state.scale = np.sqrt(np.divide(1.0, state.mean, out=np.zeros(n_genes), where=positive))
    else:
        state.scale = positive.astype(float)
    state.rate = state.mean
    # silent genes carry nothing and do not count as shared
    state.panel = state.panel * positive
    state.coupling = state.panel @ state.panel.T
    state.centre = state.mean if centre else np.zeros(n_genes)
    if centre and clip is not None:
        state.centre = _clipped_centre(reader, state, clip)
    if n_batch > 1 and (state.coupling < _FEW_SHARED).any():
        logger.warning(
            "Two batches share only %d measured genes; what relates their cells is uncertain.",
            int(state.coupling.min()),
        )


def _rates_and_panel(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool the rates over the batches that measured a gene, and find those that did not."""
    panel = np.ones_like(totals)
    rate = totals.sum(axis=0) / totals.sum()
    if len(totals) > 1:
        for _ in range(_SWEEPS):
            share = panel @ rate
            depth = np.divide(
                totals.sum(axis=1), share, out=np.zeros(len(totals)), where=share > 0
            )
            missing = (totals == 0) & (depth[:, None] * rate >= _EXPECTED_COUNTS)
            new_panel = 1.0 - missing
            exposure = new_panel.T @ depth
            new = np.divide(
                totals.sum(axis=0), exposure, out=np.zeros_like(rate), where=exposure > 0
            )
            new /= new.sum()
            done = np.array_equal(new_panel, panel) and np.allclose(new, rate, rtol=1e-12)
            panel, rate = new_panel, new
            if done:
                break
    return rate, panel


def _clipped_centre(reader: RowReader, state: GeneState, clip: float) -> np.ndarray:
    n_genes = reader.n_genes
    total = np.zeros(n_genes)
    exposure = np.zeros(n_genes)
    for block in reader:
        x = block.values
        panels, which = panels_of(block.batch, state, np.ones(n_genes, dtype=bool))
        share = (panels @ state.mean)[which]
        depth = np.asarray(x.sum(axis=1), dtype=float).ravel() / np.maximum(share, 1e-300)
        rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
        clipped = clip_counts(x.data, depth[rows], state.mean[x.indices], clip)
        total += np.bincount(x.indices, clipped, minlength=n_genes)
        exposure += panels.T @ np.bincount(which, depth, minlength=len(panels))
    return np.divide(total, exposure, out=np.zeros(n_genes), where=exposure > 0)
