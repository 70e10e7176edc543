"""Encoders and decoders, of layers whose gradients can be clipped for every single cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sczoo.privacy._layers import Offset

__all__ = ["ProjectedDecoder", "ProjectedEncoder", "PublishedDecoder", "PublishedEncoder"]

_SCALE = 4.0  # coordinates of unit vectors are small; a tanh is linear there
_LARGEST_LOG = 12.0


class ProjectedEncoder(nn.Module):
    """A projection that is not trained here, and a small network that corrects it.

    A network from thousands of genes drowns in the noise that its size needs. The projection is
    one matrix, released once or computed from public cells; the correction has a few hundred
    weights and begins at zero.
    """

    profile: torch.Tensor
    projection: torch.Tensor
    fitted: torch.Tensor

    def __init__(self, n_input: int, n_latent: int, n_hidden: int) -> None:
        super().__init__()
        self.register_buffer("profile", torch.zeros(n_input))
        self.register_buffer("projection", torch.zeros(n_input, n_latent))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.hidden = nn.Linear(n_latent, n_hidden)
        self.out = nn.Linear(n_hidden, n_latent)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def set_projection(self, profile: Any, components: Any) -> None:
        """Take over a mean profile and a projection, both zero for genes not chosen."""
        self.profile.copy_(torch.as_tensor(profile))
        self.projection.copy_(torch.as_tensor(components))
        self.fitted.fill_(True)

    @property
    def chosen(self) -> torch.Tensor:
        """Positions of the genes that take part."""
        return torch.nonzero(self.profile).flatten()

    def residual(self, unit: torch.Tensor) -> torch.Tensor:
        """Deviation of unit profiles from the mean profile in the chosen genes, length one.

        Shape ``(..., genes)`` to ``(..., chosen genes)``.
        """
        chosen = self.chosen
        return F.normalize(unit[..., chosen] - self.profile[chosen], dim=-1)

    def project(self, residual: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Project residuals; genes outside `keep` are set to the mean."""
        if keep is not None:
            residual = F.normalize(residual * keep, dim=-1)
        return residual @ self.projection[self.chosen]

    def correct(self, projected: torch.Tensor) -> torch.Tensor:
        """Add the trained correction, ``(..., latent)``."""
        return projected + self.out(torch.tanh(self.hidden(_SCALE * projected)))

    def forward(self, unit: torch.Tensor) -> torch.Tensor:
        """Encode unit profiles, ``(..., genes)`` to ``(..., latent)``."""
        return self.correct(self.project(self.residual(unit)))


class ProjectedDecoder(nn.Module):
    """Log-frequencies as the mean profile plus a combination of the projection's columns."""

    def __init__(self, n_latent: int, n_hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_latent, n_hidden)
        self.out = nn.Linear(n_hidden, n_latent)
        self.dispersion = Offset(1, 1.0)
        self.dropout = Offset(1, -2.0)

    def forward(
        self, z: torch.Tensor, profile: torch.Tensor, projection: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return frequencies of the chosen genes, inverse dispersion and dropout logits.

        Parameters
        ----------
        z
            Shape ``(..., latent)``.
        profile, projection
            Of the chosen genes: ``(genes,)``, positive, and ``(genes, latent)``.
        """
        weights = self.out(torch.tanh(self.hidden(_SCALE * z)))
        # the profile is log1p of the frequencies, so its deviations are deviations of the log
        logits = _SCALE * weights @ projection.T / profile.sqrt()
        frequency = F.softmax(torch.log(profile) + logits, dim=-1)
        zero = torch.zeros_like(z[..., :1])
        return frequency, F.softplus(self.dispersion(zero)) + 1e-4, self.dropout(zero)


class PublishedEncoder(nn.Module):
    """The published encoder: three linear layers, tanh between them."""

    def __init__(self, n_input: int, n_latent: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_input, 256), nn.Tanh(), nn.Linear(256, 64), nn.Tanh()
        )
        self.out = nn.Linear(64, n_latent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode inputs, ``(..., genes)`` to ``(..., latent)``."""
        return self.out(self.layers(x))


class PublishedDecoder(nn.Module):
    """The published decoder: a trunk, and heads for mean, dispersion and dropout."""

    def __init__(self, n_input: int, n_latent: int = 32) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(n_latent, 64), nn.Tanh(), nn.Linear(64, 256), nn.Tanh()
        )
        self.mean = nn.Linear(256, n_input)
        self.dispersion = nn.Linear(256, n_input)
        self.dropout = nn.Linear(256, n_input)

    def forward(
        self, z: torch.Tensor, normalised: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return means or frequencies, inverse dispersion and dropout logits."""
        h = self.trunk(z)
        mean = self.mean(h)
        if normalised:
            mean = F.softmax(mean, dim=-1)
        else:
            mean = torch.exp(mean.clamp_max(_LARGEST_LOG)).clamp(1e-5, 1e6)
        return mean, F.softplus(self.dispersion(h)).clamp(1e-4, 1e4), self.dropout(h)
