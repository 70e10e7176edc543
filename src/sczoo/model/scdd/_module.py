"""The module of scDD: autoencoder, diffusion teacher and single-step generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn
from torch.nn import functional as F

from sczoo.model.scdd._autoencoder import Decoder, Encoder, negative_binomial_nll
from sczoo.model.scdd._diffusion import Denoiser

if TYPE_CHECKING:
    import numpy as np

__all__ = ["EMBEDDING", "EmbeddingMode", "SCDDModule"]

EmbeddingMode = Literal["align", "concat"]
EMBEDDING = "embedding"
_LARGEST_LOG_THETA = 8.0


class SCDDModule(BaseModuleClass):
    r"""Three networks over one latent space, all built at once so that shapes never change.

    Parameters
    ----------
    n_genes, n_labels, n_batch, n_embedding
        Sizes; 0 for no batch and no outside embedding.
    n_latent, n_hidden
        Of the autoencoder.
    denoiser_hidden, denoiser_layers
        Of teacher and student.
    embedding_mode
        How an outside embedding takes part.
    class_weight
        Weight of the class head.
    embedding_weight
        Weight of the alignment.
    dropout_rate
        Dropout in the encoder.
    """

    def __init__(
        self,
        *,
        n_genes: int,
        n_labels: int,
        n_batch: int = 0,
        n_embedding: int = 0,
        n_latent: int = 32,
        n_hidden: int = 256,
        denoiser_hidden: int = 128,
        denoiser_layers: int = 3,
        embedding_mode: EmbeddingMode = "align",
        class_weight: float = 5.0,
        embedding_weight: float = 10.0,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_labels = n_labels
        self.n_batch = n_batch
        self.n_latent = n_latent
        self.embedding_mode = embedding_mode
        self.class_weight = class_weight
        self.embedding_weight = embedding_weight
        concatenated = n_embedding if embedding_mode == "concat" else 0
        self.encoder = Encoder(n_genes + concatenated, n_hidden, n_latent, dropout_rate)
        self.decoder = Decoder(n_latent, n_batch, n_hidden, n_genes)
        self.log_theta = nn.Parameter(torch.zeros(n_genes))
        self.class_head = nn.Linear(n_latent, n_labels)
        aligned = n_embedding if embedding_mode == "align" else 0
        self.embedding_head = (
            nn.Sequential(nn.Linear(n_latent, 128), nn.ReLU(), nn.Linear(128, aligned))
            if aligned
            else None
        )
        self.n_embedding = n_embedding
        conditions = (n_labels, n_batch) if n_batch else (n_labels,)
        self.denoiser = Denoiser(n_latent, conditions, denoiser_hidden, denoiser_layers)
        self.student = Denoiser(n_latent, conditions, denoiser_hidden, denoiser_layers)
        # what generating needs of the training cells: aggregates, nothing of single cells
        self.register_buffer("target_total", torch.tensor(1e3))
        self.register_buffer("gene_share", torch.full((n_genes,), 1.0 / n_genes))
        self.register_buffer("gene_mean", torch.zeros(n_genes))
        self.register_buffer("embedding_mean", torch.zeros(max(1, n_embedding)))
        self.register_buffer("embedding_sd", torch.ones(max(1, n_embedding)))
        self.register_buffer("latent_mean", torch.zeros(n_latent))
        self.register_buffer("latent_sd", torch.ones(n_latent))
        self.register_buffer("class_share", torch.full((n_labels,), 1.0 / max(1, n_labels)))
        self.register_buffer("batch_share", torch.zeros(n_labels, max(1, n_batch)))
        self.register_buffer("library_mean", torch.zeros(n_labels))
        self.register_buffer("library_sd", torch.zeros(n_labels))
        self.register_buffer("stages_done", torch.zeros(3, dtype=torch.bool))

    # --- constants of the training cells ------------------------------------------------------

    @torch.no_grad()
    def set_constants(self, **values: np.ndarray | float) -> None:
        """Set constants that were computed from the training cells."""
        for name, value in values.items():
            buffer = getattr(self, name)
            buffer.copy_(torch.as_tensor(value, dtype=buffer.dtype, device=buffer.device))

    # --- autoencoder --------------------------------------------------------------------------

    def _get_inference_input(
        self, tensors: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, Any]:
        return {
            "x": tensors[REGISTRY_KEYS.X_KEY],
            "embedding": tensors.get(EMBEDDING),
        }

    def normalise(self, x: torch.Tensor, gene_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Log counts per median cell; genes that the data lack stand at their training mean."""
        total = x.sum(dim=1, keepdim=True)
        if gene_mask is not None and not bool(gene_mask.all()):
            # the library of all genes, from that of those present
            share = self.gene_share[gene_mask].sum().clamp(min=1e-3)
            total = total / share
        values = torch.log1p(x * (self.target_total / total.clamp(min=1.0)))
        if gene_mask is not None and not bool(gene_mask.all()):
            values = torch.where(gene_mask, values, self.gene_mean)
        return values

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor | None = None,
        gene_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encode counts; ``mean``, ``log_variance`` and a sample ``z``."""
        values = self.normalise(x, gene_mask)
        if self.n_embedding and self.embedding_mode == "concat":
            if embedding is None:  # not known of a new patient: the mean of the training cells
                embedding = torch.zeros(len(x), self.n_embedding, device=x.device)
            else:
                embedding = self.standard_embedding(embedding)
            values = torch.cat([values, embedding], dim=1)
        mean, log_variance = self.encoder(values)
        z = mean
        if self.training:
            z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return {"mean": mean, "log_variance": log_variance, "z": z}

    def standard_embedding(self, embedding: torch.Tensor) -> torch.Tensor:
        """Bring each column of an outside embedding to mean 0 and standard deviation 1."""
        return (embedding.to(self.embedding_mean) - self.embedding_mean) / self.embedding_sd

    def _get_generative_input(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        **kwargs: Any,
    ) -> dict[str, Any]:
        batch = tensors.get(REGISTRY_KEYS.BATCH_KEY)
        return {
            "z": inference_outputs["z"],
            "batch": None if batch is None else batch.long().ravel(),
        }

    @auto_move_data
    def generative(
        self, z: torch.Tensor, batch: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Decode latents to ``log_share``, the logarithm of each gene's share."""
        return {"log_share": self.decoder(z, batch)}

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        r"""Negative ELBO, :math:`\lambda_y` times cross-entropy, and the alignment."""
        x = tensors[REGISTRY_KEYS.X_KEY]
        mean, log_variance = inference_outputs["mean"], inference_outputs["log_variance"]
        log_total = x.sum(dim=1, keepdim=True).clamp(min=1.0).log()
        log_theta = self.log_theta.clamp(-_LARGEST_LOG_THETA, _LARGEST_LOG_THETA)
        nll = negative_binomial_nll(x, generative_outputs["log_share"] + log_total, log_theta)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(dim=1)
        loss = (nll + kl_weight * kl).mean()
        extra = {}
        labels = tensors.get(REGISTRY_KEYS.LABELS_KEY)
        if labels is not None:
            codes = labels.long().ravel()
            known = (codes >= 0) & (codes < self.n_labels)
            if bool(known.any()):
                error = F.cross_entropy(
                    self.class_head(inference_outputs["z"][known]), codes[known]
                )
                loss = loss + self.class_weight * error
                extra["classification_error"] = error.detach()
        if self.embedding_head is not None and tensors.get(EMBEDDING) is not None:
            wanted = self.standard_embedding(tensors[EMBEDDING])
            error = (
                1 - F.cosine_similarity(self.embedding_head(inference_outputs["z"]), wanted).mean()
            )
            loss = loss + self.embedding_weight * error
            extra["alignment_error"] = error.detach()
        return LossOutput(loss=loss, reconstruction_loss=nll, kl_local=kl, extra_metrics=extra)

    @torch.inference_mode()
    def sample(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Not how cells are drawn from this module; see :meth:`sczoo.model.SCDD.generate`."""
        raise AttributeError("cells are drawn with SCDD.generate(labels, n)")

    # --- latents ------------------------------------------------------------------------------

    def standardise(self, z: torch.Tensor) -> torch.Tensor:
        """Latents to mean 0 and standard deviation 1 over the training cells."""
        return (z - self.latent_mean) / self.latent_sd

    def decode_standard(
        self, standard: torch.Tensor, batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode standardised latents to the logarithm of the shares."""
        return self.decoder(standard * self.latent_sd + self.latent_mean, batch)

    def conditions(self, codes: torch.Tensor, batch: torch.Tensor | None) -> torch.Tensor:
        """Put class and batch side by side, as the denoiser reads them."""
        if not self.n_batch:
            return codes[:, None]
        if batch is None:
            batch = torch.full_like(codes, -1)
        return torch.stack([codes, batch], dim=1)
