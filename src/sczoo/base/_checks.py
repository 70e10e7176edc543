"""Input checks: one pass over the matrix before the first epoch; errors name the place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from sczoo.base._genes_table import is_name
from sczoo.base._reading import iter_row_blocks, matrix_of
from sczoo.errors import (
    DuplicateGenesError,
    EmptyDataError,
    InputError,
    MissingKeyError,
    MissingValuesError,
    NegativeValuesError,
    NotCountsError,
    NotFiniteError,
    NotLogNormalisedError,
    TooFewCellsError,
    TooFewGenesError,
    ViewError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

# log1p of a thousand million: no cell is sequenced that deeply
_LARGEST_LOG = 20.7
InputScale = Literal["counts", "log1p", "nonnegative", "any"]


@dataclass
class MatrixScan:
    """What one streamed pass over a matrix found."""

    n_obs: int
    n_vars: int
    first_not_finite: tuple[int, int, float] | None = None
    first_negative: tuple[int, int, float] | None = None
    first_fraction: tuple[int, int, float] | None = None
    maximum: float = 0.0
    cell_totals: np.ndarray = field(default_factory=lambda: np.zeros(0))
    cell_detected: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    gene_totals: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def whole_numbers(self) -> bool:
        """Whether every value is a non-negative whole number."""
        return not (self.first_not_finite or self.first_negative or self.first_fraction)


def _first(block: Any, bad: np.ndarray, start: int) -> tuple[int, int, float]:
    """Locate the first offending value: global row, column, value."""
    position = int(np.flatnonzero(bad)[0])
    if sparse.issparse(block):
        row = int(np.searchsorted(block.indptr, position, side="right")) - 1
        # the values of a sparse row need not be in the order of its columns
        in_row = np.arange(position, block.indptr[row + 1])
        in_row = in_row[bad[in_row]]
        position = int(in_row[np.argmin(block.indices[in_row])])
        return start + row, int(block.indices[position]), float(block.data[position])
    row, column = divmod(position, block.shape[1])
    return start + row, column, float(block[row, column])


def scan_block(scan: MatrixScan, block: Any, start: int, *, allow_missing: bool = False) -> None:
    """Add one block of rows (CSR or dense) that begins at global row `start` to `scan`.

    With `allow_missing` NaN stands for a value that was not observed and is no fault.
    """
    values = block.data if sparse.issparse(block) else np.asarray(block).ravel()
    if values.size and values.dtype.kind not in "biuf":
        raise InputError(f"The matrix holds values of type {values.dtype}; expression is numeric.")
    if scan.first_not_finite is None:
        bad = np.isinf(values) if allow_missing else ~np.isfinite(values)
        if bad.any():
            scan.first_not_finite = _first(block, bad, start)
    if scan.first_negative is None:
        bad = values < 0
        if bad.any():
            scan.first_negative = _first(block, bad, start)
    if scan.first_fraction is None and not np.issubdtype(values.dtype, np.integer):
        with np.errstate(invalid="ignore"):
            bad = values != np.floor(values)
        bad &= np.isfinite(values)
        if bad.any():
            scan.first_fraction = _first(block, bad, start)
    if values.size:
        with np.errstate(invalid="ignore"):
            scan.maximum = max(scan.maximum, float(np.fmax.reduce(values)))


def scan_matrix(
    adata: AnnData, layer: str | None = None, *, allow_missing: bool = False
) -> MatrixScan:
    """Scan the matrix of `adata` once, in blocks of rows (backed data are streamed).

    With `allow_missing` NaN is no fault, and totals and detected genes leave it out.
    """
    scan = MatrixScan(adata.n_obs, adata.n_vars)
    totals, detected = np.zeros(adata.n_obs), np.zeros(adata.n_obs, dtype=np.int64)
    genes = np.zeros(adata.n_vars)
    for rows, block in iter_row_blocks(adata, layer):
        scan_block(scan, block, int(rows[0]), allow_missing=allow_missing)
        if allow_missing:
            block = without_missing(block)
        with np.errstate(invalid="ignore", over="ignore"):
            totals[rows] = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
            genes += np.asarray(block.sum(axis=0), dtype=np.float64).ravel()
        if sparse.issparse(block):
            detected[rows] = np.asarray((block != 0).sum(axis=1)).ravel()
        else:
            detected[rows] = np.count_nonzero(block, axis=1)
    scan.cell_totals, scan.cell_detected, scan.gene_totals = totals, detected, genes
    return scan


def without_missing(block: Any) -> Any:
    """Replace NaN by zero in a copy of a block of rows (CSR or dense); others are returned."""
    values = block.data if sparse.issparse(block) else block
    if values.dtype.kind != "f" or not np.isnan(values).any():
        return block
    block = block.copy()
    values = block.data if sparse.issparse(block) else block
    values[np.isnan(values)] = 0
    return block


def place_of(layer: str | None) -> str:
    """Name a matrix the way a user writes it."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _at(adata: AnnData, found: tuple[int, int, float]) -> str:
    row, column, value = found
    return (
        f"cell {adata.obs_names[row]!r} (row {row}), "
        f"gene {adata.var_names[column]!r} (column {column}): {value:g}"
    )


