r"""Coordinates of cells from gene-side parameters alone.

A cell :math:`x` of the fit is an eigenvector entry; written out, it is its own projection less
what it contributed to the loadings itself:

.. math:: x_{ik} = \Big(1 + \frac{w_i^2\delta_i}{\lambda_k}\Big)^{-1}
   \sum_b \frac{Y_i\cdot W_{bk}}{n_{ib}} .

A new cell contributed nothing, so the first factor is one. Both need only the loadings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.model.gramdr._encoding import encode, panels_of, row_scales
from sczoo.model.gramdr._operator import row_precision

if TYPE_CHECKING:
    from sczoo.model.gramdr._encoding import Encoded
    from sczoo.model.gramdr._rows import RowBlock
    from sczoo.model.gramdr._state import GeneState, NormaliserName

__all__ = ["Projector"]


class Projector:
    """Project blocks of cells on the components of a fitted state.

    Parameters
    ----------
    state
        Gene-side parameters.
    normaliser, clip, weight_power
        As in the fit.
    present
        Genes that the data have.
    joint
        Whether the cells are those of the fit.
    """

    def __init__(
        self,
        state: GeneState,
        normaliser: NormaliserName,
        *,
        clip: float | None,
        weight_power: float,
        present: np.ndarray,
        joint: bool,
    ) -> None:
        self.state = state
        self.normaliser = normaliser
        self.clip = clip
        self.weight_power = weight_power
        self.present = present
        self.joint = joint
        k = int(state.n_kept)
        self.loadings = state.loadings[:, :, :k].astype(np.float64)
        self.eigenvalues = state.eigenvalues[:k]

    def encode(self, block: RowBlock) -> Encoded:
        """Compute the rows of the factor for a block."""
        return encode(block, self.state, self.normaliser, self.clip, self.present)

    def scales(
        self, block: RowBlock, encoded: Encoded
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return row scale, co-observation with each batch and diagonal excess of the cells."""
        if self.joint:
            return row_scales(encoded, block.batch, self.state, self.normaliser)
        return new_row_scales(encoded, self.state, self.normaliser)

    def offset(self, block: RowBlock) -> tuple[np.ndarray, np.ndarray] | None:
        """Return what is subtracted from rows of counts, ``(u, D)``, and which each cell has."""
        if self.normaliser != "depth":
            return None
        panels, which = panels_of(block.batch, self.state, self.present)
        return panels * (self.state.centre * self.state.scale), which

    def __call__(self, block: RowBlock) -> np.ndarray:
        """Return the coordinates of a block of cells, ``(m, K)``; zero for unobserved cells."""
        encoded = self.encode(block)
        r, between, delta = self.scales(block, encoded)
        offset = self.offset(block)
        latent = np.zeros((len(r), self.loadings.shape[2]))
        for code, loadings in enumerate(self.loadings):
            product = np.asarray(encoded.values @ loadings)
            if offset is not None:
                depth = encoded.observed[:, None]
                product = np.divide(product, depth, out=np.zeros_like(product), where=depth > 0)
                product -= (offset[0] @ loadings)[offset[1]]
            shared = between[:, code, None]
            latent += np.divide(product, shared, out=np.zeros_like(product), where=shared > 0)
        if self.joint:
            weight = self.weights(encoded, r)
            latent /= 1.0 + (weight**2 * delta)[:, None] / self.eigenvalues
        latent[r <= 0] = 0.0
        return latent

    def weights(self, encoded: Encoded, r: np.ndarray) -> np.ndarray:
        """Return the precision weights of the cells, as in the fit."""
        precision = row_precision(encoded.observed, r, self.normaliser)
        scaled = precision / float(self.state.weight_scale)
        return np.where(precision > 0, scaled**self.weight_power, 0.0)


def new_row_scales(
    encoded: Encoded, state: GeneState, normaliser: NormaliserName
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Scales of cells that took no part in the fit: :math:`n_{ib} = M_i\cdot q_b/R_b`."""
    if normaliser in ("rank1", "pairwise"):
        between = encoded.overlap / state.mass
        r = (between @ state.mass) / state.mass.sum()
        return np.where(encoded.observed > 0, r, 0.0), between, np.zeros(len(r))
    if normaliser == "depth":
        seen = (encoded.observed > 0).astype(float)
        return seen, encoded.overlap * seen[:, None], np.zeros(len(seen))
    batch = np.zeros(len(encoded.observed), dtype=np.int64)
    r, between, _ = row_scales(encoded, batch, state, normaliser)
    return r, between, np.zeros(len(r))


def as_float32(latent: Any) -> np.ndarray:
    """Return a C-ordered single-precision copy."""
    return np.ascontiguousarray(latent, dtype=np.float32)
