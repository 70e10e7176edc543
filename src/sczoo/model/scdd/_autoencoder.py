"""The compact latent space: a variational autoencoder of counts.

The likelihood is the negative binomial of scvi-tools, written so that the gamma function is
evaluated at the non-zero counts alone.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Decoder", "Encoder", "negative_binomial_nll"]


def negative_binomial_nll(
    counts: torch.Tensor, log_mean: torch.Tensor, log_theta: torch.Tensor
) -> torch.Tensor:
    r"""Negative log-likelihood of counts under a negative binomial, summed over genes.

    With mean :math:`\mu` and inverse dispersion :math:`\theta`,

    .. math::

        -\log p(c) = \theta\log(1 + \mu/\theta)
            + c\log(1 + \theta/\mu)
            - \log\Gamma(c + \theta) + \log\Gamma(\theta) + \log\Gamma(c + 1),

    where all but the first term vanish for :math:`c = 0`: of the nine tenths of a count matrix
    that are zeros only a softplus is needed.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    log_mean
        Logarithm of the means, ``(n_cells, n_genes)``.
    log_theta
        Logarithm of the inverse dispersion of each gene, ``(n_genes,)``.

    Returns
    -------
    ``(n_cells,)``
    """
    theta = log_theta.exp()
    ratio = log_mean - log_theta
    at_zero = (theta * F.softplus(ratio)).sum(dim=1)
    rows, genes = counts.nonzero(as_tuple=True)
    c, t = counts[rows, genes], theta[genes]
    above = (
        c * F.softplus(-ratio[rows, genes])
        - torch.lgamma(c + t)
        + torch.lgamma(t)
        + torch.lgamma(c + 1)
    )
    return at_zero.index_add(0, rows, above)


class Encoder(nn.Module):
    """From expression to mean and variance of the latent variables.

    Parameters
    ----------
    n_input
        Genes, and columns of an outside embedding that is given beside them.
    n_hidden
        Width of the first hidden layer; the second has half of it.
    n_latent
        Latent dimensions.
    dropout_rate
        Dropout.
    """

    def __init__(self, n_input: int, n_hidden: int, n_latent: int, dropout_rate: float) -> None:
        super().__init__()
        half = max(2, n_hidden // 2)
        self.hidden = nn.Sequential(
            nn.Linear(n_input, n_hidden),
            nn.BatchNorm1d(n_hidden, momentum=0.1, eps=1e-3),
            nn.ReLU(),
            nn.Dropout(dropout_rate),
            nn.Linear(n_hidden, half),
            nn.BatchNorm1d(half, momentum=0.1, eps=1e-3),
            nn.ReLU(),
            nn.Dropout(dropout_rate),
        )
        self.mean = nn.Linear(half, n_latent)
        self.log_variance = nn.Linear(half, n_latent)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log variance, ``(n_cells, n_latent)`` each."""
        hidden = self.hidden(x)
        return self.mean(hidden), self.log_variance(hidden).clamp(-8.0, 4.0)


class Decoder(nn.Module):
    """From latent variables and batch to the share of each gene.

    Layer normalisation, not batch normalisation: a cell must not be decoded differently for the
    company that it keeps in a minibatch.
    """

    def __init__(self, n_latent: int, n_batch: int, n_hidden: int, n_genes: int) -> None:
        super().__init__()
        self.n_batch = n_batch
        half = max(2, n_hidden // 2)
        self.hidden = nn.Sequential(
            nn.Linear(n_latent + n_batch, half),
            nn.LayerNorm(half),
            nn.ReLU(),
            nn.Linear(half, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.ReLU(),
        )
        self.output = nn.Linear(n_hidden, n_genes)

    def forward(self, z: torch.Tensor, batch: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logarithm of the shares, ``(n_cells, n_genes)``.

        An unknown batch (code -1) stands at the origin: no batch's indicator is set.
        """
        if self.n_batch:
            given = torch.zeros(z.shape[0], self.n_batch, dtype=z.dtype, device=z.device)
            if batch is not None:
                known = ((batch >= 0) & (batch < self.n_batch)).nonzero(as_tuple=True)[0]
                given[known, batch[known]] = 1.0
            z = torch.cat([z, given], dim=1)
        return F.log_softmax(self.output(self.hidden(z)), dim=1)