def counts_elsewhere(adata: AnnData, layer: str | None) -> str:
    """Say where raw counts can be found instead, if anywhere: a remedy, never a silent choice."""
    candidates: list[tuple[str, Any]] = [
        (f"layer={name!r}", matrix) for name, matrix in adata.layers.items() if name != layer
    ]
    if layer is not None:
        candidates.append(("layer=None", matrix_of(adata, None)))
    for name, matrix in candidates:
        if matrix is None:
            continue
        head = matrix[: min(200, adata.n_obs)]
        values = head.data if sparse.issparse(head) else np.asarray(head).ravel()
        if values.size and np.all(values >= 0) and np.all(values == np.floor(values)):
            return f" Raw counts seem to be there with {name}."
    if adata.raw is not None:
        return " adata.raw is set: if it holds the counts, use adata.raw.to_adata()."
    return ""


def raise_for_scan(adata: AnnData, scan: MatrixScan, layer: str | None, scale: InputScale) -> None:
    """Raise the typed error for the first problem of a scanned matrix."""
    if scale not in get_args(InputScale):
        raise InputError(f"scale is {scale!r}; it is one of {', '.join(get_args(InputScale))}.")
    place = place_of(layer)
    if scan.first_not_finite is not None:
        raise NotFiniteError(
            f"{place} holds a value that is not a finite number at "
            f"{_at(adata, scan.first_not_finite)}. Remove those cells or set missing values to "
            "what they mean (0 for not detected) before setup."
        )
    if scale != "any" and scan.first_negative is not None:
        raise NegativeValuesError(
            f"{place} holds a negative value at {_at(adata, scan.first_negative)}. Expression is "
            "never negative: this looks like scaled data. Pass the unscaled matrix."
            + counts_elsewhere(adata, layer)
        )
    if scale == "counts" and scan.first_fraction is not None:
        raise NotCountsError(
            f"{place} must hold raw counts, but is not a whole number at "
            f"{_at(adata, scan.first_fraction)}. Pass the layer with raw counts."
            + counts_elsewhere(adata, layer)
        )


def raise_for_counts(scan: MatrixScan, layer: str | None) -> None:
    """Refuse raw counts where log-normalised values are read: nothing else would notice them."""
    if scan.maximum > _LARGEST_LOG or (scan.whole_numbers and scan.maximum >= 2):
        raise NotLogNormalisedError(
            f"{place_of(layer)} must hold log-normalised values, but with values up to "
            f"{scan.maximum:g} these look like counts. Pass the layer with log-normalised values, "
            "or normalise as the training data were, for example with scanpy.pp.normalize_total "
            "and scanpy.pp.log1p."
        )


def check_structure(
    adata: Any,
    *,
    layer: str | None = None,
    min_cells: int = 1,
    min_genes: int = 1,
    categorical_keys: Iterable[str] = (),
    obsm_keys: Iterable[str] = (),
    allow_view: bool = False,
) -> None:
    """Check everything about `adata` that can be known without reading the matrix.

    Raises
    ------
    InputError
        One of its subclasses, for the first problem found.
    """
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise InputError(
            f"Expected an AnnData, got {type(adata).__name__}. For MuData use setup_mudata with "
            "modalities={'layer': '<name of the RNA modality>'}."
        )
    if adata.is_view and not allow_view:
        raise ViewError(
            "The AnnData is a view of another one, and setup would write into it. "
            "Make it real with adata = adata.copy()."
        )
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise EmptyDataError(
            f"The AnnData has {adata.n_obs} cells and {adata.n_vars} genes: nothing to work on. "
            "Check the filters that were applied before."
        )
    if layer is not None and layer not in adata.layers:
        raise MissingKeyError(
            f"adata.layers has no {layer!r}; it has {sorted(map(str, adata.layers.keys()))}. "
            f"Pass one of these, or layer=None for adata.X."
        )
    if layer is None and adata.X is None:
        raise EmptyDataError(
            "adata.X is None. Pass layer= with one of "
            f"{sorted(map(str, adata.layers.keys()))} or set adata.X."
        )
    duplicated = adata.var_names[adata.var_names.duplicated()]
    if len(duplicated):
        raise DuplicateGenesError(
            f"{len(duplicated)} gene name(s) in adata.var_names occur more than once, the first "
            f"is {duplicated[0]!r}. Sum or drop the duplicates, or call "
            "adata.var_names_make_unique() if they are different genes."
        )
    if adata.n_obs < min_cells:
        raise TooFewCellsError(
            f"The AnnData has {adata.n_obs} cell(s); this method needs at least {min_cells}."
        )
    if adata.n_vars < min_genes:
        raise TooFewGenesError(
            f"The AnnData has {adata.n_vars} gene(s); this method needs at least {min_genes}."
        )
    for key in categorical_keys:
        check_categorical(adata, key)
    for key in obsm_keys:
        check_obsm(adata, key)


