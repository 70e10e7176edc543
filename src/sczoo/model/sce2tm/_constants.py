"""Aggregate statistics of the training cells: what later cells need to get the same transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy import sparse

from sczoo.base._reading import iter_row_blocks
from sczoo.errors import EmptyDataError, InputError

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["InputKind", "TrainingConstants", "log_normalised", "training_constants"]

InputKind = Literal["counts", "linear", "log"]

# log1p of a value scaled to a library of ten thousand cannot exceed 9.3, that of a million 13.9
_LARGEST_LOG = 20.0


@dataclass(frozen=True)
class TrainingConstants:
    """Aggregates over the training cells; nothing of a single cell."""

    kind: InputKind
    target_total: float
    target_depth: float
    gene_mean: np.ndarray
    gene_fraction: np.ndarray

    def tensors(self) -> dict[str, Any]:
        """Arguments of the module's ``set_constants``."""
        return {
            "normalises": self.kind != "log",
            "target_total": self.target_total,
            "target_depth": self.target_depth,
            "gene_mean": torch.from_numpy(self.gene_mean.astype(np.float32)),
            "gene_fraction": torch.from_numpy(self.gene_fraction.astype(np.float32)),
        }


def _dense(block: Any) -> np.ndarray:
    return np.asarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float64)


def log_normalised(values: np.ndarray, constants: TrainingConstants) -> np.ndarray:
    """Training transform of dense rows, as the module applies it."""
    if constants.kind == "log":
        return values
    total = np.maximum(values.sum(axis=1, keepdims=True), 1e-6)
    return np.log1p(values * (constants.target_total / total))


def _kind(adata: AnnData, layer: str | None) -> tuple[InputKind, np.ndarray]:
    """Say what the values are, and return the totals per cell."""
    whole, largest = True, 0.0
    totals = np.zeros(adata.n_obs)
    for rows, block in iter_row_blocks(adata, layer):
        values = block.data if sparse.issparse(block) else np.asarray(block)
        if values.size:
            whole = whole and bool(np.all(values == np.floor(values)))
            largest = max(largest, float(values.max()))
        totals[rows] = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
    if whole:
        return "counts", totals
    return ("log" if largest <= _LARGEST_LOG else "linear"), totals


def training_constants(
    adata: AnnData, layer: str | None, kind: InputKind | None, target_total: float
) -> TrainingConstants:
    """Aggregate the training cells in two streamed passes.

    Parameters
    ----------
    adata
        The expression.
    layer
        Its layer.
    kind
        ``"counts"``, ``"linear"`` (such as TPM) or ``"log"``; recognised from the values if
        ``None``: whole numbers are counts, values above 20 are linear, others logarithms.
    target_total
        Library size to scale to.
    """
    found, totals = _kind(adata, layer)
    if kind is None:
        kind = found
    elif kind == "counts" and found != "counts":
        raise InputError(
            "input_kind='counts' was given, but the matrix holds values that are not whole "
            "numbers. Pass the layer with raw counts, or input_kind=None."
        )
    if not (totals > 0).any():
        raise EmptyDataError(
            "Every cell has a total of zero: there is nothing to learn from. Check the layer."
        )
    empty = np.zeros(adata.n_vars)
    # half-way, on a logarithmic scale, between the typical depth and the encoder's total
    depth = min(float(np.sqrt(np.median(totals[totals > 0]) * target_total)), target_total)
    constants = TrainingConstants(kind, target_total, depth, empty, empty)
    mean, fraction = empty.copy(), empty.copy()
    for _, block in iter_row_blocks(adata, layer):
        dense = _dense(block)
        mean += log_normalised(dense, constants).sum(axis=0)
        linear = np.expm1(dense) if kind == "log" else dense
        size = linear.sum(axis=1, keepdims=True)
        fraction += (linear / np.where(size > 0, size, 1.0)).sum(axis=0)
    mean /= adata.n_obs
    fraction /= max(fraction.sum(), 1e-12)
    return TrainingConstants(kind, target_total, depth, mean, fraction)
