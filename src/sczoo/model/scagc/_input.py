"""What every module of SCAGC shares: scaled input, anchors to attach to, centres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi.module.base import BaseModuleClass
from torch import nn

from sczoo.model.scagc._anchors import attachment
from sczoo.model.scagc._constants import N_COMPONENTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sczoo.model.scagc._constants import InputConstants

__all__ = ["AttachingModule"]

_N_ATTACHED = 5
_SCALARS = ("target_total", "component_scale")
_ARRAYS = ("chosen_genes", "gene_mean", "gene_scale", "gene_fraction", "axes")


class AttachingModule(BaseModuleClass):
    """A module that scales counts and lets new cells attach to anchors.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_top_genes
        Number of genes that the model reads.
    n_clusters, n_anchors
        Numbers of centres and of anchors; 0 while they are not known.
    n_latent
        Dimensions of the embedding.
    n_passed
        Width of what a cell receives from its anchors.
    clip
        Largest scaled value.

    Attributes
    ----------
    target_total
        Library size that cells are scaled to; persistent, scalar.
    component_scale
        What brings the first principal component to unit variance; persistent, scalar.
    chosen_genes
        Positions of the genes read; persistent, ``(n_top_genes,)``.
    gene_mean, gene_scale
        Of the log-normalised expression; persistent, ``(n_top_genes,)``.
    gene_fraction
        Mean share of the library; persistent, ``(n_genes,)``.
    axes
        Principal axes; persistent, ``(n_top_genes, n_components)``.
    anchor_components, anchor_passed
        Where anchors are and what they pass on; persistent, one row per anchor.
    centres
        Centres of the clusters, ``(n_clusters, n_latent)``.
    """

    target_total: torch.Tensor
    component_scale: torch.Tensor
    chosen_genes: torch.Tensor
    gene_mean: torch.Tensor
    gene_scale: torch.Tensor
    gene_fraction: torch.Tensor
    axes: torch.Tensor
    anchor_components: torch.Tensor
    anchor_passed: torch.Tensor
    present: torch.Tensor

    def __init__(
        self,
        n_genes: int,
        n_top_genes: int,
        *,
        n_clusters: int,
        n_anchors: int,
        n_latent: int,
        n_passed: int,
        clip: float,
    ) -> None:
        super().__init__()
        self.n_latent, self.n_passed, self.clip = n_latent, n_passed, clip
        n_components = min(N_COMPONENTS, n_top_genes)
        self.centres = nn.Parameter(torch.zeros(n_clusters, n_latent))
        self.register_buffer("target_total", torch.tensor(1e4))
        self.register_buffer("component_scale", torch.tensor(1.0))
        self.register_buffer("chosen_genes", torch.arange(n_top_genes))
        self.register_buffer("gene_mean", torch.zeros(n_top_genes))
        self.register_buffer("gene_scale", torch.ones(n_top_genes))
        self.register_buffer("gene_fraction", torch.full((n_genes,), 1.0 / n_genes))
        self.register_buffer("axes", torch.zeros(n_top_genes, n_components))
        self.register_buffer("anchor_components", torch.zeros(n_anchors, n_components))
        self.register_buffer("anchor_passed", torch.zeros(n_anchors, n_passed))
        # Genes that the data in training have; another patient's may lack some. Not saved.
        self.register_buffer("present", torch.ones(n_genes, dtype=torch.bool), persistent=False)
        self.all_present = True

    @property
    def clustered(self) -> bool:
        """Whether the centres have been put where clusters are."""
        return bool(self.centres.detach().abs().sum() > 0)

    # --- what is set from data ----------------------------------------------------------------

    @torch.no_grad()
    def set_constants(self, constants: InputConstants) -> None:
        """Store what is needed to give every later cell the transform of the training data."""
        for name in (*_SCALARS, *_ARRAYS):
            getattr(self, name).copy_(torch.as_tensor(getattr(constants, name)))

    def set_anchors(self, components: NDArray, passed: NDArray) -> None:
        """Store the anchors.

        Parameters
        ----------
        components
            Their principal components, anchors x components.
        passed
            What a cell receives from each, anchors x ``n_passed``.
        """
        like = self.axes
        self.anchor_components = torch.as_tensor(components).to(like)
        self.anchor_passed = torch.as_tensor(passed).to(like)

    def set_centres(self, centres: NDArray) -> None:
        """Put the centres somewhere, of which there may be another number than before."""
        values = torch.as_tensor(centres).to(self.axes)
        self.centres = nn.Parameter(values.clone(), requires_grad=self.centres.requires_grad)

    def set_present_genes(self, present: torch.Tensor) -> None:
        """Leave genes that the training data lack out of normalisation and reconstruction."""
        self.present.copy_(present)
        self.all_present = bool(self.present.all())

    # --- input --------------------------------------------------------------------------------

    def scale(self, x: torch.Tensor, gene_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Log-normalise counts and scale the chosen genes; those absent are at their mean, 0.

        Genes outside ``gene_mask`` are unknown, not zero: the library size is divided by the share
        that the present genes usually make up.
        """
        if gene_mask is None and not self.all_present:
            gene_mask = self.present
        if gene_mask is not None and bool(gene_mask.all()):
            gene_mask = None
        total = x.sum(dim=1, keepdim=True)
        if gene_mask is not None:
            total = total / self.gene_fraction[gene_mask].sum().clamp_min(1e-6)
        logs = torch.log1p(x[:, self.chosen_genes] * (self.target_total / total.clamp_min(1e-6)))
        scaled = ((logs - self.gene_mean) / self.gene_scale).clamp(-self.clip, self.clip)
        return scaled if gene_mask is None else scaled * gene_mask[self.chosen_genes]

    def components(self, x: torch.Tensor, gene_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Principal components of the scaled expression, in which the first graph is made."""
        return self.scale(x, gene_mask) @ self.axes

    def received(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return what cells receive from their nearest anchors, cells x ``n_passed``."""
        weights = attachment(scaled @ self.axes, self.anchor_components, _N_ATTACHED)
        return weights @ self.anchor_passed
