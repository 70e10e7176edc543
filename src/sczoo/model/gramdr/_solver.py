"""Leading eigenpairs of a symmetric operator by block Krylov steps, one pass each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BlockKrylov", "orthonormal"]

# Directions whose length falls below this share of the longest are rounding.
_RANK_TOLERANCE = 1e-10


class BlockKrylov:
    r"""Block Lanczos with full reorthogonalisation and thick restarts.

    After every step the Ritz pairs of everything seen so far are at hand, with their residuals
    :math:`\lVert Bu-\theta u\rVert`, which cost nothing extra. Each operator product also returns
    an auxiliary array per column (here the gene-side factor), which is carried along, so that the
    auxiliary array of a Ritz vector needs no further product.

    Parameters
    ----------
    apply
        From ``(n, b)`` to the operator's product ``(n, b)`` and the auxiliary ``(a, b)``.
    start
        Start block ``(n, b)``; made orthonormal.
    n_wanted
        Number of leading pairs.
    max_blocks
        Blocks held before a restart; memory is ``max_blocks * n * b``.
    """

    def __init__(
        self,
        apply: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        start: np.ndarray,
        n_wanted: int,
        max_blocks: int = 6,
    ) -> None:
        self.apply = apply
        self.n_wanted = n_wanted
        self.n_steps = 0
        self.values = np.zeros(0)
        self.residuals = np.zeros(0)
        self._max_columns = max(max_blocks * start.shape[1], n_wanted + 2 * start.shape[1])
        self._basis: list[np.ndarray] = []
        self._aux: list[np.ndarray] = []
        self._next = orthonormal(start)[0]
        self._projected = np.zeros((0, 0))
        self._ritz = np.zeros((0, 0))

    @property
    def exhausted(self) -> bool:
        """Whether the basis spans everything that the operator reaches."""
        return self._next.shape[1] == 0

    def step(self) -> None:
        """Make one product with the operator and update the Ritz pairs."""
        if self.exhausted:
            return
        block = self._next
        self._restart_if_full(block.shape[1])
        product, aux = self.apply(block)
        self._basis.append(block)
        self._aux.append(aux)
        columns = [b.T @ product for b in self._basis]
        rest = product - sum(b @ c for b, c in zip(self._basis, columns, strict=True))
        again = [b.T @ rest for b in self._basis]
        rest -= sum(b @ c for b, c in zip(self._basis, again, strict=True))
        new = np.concatenate(columns).astype(np.float64)
        size, width = self._projected.shape[0], block.shape[1]
        projected = np.zeros((size + width, size + width))
        projected[:size, :size] = self._projected
        projected[:, size:] = new
        projected[size:, :size] = new[:size].T
        projected[size:, size:] = (new[size:] + new[size:].T) / 2
        self._projected = projected
        scale = float(np.linalg.norm(product)) + 1e-300
        self._next, remainder = orthonormal(rest, scale)
        smallest = np.linalg.norm(remainder, axis=1).min(initial=np.inf)
        # Where little was left, rounding must not bring old directions back.
        if self._next.shape[1] and smallest < scale * float(np.finfo(product.dtype).eps) ** 0.5:
            for b in self._basis:
                self._next -= b @ (b.T @ self._next)
            self._next, correction = orthonormal(self._next, 1.0)
            remainder = correction @ remainder
        values, vectors = np.linalg.eigh(projected)
        order = np.argsort(values)[::-1]
        self.values, self._ritz = values[order], vectors[:, order]
        self._remainder = remainder
        self.residuals = np.linalg.norm(remainder @ self._ritz[size:], axis=0)
        self.n_steps += 1

    def _restart_if_full(self, width: int) -> None:
        held = sum(block.shape[1] for block in self._basis)
        if held + width <= self._max_columns or not held:
            return
        kept = min(held, self.n_wanted + (width + 1) // 2)
        vectors = self._ritz[:, :kept]
        basis, aux = self._combine(self._basis, vectors), self._combine(self._aux, vectors)
        self._basis, self._aux = [basis], [aux]
        self._projected = np.diag(self.values[:kept])

    @staticmethod
    def _combine(blocks: list[np.ndarray], vectors: np.ndarray) -> np.ndarray:
        out = np.zeros((*blocks[0].shape[:-1], vectors.shape[1]), dtype=blocks[0].dtype)
        start = 0
        for block in blocks:
            stop = start + block.shape[-1]
            out += block @ vectors[start:stop].astype(block.dtype)
            start = stop
        return out

    def vectors(self, n: int) -> np.ndarray:
        """Return the Ritz vectors of the `n` largest values, ``(n_rows, n)``."""
        return self._combine(self._basis, self._ritz[:, :n])

    def auxiliary(self, n: int) -> np.ndarray:
        """Return the auxiliary arrays of the `n` largest Ritz vectors, ``(a, n)``."""
        return self._combine(self._aux, self._ritz[:, :n])

    def residual(self) -> float:
        """Largest residual of the wanted pairs, relative to the largest value."""
        wanted = self.residuals[: self.n_wanted]
        largest = float(np.abs(self.values).max(initial=0.0))
        if self.exhausted or largest == 0:
            return 0.0
        if len(self.values) < self.n_wanted:
            return 1.0
        return float(wanted.max(initial=0.0)) / largest


def orthonormal(block: np.ndarray, scale: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return ``Q, R`` with ``block = Q R`` and orthonormal ``Q``; negligible columns are dropped.

    Parameters
    ----------
    block
        ``(n, b)``.
    scale
        Size against which a direction is negligible; that of the block by default.
    """
    rounding = max(_RANK_TOLERANCE, 50 * float(np.finfo(block.dtype).eps))
    norm = float(np.linalg.norm(block))
    limit = rounding * (norm if scale is None else scale)
    if norm <= limit or not block.size:
        return block[:, :0], np.zeros((0, block.shape[1]))
    q, r = np.linalg.qr(block)
    u, s, vt = np.linalg.svd(r.astype(np.float64))
    kept = s > limit
    if kept.all() and len(s) == block.shape[1]:
        return q, r.astype(np.float64)
    q = q @ u[:, : len(s)][:, kept].astype(block.dtype)
    return q, s[kept][:, None] * vt[: len(s)][kept]
