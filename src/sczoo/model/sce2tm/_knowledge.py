"""Outside knowledge about the training cells, and who neighbours whom in each view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize
from sklearn.utils.sparsefuncs import mean_variance_axis

from sczoo.base._reading import iter_row_blocks
from sczoo.errors import InputError, NotFiniteError, TooFewCellsError
from sczoo.graph import NeighbourLists, mutual_neighbours

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.model.sce2tm._constants import TrainingConstants

__all__ = [
    "KNOWLEDGE_FIELD",
    "PCA_WIDTH",
    "Guidance",
    "build_guidance",
    "check_knowledge",
    "expression_pca",
    "half_scaled",
    "half_whitened",
]

# Name under which scvi-tools registers outside knowledge. Not that of the minibatches' knowledge:
# what is registered guides only where it was asked for.
KNOWLEDGE_FIELD = "knowledge"
PCA_WIDTH = 50
_GUIDING = 30
"""Components whose distances guide; half whitened, those after them would be mostly noise."""
_LARGEST_DENSE = 50_000_000
"""Entries above which PCA works on the sparse matrix instead of a dense float32 copy."""


@dataclass(frozen=True)
class Guidance:
    """What the data loader needs to guide the training."""

    knowledge: np.ndarray
    """Knowledge, cells x width, float32."""
    by_expression: NeighbourLists | None = None
    """Neighbours in expression, where the guidance needs them."""
    by_knowledge: NeighbourLists | None = None
    """Neighbours in knowledge, where the guidance needs them."""
    with_expression: bool = False
    """Whether the neighbours' expression is needed too."""


def expression_matrix(
    adata: AnnData, layer: str | None, constants: TrainingConstants
) -> sparse.csr_matrix:
    """Log-normalised expression of all cells, sparse, float32."""
    blocks = []
    for _, block in iter_row_blocks(adata, layer):
        rows = sparse.csr_matrix(block, dtype=np.float32, copy=True)
        if constants.kind != "log":
            total = np.maximum(np.asarray(rows.sum(axis=1)).ravel(), 1e-6)
            rows = sparse.diags((constants.target_total / total).astype(np.float32)) @ rows
            rows = rows.log1p()
        blocks.append(rows)
    return sparse.vstack(blocks, format="csr").astype(np.float32)


def half_scaled(expression: sparse.csr_matrix) -> sparse.csr_matrix:
    """Log-normalised expression with the square roots of the genes' standard deviations.

    Unscaled, a few strong genes make up the components; scaled to one deviation, genes that vary
    by chance count as much as they do.
    """
    matrix = expression.astype(np.float64)
    mean, variance = mean_variance_axis(matrix, axis=0)
    # A gene that does not vary tells no cells apart; what is left of its variance is rounding.
    varies = variance > 1e-12 * mean**2
    return sparse.csr_matrix(matrix @ sparse.diags(np.where(varies, variance, np.inf) ** -0.25))


def expression_pca(expression: sparse.csr_matrix, width: int = PCA_WIDTH) -> np.ndarray:
    """Principal components of expression, padded with zeros to ``width``."""
    n_components = min(width, min(expression.shape) - 1)
    if n_components < 1:
        raise TooFewCellsError("PCA needs at least two cells and two genes.")
    # float64: single precision makes the smallest components depend on the number of threads
    matrix: Any = expression.astype(np.float64)
    if matrix.shape[0] * matrix.shape[1] <= _LARGEST_DENSE and min(matrix.shape) < 500:
        found = PCA(n_components, svd_solver="full").fit_transform(matrix.toarray())
    else:
        found = PCA(n_components, svd_solver="arpack", random_state=0).fit_transform(matrix)
    padded = np.zeros((expression.shape[0], width), dtype=np.float32)
    padded[:, :n_components] = found
    return padded


def half_whitened(components: np.ndarray) -> np.ndarray:
    """Principal components with the square roots of their standard deviations.

    At full length the two or three largest programs decide nearly every distance, and types that
    differ in smaller ones drown; whitened entirely, noise would count as much as they do.
    """
    deviation = components.std(axis=0)
    # components beyond the rank of small data are zero
    return components / np.sqrt(np.where(deviation > 1e-6 * deviation.max(), deviation, np.inf))


def check_knowledge(knowledge: Any, where: str) -> np.ndarray:
    """Knowledge as a float32 matrix that can guide.

    Raises
    ------
    NotFiniteError
        A value is NaN or infinite.
    InputError
        Cells have constant rows, or all cells have the same row.
    """
    values = np.asarray(
        knowledge.toarray() if sparse.issparse(knowledge) else knowledge, dtype=np.float32
    )
    if values.ndim != 2 or values.shape[1] < 2:
        raise InputError(
            f"{where} must be a matrix with one row per cell and at least two columns, "
            f"not of shape {values.shape}."
        )
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        cell = int(np.flatnonzero(~finite)[0])
        raise NotFiniteError(
            f"{where} is not finite for {int((~finite).sum())} cell(s), the first is cell number "
            f"{cell}. Compute the embedding for those cells or leave them out."
        )
    constant = np.ptp(values, axis=1) == 0
    if constant.any():
        cell = int(np.flatnonzero(constant)[0])
        raise InputError(
            f"{where} has the same value in every column for {int(constant.sum())} cell(s), the "
            f"first is cell number {cell}: such rows are usually cells that the embedding model "
            "could not process. Leave those cells out or compute their embedding."
        )
    if values.shape[0] > 1 and (values == values[:1]).all():
        raise InputError(f"{where} is the same for every cell, so it cannot guide anything.")
    return values


def build_guidance(
    adata: AnnData,
    layer: str | None,
    constants: TrainingConstants,
    *,
    knowledge: np.ndarray | None,
    n_neighbors: int,
    neighbours: bool,
    published: bool,
) -> Guidance:
    """Prepare the guidance of a training run.

    Parameters
    ----------
    adata, layer
        The expression.
    constants
        Constants of the normalisation.
    knowledge
        Outside knowledge; ``None`` for the principal components of the expression.
    n_neighbors
        Size of a neighbourhood, the cell itself counted.
    neighbours
        Whether the guidance needs neighbours.
    published
        Neighbours in the full expression, as published, instead of its principal components, and
        the neighbours' expression in every minibatch; components of unit length.
    """
    if not neighbours:
        if knowledge is None:
            # for distances the length matters: it says how distinct a cell is
            expression = half_scaled(expression_matrix(adata, layer, constants))
            knowledge = half_whitened(expression_pca(expression, _GUIDING))
        return Guidance(np.ascontiguousarray(knowledge, dtype=np.float32))
    expression = expression_matrix(adata, layer, constants)
    view: Any = expression
    if knowledge is None or not published:
        components = expression_pca(expression)
        if not published:
            view = components
        if knowledge is None:
            knowledge = normalize(components)  # rows of unit length, as published
    knowledge = np.ascontiguousarray(knowledge, dtype=np.float32)
    return Guidance(
        knowledge=knowledge,
        by_expression=mutual_neighbours(view, n_neighbors),
        by_knowledge=mutual_neighbours(knowledge, n_neighbors),
        with_expression=published,
    )
