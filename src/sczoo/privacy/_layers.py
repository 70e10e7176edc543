"""Layers with trainable numbers that are not the weights of a linear map.

:class:`~sczoo.privacy.UnitGradients` clips the gradient of every cell or donor, and can do so only
for parameters that are used inside the ``forward`` of a layer that it knows.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Centres", "Offset"]


class Offset(nn.Module):
    """Add a trainable vector to the last axis, such as a bias or a dispersion per gene.

    Parameters
    ----------
    n_features
        Length of the vector.
    value
        Its initial value.
    """

    def __init__(self, n_features: int, value: float = 0.0) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.full((n_features,), float(value)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the offset to `x`, shape ``(units, ..., n_features)``."""
        return x + self.offset


class Centres(nn.Module):
    """Squared distances to trainable cluster centres.

    Parameters
    ----------
    n_centres, n_features
        Number of centres and of dimensions.
    """

    def __init__(self, n_centres: int, n_features: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(n_centres, n_features) / n_features**0.5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return squared distances of shape ``(units, ..., n_centres)``."""
        squares = z.square().sum(-1, keepdim=True) + self.centres.square().sum(-1)
        return (squares - 2.0 * z @ self.centres.T).clamp_min(0.0)
