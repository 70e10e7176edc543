r"""Coordinates of cells given the values that were observed in them.

The linear projection weighs a cell as if its missing genes were drawn at random from all of them,
which is unbiased, and scatters cells of which little was seen. Given the loadings :math:`V`
(values are :math:`y_i = \mu + Vx_i + \varepsilon`), the mean of :math:`x_i` given the observed
genes :math:`O_i` is

.. math:: \hat x_i = \Big(V_{O_i}^\top V_{O_i} + \sigma^2\,\mathrm{diag}(1/\ell)\Big)^{-1}
   V_{O_i}^\top (y_i-\mu)_{O_i},

with :math:`\sigma^2` the variance that the components leave and :math:`\ell_k` the variance of the
coordinates: the posterior mean of probabilistic PCA (Tipping and Bishop 1999) with GramDR's
loadings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sczoo.model.gramdr._rows import RowBlock
    from sczoo.model.gramdr._state import GeneState

__all__ = ["ConditionalScores"]

# noise of data that the components explain wholly, as a share of their variance
_LEAST_NOISE = 1e-9
_ROWS = 512


class ConditionalScores:
    """Posterior means of the coordinates of blocks of cells with missing values.

    Parameters
    ----------
    state
        Gene-side parameters.
    loadings
        What a unit of each component adds to each gene, ``(D, K)``.
    """

    def __init__(self, state: GeneState, loadings: np.ndarray) -> None:
        k = loadings.shape[1]
        self.centre = np.asarray(state.centre, dtype=np.float64)
        self.loadings = np.asarray(loadings, dtype=np.float64)
        residual, signal = float(state.residual_variance), float(state.signal_variance)
        noise = max(residual, _LEAST_NOISE * (residual + signal))
        prior = np.maximum(np.asarray(state.latent_variance[:k], dtype=np.float64), 1e-300)
        self.ridge = np.diag(noise / prior)
        self.upper = np.triu_indices(k)
        # V_s V_s^T of every gene, its upper triangle
        self.squares = self.loadings[:, self.upper[0]] * self.loadings[:, self.upper[1]]

    def __call__(self, block: RowBlock) -> np.ndarray:
        """Return the coordinates, ``(m, K)``; zero for cells without an observation."""
        k = self.loadings.shape[1]
        latent = np.zeros((len(block.rows), k))
        if not k:
            return latent
        for start in range(0, len(latent), _ROWS):
            part = slice(start, start + _ROWS)
            pattern: Any = block.pattern[part]
            seen = np.asarray(pattern @ self.squares, dtype=np.float64)
            precision = np.empty((len(seen), k, k))
            precision[:, self.upper[0], self.upper[1]] = seen
            precision[:, self.upper[1], self.upper[0]] = seen
            # sum over what was observed of V_s (y_s - mu_s)
            pulled = np.asarray(block.values[part] @ self.loadings, dtype=np.float64)
            pulled -= np.asarray(pattern @ (self.centre[:, None] * self.loadings))
            latent[part] = np.linalg.solve(precision + self.ridge, pulled[:, :, None])[:, :, 0]
        return latent
