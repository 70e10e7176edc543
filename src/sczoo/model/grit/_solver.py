r"""Block conjugate gradients for the refinement of scores on a graph of cells.

The refined scores minimise

.. math:: \sum_i g_i \lVert F_i - P_i\rVert^2 + \lambda\,\mathrm{tr}(F^\top L F)
          + \mu\sum_i g_i F_i L_C F_i^\top \tag{1}

with the fidelity :math:`g`, the Laplacian :math:`L` of the graph of cells and, optionally, the
Laplacian :math:`L_C` of the classes. The solution is that of a sparse, symmetric and positive
definite system, :math:`(G + \lambda L) F + \mu G F L_C = G P`; in the eigenvectors of
:math:`L_C` its columns are independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from sczoo.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LaplacianName", "Solution", "System", "build_system", "solve"]

LaplacianName = Literal["sym", "rw", "comb"]

_MAX_ITERATIONS = 2000
_COLUMNS_AT_ONCE = 64
_ROWS_AT_ONCE = 8192
# Up to this many scores double precision costs nothing.
_DOUBLE_UP_TO = 1_000_000


@dataclass(frozen=True)
class System:
    r"""The operator :math:`X \mapsto G X (1 + s) + \lambda (d X - A X)`.

    Attributes
    ----------
    adjacency
        :math:`A`, a sparse CSR tensor, ``(n_cells, n_cells)``.
    degree
        :math:`d`, the diagonal of the Laplacian, ``(n_cells, 1)``.
    fidelity
        :math:`g`, ``(n_cells, 1)``.
    lam
        :math:`\lambda`.
    """

    adjacency: torch.Tensor
    degree: torch.Tensor
    fidelity: torch.Tensor
    lam: float

    def apply(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Apply the operator to the columns of `x`, each with its own `shift`."""
        out = torch.sparse.mm(self.adjacency, x)
        out.neg_().addcmul_(self.degree, x).mul_(self.lam)
        return out.addcmul_(self.fidelity * (1.0 + shift), x)

    def diagonal(self, shift: torch.Tensor) -> torch.Tensor:
        """Diagonal of the operator, ``(n_cells, n_columns)`` by broadcasting."""
        return self.fidelity * (1.0 + shift) + self.lam * self.degree


@dataclass(frozen=True)
class Solution:
    """Refined scores and how they were reached.

    Attributes
    ----------
    scores
        ``(n_cells, n_classes)``, of the type of the input.
    residuals
        Largest relative residual of any column before the first and after each iteration.
    """

    scores: np.ndarray
    residuals: list[float]

    @property
    def n_iterations(self) -> int:
        """Number of multiplications with the graph that the slowest columns needed."""
        return len(self.residuals) - 1


