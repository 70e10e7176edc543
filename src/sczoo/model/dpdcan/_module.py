"""The module of DPDCAN: inputs by constants alone, losses per cell."""

from __future__ import annotations

from typing import Any, Literal

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch.nn import functional as F

from sczoo.model.dpdcan._losses import (
    agreement,
    cluster_divergence,
    soft_assignments,
    spread,
    zinb,
)
from sczoo.model.dpdcan._networks import (
    ProjectedDecoder,
    ProjectedEncoder,
    PublishedDecoder,
    PublishedEncoder,
)
from sczoo.privacy._layers import Centres

__all__ = ["DPDCANModule"]

Architecture = Literal["projected", "published"]
_DEPTH = 1e4


class DPDCANModule(BaseModuleClass):
    """Autoencoder of counts with two masked views of every cell.

    Parameters
    ----------
    n_input
        Genes.
    architecture
        ``"projected"`` or ``"published"``.
    n_latent, n_hidden
        Size of the latent space, and of the hidden layers of the projected architecture.
    n_clusters
        Cluster centres; 0 for none.
    mask_rate
        Share of the genes hidden in a view.
    reconstruction_weight
        Share of the reconstruction in the loss; the rest is the agreement of the views.
    cluster_weights
        Weights of reconstruction, cluster divergence and spread of the centres in phase two.
    standardised
        Use the published input: library sizes to their median, log, z-scores of the training
        data. Such statistics are not private.
    """

    def __init__(
        self,
        n_input: int,
        architecture: Architecture,
        n_latent: int,
        n_hidden: int,
        n_clusters: int,
        mask_rate: float,
        reconstruction_weight: float,
        cluster_weights: tuple[float, float, float],
        standardised: bool,
    ) -> None:
        super().__init__()
        self.n_input, self.n_latent = n_input, n_latent
        self.architecture = architecture
        self.mask_rate = mask_rate
        self.reconstruction_weight = reconstruction_weight
        self.cluster_weights = cluster_weights
        self.standardised = standardised
        if architecture == "projected":
            self.encoder: Any = ProjectedEncoder(n_input, n_latent, n_hidden)
            self.decoder: Any = ProjectedDecoder(n_latent, n_hidden)
        else:
            self.encoder = PublishedEncoder(n_input, n_latent)
            self.decoder = PublishedDecoder(n_input, n_latent)
        self.centres = Centres(n_clusters, n_latent) if n_clusters else None
        if standardised:
            self.register_buffer("median_total", torch.ones(()))
            self.register_buffer("gene_mean", torch.zeros(n_input))
            self.register_buffer("gene_scale", torch.ones(n_input))
        self.phase = 1

    # --- input --------------------------------------------------------------------------------

    def prepare(self, counts: torch.Tensor, gene_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Turn counts into the encoder's input, each cell by itself.

        ``log1p`` of counts per 10,000, then unit length (projected) or mean 0 and variance 1 over
        the genes of the cell (published architecture): constants only, nothing of other cells.
        """
        total = counts.sum(-1, keepdim=True).clamp_min(1.0)
        if self.standardised:
            x = torch.log1p(counts * (self.median_total / total))
            x = (x - self.gene_mean) / self.gene_scale
            return x if gene_mask is None else torch.where(gene_mask, x, 0.0)
        x = torch.log1p(counts * (_DEPTH / total))
        if self.architecture == "published":
            return F.layer_norm(x, (self.n_input,))
        unit = F.normalize(x, dim=-1)
        if gene_mask is not None:
            # a gene that was not measured is at the mean, not at zero
            unit = torch.where(gene_mask, unit, self.encoder.profile)
        return unit

    def _get_inference_input(
        self, tensors: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, torch.Tensor | None]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "gene_mask": tensors.get("gene_mask")}

    @auto_move_data
    def inference(
        self, x: torch.Tensor, gene_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Encode counts; returns ``"z"`` of shape ``(..., latent)``."""
        if gene_mask is not None and bool(gene_mask.all()):
            gene_mask = None
        return {"z": self.encoder(self.prepare(x, gene_mask))}

    def _get_generative_input(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        counts = self._decoded(tensors[REGISTRY_KEYS.X_KEY])
        return {"z": inference_outputs["z"], "total": counts.sum(-1, keepdim=True)}

    @auto_move_data
    def generative(self, z: torch.Tensor, total: torch.Tensor) -> dict[str, torch.Tensor]:
        """Decode to mean, inverse dispersion and dropout logits of the counts.

        In the projected architecture of the chosen genes; `total` is the sum over them.
        """
        if self.architecture == "projected":
            chosen = self.encoder.chosen
            found = self.decoder(z, self.encoder.profile[chosen], self.encoder.projection[chosen])
        else:
            found = self.decoder(z, not self.standardised)
        if self.standardised:
            total = total / self.median_total
        mean = found[0] * total.clamp_min(1.0) + 1e-8
        return {"mean": mean, "dispersion": found[1], "dropout": found[2].expand_as(mean)}

    def _decoded(self, counts: torch.Tensor) -> torch.Tensor:
        """Select the counts of the genes that the decoder speaks of."""
        return counts[..., self.encoder.chosen] if self.architecture == "projected" else counts

    # --- losses -------------------------------------------------------------------------------

    def reconstruction(self, counts: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Loss of the counts given the latent representation, shape ``(...)``."""
        counts = self._decoded(counts)
        out = self.generative(z, counts.sum(-1, keepdim=True))
        return zinb(counts, out["mean"], out["dispersion"], out["dropout"])

    def views(self, counts: torch.Tensor, generator: Any = None) -> tuple[torch.Tensor, ...]:
        """Latent representations of the cells whole and of two masked views.

        The three are one axis, so that a cell stays one unit in every layer.

        Parameters
        ----------
        counts
            Shape ``(units, rows, genes)``; rows are the cells of a unit.
        generator
            :class:`numpy.random.Generator`-like source of the masks (``.random``), or ``None``
            for torch's.

        Returns
        -------
        Three tensors of shape ``(units, rows, latent)``.
        """
        x = self.prepare(counts)
        projected = self.architecture == "projected"
        if projected:
            x = self.encoder.residual(x)
        shape = (2, *x.shape)
        if generator is None:
            draws = torch.rand(shape, device=x.device)
        else:
            draws = torch.as_tensor(generator.random(shape), device=x.device)
        keep = torch.cat([torch.ones_like(x), *(draws >= self.mask_rate).to(x)], dim=1)
        x = x.repeat(1, 3, 1)
        if projected:
            z = self.encoder.correct(self.encoder.project(x, keep))
        else:
            z = self.encoder(x * keep)
        n_rows = counts.shape[1]
        return z[:, :n_rows], z[:, n_rows : 2 * n_rows], z[:, 2 * n_rows :]

    def unit_loss(self, counts: torch.Tensor, generator: Any = None) -> torch.Tensor:
        """Loss of each unit, computed from its own rows alone; shape ``(units,)``.

        Parameters
        ----------
        counts
            Shape ``(units, rows, genes)``.
        generator
            Source of the masks.
        """
        if self.reconstruction_weight < 1 and self.phase == 1:
            z, one, other = self.views(counts, generator)
            loss = self.reconstruction_weight * self.reconstruction(counts, z)
            loss = loss + (1 - self.reconstruction_weight) * agreement(one, other)
        else:
            z = self.encoder(self.prepare(counts))
            loss = self.reconstruction(counts, z)
            if self.phase == 2 and self.centres is not None:
                first, second, _ = self.cluster_weights
                q = soft_assignments(self.centres(z))
                loss = first * loss + second * cluster_divergence(q)
        return loss.mean(1)

    def centre_loss(self) -> torch.Tensor | None:
        """Spread of the centres: a function of the centres alone, no unit takes part."""
        if self.phase == 1 or self.centres is None:
            return None
        return self.cluster_weights[2] * spread(self.centres.centres)

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
        **kwargs: Any,
    ) -> LossOutput:
        """Reconstruction loss of whole cells, as scvi-tools' tools ask for it."""
        counts = tensors[REGISTRY_KEYS.X_KEY]
        per_cell = self.reconstruction(counts, inference_outputs["z"])
        return LossOutput(
            loss=per_cell.mean(),
            reconstruction_loss=per_cell,
            kl_local=torch.zeros_like(per_cell),
        )

    @torch.inference_mode()
    def sample(self, tensors: dict[str, torch.Tensor], n_samples: int = 1) -> torch.Tensor:
        """Mean counts that the cells decode to, repeated ``n_samples`` times."""
        _, generative = self.forward(tensors, compute_loss=False)
        mean = generative["mean"]
        return mean if n_samples == 1 else mean.expand(n_samples, -1, -1)
