"""The module of scE2TM: cells to topics, topics to genes, and the four losses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import nn
from torch.nn import functional as F

from sczoo.model.sce2tm._ecr import EmbeddingClustering, squared_distances
from sczoo.model.sce2tm._guidance import balance, consistency, distillation, geometry
from sczoo.model.sce2tm._networks import (
    AffineDecoder,
    KnowledgeHead,
    LinearEncoder,
    NormalisedDecoder,
    PerceptronEncoder,
    unit_rows,
)
from sczoo.model.sce2tm._presets import PRESETS, GuidanceName, PresetName
from sczoo.model.sce2tm._reconstruction import Target, cross_entropy, decoded_cross_entropy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "KNOWLEDGE",
    "NEIGHBOUR_KNOWLEDGE",
    "NEIGHBOUR_X",
    "NEIGHBOUR_X_KNOWLEDGE",
    "SCE2TMModule",
]

# Keys of a minibatch besides scvi-tools' own, all put there by the guided data loader.
KNOWLEDGE = "knowledge_of_cell"
NEIGHBOUR_KNOWLEDGE = "knowledge_of_knowledge_neighbour"
NEIGHBOUR_X_KNOWLEDGE = "knowledge_of_expression_neighbour"
NEIGHBOUR_X = "expression_of_expression_neighbour"

# Balance counts five times in the published sum of guidance terms.
_BALANCE = 5.0
# Most cells of a minibatch whose distances the guidance compares.
_PAIRED_CELLS = 256
# Cells that are normalised at a time.
_ROWS = 32


class SCE2TMModule(BaseModuleClass):
    """Embedded topic model with clustered embeddings and guidance by outside knowledge.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_topics
        Number of topics.
    n_batch
        Number of batches with a gene-wise offset of their own in the decoder; 0 for none.
    n_knowledge
        Width of the outside knowledge; 0 for none.
    preset
        ``"default"`` or ``"paper"``; the arguments below override it.
    n_hidden
        Hidden units of the encoder.
    n_embedding
        Length of topic and gene embeddings.
    temperature
        Divisor of the squared distances in the topic-gene matrix.
    prior_weight, ecr_weight
        Weights of the KL divergence and of the clustering of embeddings.
    guidance
        ``"geometry"``: distances between cells as in the knowledge. ``"assignments"``: the
        published contrast of soft assignments of cells and their neighbours.
    guidance_weight
        Weight of the guidance; relative to the reconstruction loss in the default preset.
    dropout_rate
        Dropout in the encoder.

    Attributes
    ----------
    target_total
        Library size that the encoder scales to; persistent, scalar.
    target_depth
        Library size that the reconstruction scales to; persistent, scalar.
    gene_mean
        Mean log-normalised expression; persistent, ``(n_genes,)``.
    gene_fraction
        Mean share of the library; persistent, ``(n_genes,)``.
    normalises
        Whether the input is normalised inside; persistent, scalar.
    ecr_scale
        Factor of the clustering of embeddings, set by the training plan while it comes in.
    """

    target_total: torch.Tensor
    target_depth: torch.Tensor
    gene_mean: torch.Tensor
    gene_fraction: torch.Tensor
    normalises: torch.Tensor
    present: torch.Tensor

    def __init__(
        self,
        n_genes: int,
        n_topics: int,
        *,
        n_batch: int = 0,
        n_knowledge: int = 0,
        preset: PresetName = "default",
        n_hidden: int | None = None,
        n_embedding: int | None = None,
        temperature: float = 0.2,
        prior_weight: float | None = None,
        ecr_weight: float | None = None,
        guidance: GuidanceName | None = None,
        guidance_weight: float | None = None,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        chosen = PRESETS[preset]
        self.published = chosen.published
        self.n_genes, self.n_topics = n_genes, n_topics
        self.n_batch, self.n_knowledge = n_batch, n_knowledge
        self.temperature = temperature
        self.prior_weight = chosen.prior_weight if prior_weight is None else prior_weight
        self.ecr_weight = chosen.ecr_weight if ecr_weight is None else ecr_weight
        self.ecr_scale = 1.0
        self.guidance: GuidanceName = guidance or chosen.guidance
        if self.guidance not in get_args(GuidanceName):
            raise ValueError(f"guidance must be one of {get_args(GuidanceName)}")
        self.guidance_weight = (
            chosen.guidance_weight if guidance_weight is None else guidance_weight
        )
        # variance of the Laplace approximation to a symmetric Dirichlet(1) prior
        self.prior_variance = 1.0 - 1.0 / n_topics
        n_hidden = n_hidden or chosen.n_hidden
        n_embedding = n_embedding or chosen.n_embedding

        encoder = PerceptronEncoder if self.published else LinearEncoder
        self.encoder = encoder(n_genes, n_hidden, n_topics, dropout_rate)
        self.topic_embedding = unit_rows(n_topics, n_embedding)
        self.gene_embedding = unit_rows(n_genes, n_embedding)
        self.decoder = NormalisedDecoder(n_genes) if self.published else AffineDecoder(n_genes)
        # Unseen batches are decoded without an offset: they never block inference.
        self.batch_offset = nn.Parameter(torch.zeros(n_batch, n_genes)) if n_batch else None
        self.head: KnowledgeHead | None = None
        if n_knowledge and self.guidance == "assignments":
            width = n_knowledge if self.published else n_hidden
            self.head = KnowledgeHead(n_knowledge, width, n_topics)
        self.ecr = EmbeddingClustering(n_topics, solver=chosen.solver)

        self.register_buffer("target_total", torch.tensor(1e4))
        self.register_buffer("target_depth", torch.tensor(1e4))
        self.register_buffer("gene_mean", torch.zeros(n_genes))
        self.register_buffer("gene_fraction", torch.full((n_genes,), 1.0 / n_genes))
        self.register_buffer("normalises", torch.tensor(True))
        # Genes that the data in training have; another patient's may lack some. Not saved.
        self.register_buffer("present", torch.ones(n_genes, dtype=torch.bool), persistent=False)
        self.all_present = True

    # --- input --------------------------------------------------------------------------------

    @torch.no_grad()
    def set_constants(
        self,
        *,
        normalises: bool,
        target_total: float,
        target_depth: float,
        gene_mean: torch.Tensor,
        gene_fraction: torch.Tensor,
    ) -> None:
        """Store what is needed to give every later cell the transform of the training data."""
        self.normalises.fill_(normalises)
        self.target_total.fill_(target_total)
        self.target_depth.fill_(target_depth)
        self.gene_mean.copy_(gene_mean)
        self.gene_fraction.copy_(gene_fraction)
        if isinstance(self.decoder, AffineDecoder):
            # The decoder starts at the mean cell; genes never seen start at a small share.
            mean = gene_mean.clamp_min(1e-4)
            self.decoder.background.copy_((mean / mean.sum()).log())

    def set_present_genes(self, present: ArrayLike) -> None:
        """Leave genes that the training data lack out of normalisation and reconstruction."""
        self.present.copy_(torch.as_tensor(np.asarray(present, dtype=bool)))
        self.all_present = bool(self.present.all())

    def log_normalise(
        self,
        x: torch.Tensor,
        gene_mask: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Apply the training transform: library size to ``target_total``, then ``log1p``.

        Genes outside ``gene_mask`` are unknown, not zero: the library size is divided by the share
        that the present genes usually make up, and the absent ones are set to their mean.
        """
        if gene_mask is None and not self.all_present:
            gene_mask = self.present
        if gene_mask is not None and bool(gene_mask.all()):
            gene_mask = None
        if bool(self.normalises):
            total = x.sum(dim=1, keepdim=True)
            if gene_mask is not None:
                total = total / self.gene_fraction[gene_mask].sum().clamp_min(1e-6)
            scale = self.target_total / total.clamp_min(1e-6)
            if memory is None:
                x = (x * scale).log1p_()
            else:
                # a few cells at a time stay in the cache between the two operations
                for start in range(0, len(x), _ROWS):
                    rows = slice(start, start + _ROWS)
                    # not log1p, which takes three times as long: here 1e-7 is exact enough
                    torch.mul(x[rows], scale[rows], out=memory[rows]).add_(1.0).log_()
                x = memory
        if gene_mask is not None:
            x = torch.where(gene_mask, x, self.gene_mean)
        return x

    def _get_inference_input(
        self, tensors: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, torch.Tensor | None]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "gene_mask": tensors.get("gene_mask")}

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        gene_mask: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Encode cells.

        Returns
        -------
        dict
            ``"x"``, log-normalised expression; ``"mean"`` and ``"log_variance"`` of the topic
            logits; ``"log_theta"``, logarithm of the topic proportions, of a draw in training and
            of the mean otherwise.
        """
        x = self.log_normalise(x, gene_mask, memory)
        mean, log_variance = self._encode(x)
        return {
            "x": x,
            "mean": mean,
            "log_variance": log_variance,
            "log_theta": self._draw(mean, log_variance),
        }

    def _encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.encoder(x) if self.published else self.encoder(x, self.gene_mean)

    def _draw(self, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
        z = mean
        if self.training:
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return F.log_softmax(z, dim=1)

    # --- output -------------------------------------------------------------------------------

    def cost(self) -> torch.Tensor:
        """Squared distances of topic and gene embeddings, topics x genes."""
        return squared_distances(self.topic_embedding, self.gene_embedding)

    def beta(self, cost: torch.Tensor | None = None) -> torch.Tensor:
        """Topic-gene matrix, topics x genes; the column of every gene sums to one."""
        cost = self.cost() if cost is None else cost
        return torch.softmax(cost * (-1.0 / self.temperature), dim=0)

    def _get_generative_input(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        **kwargs: Any,
    ) -> dict[str, torch.Tensor | None]:
        return {
            "theta": inference_outputs["log_theta"].exp(),
            "batch_index": tensors.get(REGISTRY_KEYS.BATCH_KEY),
        }

    @auto_move_data
    def generative(
        self,
        theta: torch.Tensor,
        batch_index: torch.Tensor | None = None,
        *,
        decode: bool = True,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Decode topic proportions.

        Parameters
        ----------
        theta
            Topic proportions, cells x topics.
        batch_index
            Batch of each cell.
        decode
            Otherwise, if :meth:`decodes_in_loss`, what the loss needs to decode by itself.

        Returns
        -------
        dict
            ``"logits"``, unnormalised log-frequencies of the genes, and ``"cost"``, the squared
            distances of the embeddings. Without ``decode``, ``"theta"`` and ``"programs"`` instead
            of the logits, which are their product.
        """
        cost = self.cost()
        if not decode and isinstance(self.decoder, AffineDecoder):
            programs = self.decoder.programs(self.beta(cost))
            return {"theta": theta, "programs": programs, "cost": cost}
        logits = self.decoder(theta, self.beta(cost))
        if self.batch_offset is not None and batch_index is not None:
            index = batch_index.flatten().long()
            known = ((index >= 0) & (index < self.n_batch)).to(logits.dtype)
            offset = self.batch_offset[index.clamp(0, self.n_batch - 1)]
            logits = logits + offset * known[:, None]
        return {"logits": logits, "cost": cost}

    def decodes_in_loss(self) -> bool:
        """Whether the logits are a plain product: the loss can form a few cells' at a time."""
        plain = self.batch_offset is None and self.all_present
        return plain and isinstance(self.decoder, AffineDecoder)

    @torch.inference_mode()
    def sample(self, tensors: dict[str, torch.Tensor], n_samples: int = 1) -> torch.Tensor:
        """Mean gene frequencies of the cells, repeated ``n_samples`` times."""
        _, generative = self.forward(tensors, compute_loss=False)
        frequency = F.softmax(generative["logits"], dim=1)
        return frequency if n_samples == 1 else frequency.expand(n_samples, -1, -1)

    # --- losses -------------------------------------------------------------------------------

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Sum of reconstruction, KL divergence, clustering of embeddings and guidance."""
        target = self._target(tensors[REGISTRY_KEYS.X_KEY], inference_outputs["x"])
        if "logits" in generative_outputs:
            logits = generative_outputs["logits"]
            if not self.all_present:
                logits = logits.masked_fill(~self.present, -1e9)
            reconstruction = cross_entropy(logits, target)
            mean_reconstruction = reconstruction.mean()
        else:
            theta, programs = generative_outputs["theta"], generative_outputs["programs"]
            mean_reconstruction, reconstruction = decoded_cross_entropy(theta, programs, target)
        mean, log_variance = inference_outputs["mean"], inference_outputs["log_variance"]
        kl = 0.5 * (
            (log_variance.exp() + mean.square()) / self.prior_variance
            + math.log(self.prior_variance)
            - log_variance
            - 1.0
        ).sum(1)
        ecr = mean.new_zeros(())
        if self.topic_embedding.requires_grad or self.gene_embedding.requires_grad:
            ecr = self.ecr_weight * self.ecr(generative_outputs["cost"])
        guidance, metrics = self._guidance(tensors, inference_outputs)
        scale: float | torch.Tensor = self.guidance_weight
        if not self.published:
            # felt whatever the number of genes and the depth of the data
            scale = scale * mean_reconstruction.detach()
        total = (
            mean_reconstruction
            + kl_weight * self.prior_weight * kl.mean()
            + self.ecr_scale * ecr
            + scale * guidance
        )
        return LossOutput(
            loss=total,
            reconstruction_loss=reconstruction,
            kl_local=kl,
            extra_metrics={"ecr": ecr.detach(), **metrics},
        )

    def _target(self, x: torch.Tensor, log_normalised: torch.Tensor) -> Target:
        """Weights of the genes in the reconstruction of some of the cells.

        At the encoder's library size a single count weighs nearly as much as ten. A smaller one
        gives strong genes their share of the topics.
        """
        scale = None
        if not self.published and bool(self.normalises):
            scale = self.target_depth / x.sum(dim=1, keepdim=True).clamp_min(1e-6)

        def target(rows: slice) -> torch.Tensor:
            if scale is None:
                weight = log_normalised[rows].clone()
            else:
                # as in log_normalise
                weight = torch.mul(x[rows], scale[rows]).add_(1.0).log_()
            return weight if self.all_present else weight * self.present

        return target

    def _guidance(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        mean = inference_outputs["mean"]
        if KNOWLEDGE not in tensors or self.guidance_weight == 0:
            return mean.new_zeros(()), {}
        if self.guidance == "geometry":
            # Every second cell of a large minibatch: its pairs are many enough. The loader sorts
            # the cells of a minibatch, so that the first ones would not be a fair draw.
            some = slice(None, None, -(-len(mean) // _PAIRED_CELLS))
            stress = geometry(mean[some], tensors[KNOWLEDGE][some])
            return stress, {"geometry": stress.detach()}
        if self.head is None:
            return mean.new_zeros(()), {}
        terms = self._assignments(tensors, inference_outputs, self.head)
        guidance = terms["distill"] + terms["consistency"] - _BALANCE * terms["balance"]
        if not self.published:
            guidance = guidance / math.log(self.n_topics)
        return guidance, {name: value.detach() for name, value in terms.items()}

    def _assignments(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        head: KnowledgeHead,
    ) -> dict[str, torch.Tensor]:
        """Compute the published guidance terms."""
        log_theta = inference_outputs["log_theta"]
        log_phi = head(tensors[KNOWLEDGE])
        if self.published:
            # The neighbours are encoded, and the anchors once more with a new draw.
            neighbour = self.log_normalise(tensors[NEIGHBOUR_X])
            theta_neighbour = self._draw(*self._encode(neighbour)).exp()
            log_theta = self._draw(*self._encode(inference_outputs["x"]))
            distill = distillation(log_phi.exp(), theta_neighbour)
        else:
            # Being neighbours is mutual, so pairing a cell's topics with its neighbour's knowledge
            # gives the same pairs as pairing its knowledge with its neighbour's topics, without
            # encoding the neighbour.
            other = head(tensors[NEIGHBOUR_X_KNOWLEDGE]).exp()
            distill = distillation(other, log_theta.exp())
        phi_neighbour = head(tensors[NEIGHBOUR_KNOWLEDGE]).exp()
        return {
            "distill": distill + distillation(log_theta.exp(), phi_neighbour),
            "consistency": consistency(log_theta, log_phi),
            "balance": balance(log_theta.exp()) + balance(log_phi.exp()),
        }
