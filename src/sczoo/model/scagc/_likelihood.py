"""What the decoder's output says about the counts, and its loss."""

from __future__ import annotations

from typing import Any

import torch
from scvi.nn import FCLayers
from torch import nn
from torch.nn import functional as F

__all__ = ["CountDecoder", "ScaledDecoder", "zinb_loss"]

_LOG_FLOOR = 1e-8


def zinb_loss(
    x: torch.Tensor, log_mean: torch.Tensor, log_theta: torch.Tensor, logit_pi: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of counts under the zero-inflated negative binomial.

    Equal to ``-ZeroInflatedNegativeBinomial(...).log_prob(x)`` of scvi-tools, but gamma functions
    are evaluated where counts are not zero, which is at a tenth of the values.

    Parameters
    ----------
    x
        Counts, cells x genes.
    log_mean
        Logarithm of the mean of the negative binomial, cells x genes.
    log_theta
        Logarithm of its inverse dispersion, one per gene.
    logit_pi
        Log-odds of an additional zero, cells x genes.

    Returns
    -------
    Cells x genes.
    """
    theta = log_theta.exp()
    # log(theta / (theta + mean)), without overflow
    log_ratio = -F.softplus(log_mean - log_theta)
    no_zero = F.softplus(-logit_pi)
    zero = no_zero - F.softplus(theta * log_ratio - logit_pi)
    cell, gene = torch.nonzero(x, as_tuple=True)
    count, theta_at, ratio_at = x[cell, gene], theta[gene], log_ratio[cell, gene]
    mean_at, log_theta_at = log_mean[cell, gene], log_theta[gene]
    at = (
        no_zero[cell, gene]
        + logit_pi[cell, gene]
        - theta_at * ratio_at
        - count * (mean_at - log_theta_at + ratio_at)
        - torch.lgamma(count + theta_at)
        + torch.lgamma(theta_at)
        + torch.lgamma(count + 1)
    )
    return zero.index_put((cell, gene), at)


class CountDecoder(nn.Module):
    """Latent representation to the parameters of a zero-inflated negative binomial.

    The mean is the cell's library times a share of it, so that size factors need not be learnt.
    """

    def __init__(self, n_latent: int, n_hidden: int, n_genes: int) -> None:
        super().__init__()
        self.hidden = FCLayers(
            n_latent,
            n_hidden,
            n_layers=1,
            n_hidden=n_hidden,
            dropout_rate=0.0,
            use_batch_norm=False,
            use_layer_norm=True,
        )
        self.share = nn.Linear(n_hidden, n_genes)
        self.dropout = nn.Linear(n_hidden, n_genes)
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    def forward(self, z: torch.Tensor, library: torch.Tensor) -> dict[str, torch.Tensor]:
        """Decode; `library` holds the total of each cell."""
        hidden = self.hidden(z)
        log_share = F.log_softmax(self.share(hidden), dim=1)
        return {
            "log_mean": log_share + library.clamp_min(_LOG_FLOOR).log()[:, None],
            "logit_pi": self.dropout(hidden),
        }

    def loss(self, x: torch.Tensor, scaled: torch.Tensor, decoded: dict[str, Any]) -> torch.Tensor:
        """Loss per cell and gene."""
        return zinb_loss(x, decoded["log_mean"], self.log_theta, decoded["logit_pi"])


class ScaledDecoder(nn.Module):
    """Latent representation to scaled expression, with a squared error: the ablation's decoder."""

    def __init__(self, n_latent: int, n_hidden: int, n_genes: int) -> None:
        super().__init__()
        self.hidden = FCLayers(
            n_latent,
            n_hidden,
            n_layers=1,
            n_hidden=n_hidden,
            dropout_rate=0.0,
            use_batch_norm=False,
            use_layer_norm=True,
        )
        self.mean = nn.Linear(n_hidden, n_genes)

    def forward(self, z: torch.Tensor, library: torch.Tensor) -> dict[str, torch.Tensor]:
        """Decode; `library` plays no part."""
        return {"mean": self.mean(self.hidden(z))}

    def loss(self, x: torch.Tensor, scaled: torch.Tensor, decoded: dict[str, Any]) -> torch.Tensor:
        """Loss per cell and gene."""
        return 0.5 * (scaled - decoded["mean"]) ** 2