def check_gene_names(adata: AnnData) -> None:
    """Require gene names that an artefact can hold, before hours of training are lost on them."""
    for position, name in enumerate(adata.var_names):
        if not name or not is_name(str(name)):
            raise InputError(
                f"The gene in column {position} is called {str(name)[:300]!r}: a name must not be "
                "empty, begin or end with a space, hold characters that cannot be printed or be "
                "longer than 256 characters. Rename it in adata.var_names, for example with "
                "adata.var_names.str.strip()."
            )


def check_categorical(adata: AnnData, key: str) -> None:
    """Require the ``obs`` column `key` to exist and to have no missing value."""
    if key not in adata.obs:
        raise MissingKeyError(
            f"adata.obs has no column {key!r}; it has {sorted(map(str, adata.obs.columns))}."
        )
    missing = np.flatnonzero(pd.isna(adata.obs[key]).to_numpy())
    if missing.size:
        raise MissingValuesError(
            f"adata.obs[{key!r}] is missing for {missing.size} cell(s), the first is "
            f"{adata.obs_names[missing[0]]!r}. Fill it, for example with 'unknown', or drop "
            "those cells."
        )


def check_obsm(adata: AnnData, key: str) -> None:
    """Require ``obsm[key]`` to exist, to be a finite numeric matrix and not to be constant."""
    if key not in adata.obsm:
        raise MissingKeyError(
            f"adata.obsm has no key {key!r}; it has {sorted(map(str, adata.obsm.keys()))}."
        )
    check_embedding(adata.obsm[key], f"adata.obsm[{key!r}]", adata.obs_names)


def check_embedding(values: Any, where: str, names: Any) -> None:
    """Require an outside embedding to be a finite numeric matrix and not to be constant.

    Parameters
    ----------
    values
        One row per cell; dense, sparse or a table.
    where
        The place, for messages.
    names
        Names of the cells.
    """
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number):
        raise InputError(
            f"{where} must be a numeric matrix with one row per cell, got shape "
            f"{values.shape} of type {values.dtype}."
        )
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        row, column = bad[0]
        raise NotFiniteError(
            f"{where} is not finite for cell {names[row]!r} (row {row}), "
            f"column {column}. Recompute the embedding for those cells or drop them."
        )
    if values.shape[0] > 1 and np.all(values == values[:1]):
        raise InputError(
            f"{where} is the same for every cell: it carries no knowledge. "
            "Check how it was computed, or leave it out."
        )


def check_input(
    adata: Any,
    *,
    layer: str | None = None,
    scale: InputScale = "counts",
    min_cells: int = 1,
    min_genes: int = 1,
    categorical_keys: Iterable[str] = (),
    obsm_keys: Iterable[str] = (),
    allow_missing: bool = False,
) -> MatrixScan:
    """Check `adata` before anything is computed or written.

    Parameters
    ----------
    adata
        The data. Never modified.
    layer
        Name of the layer to check, or ``None`` for ``adata.X``.
    scale
        ``"counts"``: finite non-negative whole numbers. ``"log1p"`` and ``"nonnegative"``:
        finite and non-negative. ``"any"``: finite.
    min_cells, min_genes
        Smallest usable size.
    categorical_keys
        Columns of ``adata.obs`` that must exist without missing values.
    obsm_keys
        Keys of ``adata.obsm`` that must exist and be finite.
    allow_missing
        Accept NaN in the matrix, for a method to which it means a value that was not observed.

    Returns
    -------
    The scan of the matrix: totals per cell and gene, and the first oddities.

    Raises
    ------
    InputError
        One of its subclasses; the message names the layer, the first bad cell and gene, and
        the remedy.
    """
    check_structure(
        adata,
        layer=layer,
        min_cells=min_cells,
        min_genes=min_genes,
        categorical_keys=categorical_keys,
        obsm_keys=obsm_keys,
    )
    check_gene_names(adata)
    scan = scan_matrix(adata, layer, allow_missing=allow_missing)
    raise_for_scan(adata, scan, layer, scale)
    return scan