def build_system(
    graph: csr_matrix,
    lam: float,
    *,
    laplacian: LaplacianName = "rw",
    weights: np.ndarray | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> System:
    r"""Build the system of a graph.

    Parameters
    ----------
    graph
        Symmetric, non-negative weights, no diagonal.
    lam
        Strength of the regularisation; means the same whatever the weights and the number of
        neighbours.
    laplacian
        ``"sym"``: :math:`I - D^{-1/2} W D^{-1/2}`. ``"rw"``: :math:`D - W` with the fidelity of a
        cell weighted by its degree, which is :math:`I - D^{-1} W` after division and keeps the sum
        of each cell's scores. ``"comb"``: :math:`(D - W)` over the mean degree, which keeps the
        sum of each class's scores too. Cells without a neighbour keep their scores in all three.
    weights
        Trust in each cell's own scores, ``(n_cells,)``; 1 by default.
    dtype, device
        Of the computation.
    """
    if laplacian not in get_args(LaplacianName):
        raise InputError(
            f"laplacian={laplacian!r} is not known: use one of {get_args(LaplacianName)}."
        )
    n_cells = graph.shape[0]
    degree = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    isolated = degree <= 0
    fidelity = np.ones(n_cells) if weights is None else np.asarray(weights, dtype=np.float64)
    values = graph.data.astype(np.float64)
    if laplacian == "sym":
        root = 1.0 / np.sqrt(np.where(isolated, 1.0, degree))
        values = values * np.repeat(root, np.diff(graph.indptr)) * root[graph.indices]
        diagonal = np.where(isolated, 0.0, 1.0)
    else:
        unit = degree[~isolated].mean() if (~isolated).any() else 1.0
        values, diagonal = values / unit, degree / unit
        if laplacian == "rw":
            fidelity = fidelity * np.where(isolated, 1.0, diagonal)
    index = torch.int32 if graph.nnz < 2**31 else torch.int64
    import warnings

    with warnings.catch_warnings():
        # "CSR support is in beta": the product of CSR and dense that is used here is stable
        warnings.filterwarnings("ignore", message=".*[Ss]parse CSR.*")
        adjacency = torch.sparse_csr_tensor(
            torch.as_tensor(graph.indptr, dtype=index),
            torch.as_tensor(graph.indices, dtype=index),
            torch.as_tensor(values, dtype=dtype),
            size=graph.shape,
            device=device,
            check_invariants=False,
        )

    def column(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=dtype, device=device)[:, None]

    return System(adjacency, column(diagonal), column(fidelity), float(lam))


def choose_dtype(n_scores: int) -> torch.dtype:
    """Choose double precision for small problems, single for large ones."""
    return torch.float64 if n_scores <= _DOUBLE_UP_TO else torch.float32


def default_tolerance(n_scores: int) -> float:
    """Relative residual to stop at: labels no longer change at 1e-3 (measured)."""
    return 1e-5 if n_scores <= _DOUBLE_UP_TO else 1e-4


def solve(
    system: System,
    scores: np.ndarray,
    *,
    class_laplacian: np.ndarray | None = None,
    mu: float = 0.0,
    tol: float = 1e-5,
    start: np.ndarray | None = None,
) -> Solution:
    """Refine `scores` by conjugate gradients with a Jacobi preconditioner.

    Parameters
    ----------
    system
        What :func:`build_system` returned.
    scores
        ``(n_cells, n_classes)``, finite.
    class_laplacian
        Laplacian of the classes, ``(n_classes, n_classes)``, symmetric.
    mu
        Strength of the coupling of the classes.
    tol
        Largest relative residual of a column.
    start
        Scores to start from; `scores` by default.

    Returns
    -------
    :class:`Solution`
    """
    device, dtype = system.fidelity.device, system.fidelity.dtype
    right = torch.as_tensor(np.ascontiguousarray(scores), dtype=dtype, device=device)
    first = right if start is None else torch.as_tensor(start, dtype=dtype, device=device)
    shift = torch.zeros(right.shape[1], dtype=dtype, device=device)
    rotation = None
    if class_laplacian is not None and mu > 0:
        values, vectors = np.linalg.eigh(class_laplacian)
        rotation = torch.as_tensor(vectors, dtype=dtype, device=device)
        shift = torch.as_tensor(mu * np.maximum(values, 0.0), dtype=dtype, device=device)
        right, first = right @ rotation, first @ rotation
    out = torch.empty_like(right)
    residuals: list[float] = []
    for low in range(0, right.shape[1], _COLUMNS_AT_ONCE):
        part = slice(low, low + _COLUMNS_AT_ONCE)
        found, history = _conjugate_gradients(
            system, right[:, part], first[:, part].clone(), shift[part], tol
        )
        out[:, part] = found
        residuals = [
            max(pair)
            for pair in zip(_padded(residuals, history), _padded(history, residuals), strict=True)
        ]
    if rotation is not None:
        out = out @ rotation.T
    return Solution(out.cpu().numpy().astype(scores.dtype, copy=False), residuals)


def _padded(short: list[float], other: list[float]) -> list[float]:
    last = short[-1:] if short else [0.0]
    return short + last * (len(other) - len(short))


def _conjugate_gradients(
    system: System, scores: torch.Tensor, x: torch.Tensor, shift: torch.Tensor, tol: float
) -> tuple[torch.Tensor, list[float]]:
    """Solve for a block of columns; each column has step lengths of its own.

    All but the product with the graph is done in blocks of rows that stay in the cache.
    """
    blocks = [slice(low, low + _ROWS_AT_ONCE) for low in range(0, len(x), _ROWS_AT_ONCE)]
    diagonal = system.diagonal(shift)
    residual = system.apply(x, shift)
    norm, remaining, rho = (
        torch.zeros(x.shape[1], dtype=torch.float64, device=x.device) for _ in range(3)
    )
    direction = torch.empty_like(residual)
    for rows in blocks:
        right = system.fidelity[rows] * scores[rows]
        left = torch.sub(right, residual[rows], out=residual[rows])
        conditioned = torch.div(left, diagonal[rows], out=direction[rows])
        norm += (right * right).sum(dim=0)
        remaining += (left * left).sum(dim=0)
        rho += (left * conditioned).sum(dim=0)
    norm = torch.where(norm > 0, norm, torch.ones_like(norm))
    history = [float((remaining / norm).max().sqrt())]
    for _ in range(_MAX_ITERATIONS):
        if not history[-1] > tol:
            break
        image = system.apply(direction, shift)
        curvature = torch.zeros_like(rho)
        for rows in blocks:
            curvature += (direction[rows] * image[rows]).sum(dim=0)
        # a column that is solved has neither direction nor curvature
        alpha = _ratio(rho, curvature).to(x.dtype)
        remaining, rho_next = torch.zeros_like(rho), torch.zeros_like(rho)
        for rows in blocks:
            x[rows].addcmul_(alpha, direction[rows])
            left = residual[rows].addcmul_(-alpha, image[rows])
            conditioned = torch.div(left, diagonal[rows], out=image[rows])
            remaining += (left * left).sum(dim=0)
            rho_next += (left * conditioned).sum(dim=0)
        history.append(float((remaining / norm).max().sqrt()))
        beta = _ratio(rho_next, rho).to(x.dtype)
        for rows in blocks:
            direction[rows].mul_(beta).add_(image[rows])
        rho = rho_next
    return x, history


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Divide, with zero where there is nothing to divide by."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)
