"""The module of scAGC: cells and their neighbours to an embedding, and back to counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data
from scvi.nn import FCLayers
from torch import nn
from torch.nn import functional as F

from sczoo.model.scagc._adaptive_graph import sample_edges, similarity_logits
from sczoo.model.scagc._clustering import cluster_loss, soft_assignments
from sczoo.model.scagc._constants import CLIP, N_COMPONENTS
from sczoo.model.scagc._contrast import info_nce
from sczoo.model.scagc._encoder import TopologyAdaptiveConv
from sczoo.model.scagc._input import AttachingModule
from sczoo.model.scagc._likelihood import CountDecoder, ScaledDecoder

if TYPE_CHECKING:
    from sczoo.model.scagc._constants import InputConstants
    from sczoo.model.scagc._sampling import Candidates, Subgraph, Surroundings

__all__ = ["GRAPH", "TARGET", "SCAGCModule"]

# Keys of a minibatch besides scvi-tools' own.
GRAPH = "sampled_graph"
TARGET = "cluster_target"

_CONTRAST_TEMPERATURE = 0.7
_ADJACENCY_WIDTH = 32
# the learnt units come in slowly beside the components
_LEARNT_START = 0.1


class SCAGCModule(AttachingModule):
    """Graph autoencoder with a graph that learns and centres that move.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_top_genes
        Number of genes that the model reads.
    n_clusters
        Number of centres; 0 while it is not known.
    n_anchors
        Number of anchors; 0 while there are none.
    n_hidden, n_latent
        Widths.
    n_hops
        Hops of the graph convolution.
    dropout_rate
        Dropout of hidden units.
    likelihood
        ``"zinb"`` on counts, or ``"gaussian"`` on scaled expression.
    n_neighbors
        Edges drawn per cell.
    similarity_scale
        Factor of the cosine before the draw.
    contrast_weight, adjacency_weight, cluster_weight
        Weights of the losses beside the reconstruction.
    """

    def __init__(
        self,
        n_genes: int,
        n_top_genes: int,
        *,
        n_clusters: int = 0,
        n_anchors: int = 0,
        n_hidden: int = 128,
        n_latent: int = 15,
        n_hops: int = 2,
        dropout_rate: float = 0.2,
        likelihood: str = "zinb",
        n_neighbors: int = 15,
        similarity_scale: float = 10.0,
        contrast_weight: float = 0.01,
        adjacency_weight: float = 0.1,
        cluster_weight: float = 0.1,
    ) -> None:
        n_top_genes = min(n_top_genes, n_genes)
        self.n_features = min(N_COMPONENTS, n_top_genes) + n_hidden
        super().__init__(
            n_genes,
            n_top_genes,
            n_clusters=n_clusters,
            n_anchors=n_anchors,
            n_latent=n_latent,
            n_passed=n_hops * self.n_features,
            clip=CLIP,
        )
        self.n_hidden, self.n_hops = n_hidden, n_hops
        self.n_neighbors, self.similarity_scale = n_neighbors, similarity_scale
        self.contrast_weight = contrast_weight
        self.adjacency_weight = adjacency_weight
        self.cluster_weight = cluster_weight

        self.learnt = FCLayers(
            n_top_genes,
            n_hidden,
            n_layers=1,
            n_hidden=n_hidden,
            dropout_rate=0.0,
            use_batch_norm=False,
            use_layer_norm=True,
        )
        # after the remembered features, so that those are free of it
        self.dropout = nn.Dropout(dropout_rate)
        self.conv = TopologyAdaptiveConv(self.n_features, n_latent, n_hops)
        self._start_at_components()
        decoder = CountDecoder if likelihood == "zinb" else ScaledDecoder
        self.decoder = decoder(n_latent, n_hidden, n_top_genes)
        self.edge_head = nn.Linear(n_latent, _ADJACENCY_WIDTH)
        self.edge_form = nn.Parameter(torch.eye(_ADJACENCY_WIDTH) / _ADJACENCY_WIDTH**0.5)

    @torch.no_grad()
    def set_constants(self, constants: InputConstants) -> None:
        """Store the input's constants; the decoder starts at the mean cell."""
        super().set_constants(constants)
        if isinstance(self.decoder, CountDecoder):
            share = self.gene_fraction[self.chosen_genes].clamp_min(1e-8)
            self.decoder.share.bias.copy_((share / share.sum()).log())
            nn.init.constant_(self.decoder.dropout.bias, -2.0)

    # --- encoding -----------------------------------------------------------------------------

    def _get_inference_input(self, tensors: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {
            "x": tensors[REGISTRY_KEYS.X_KEY],
            "graph": tensors.get(GRAPH),
            "gene_mask": tensors.get("gene_mask"),
        }

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        graph: Surroundings | None = None,
        gene_mask: torch.Tensor | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Encode cells: with a sampled graph in training, attached to the anchors otherwise.

        Returns
        -------
        dict
            ``"z"``, the embedding, and ``"hidden"``, the cells' own features. With a sampled graph
            also ``"drawn"``, the embedding on edges drawn from the candidates, and ``"edges"``,
            the positions drawn.
        """
        scaled = self.scale(x, gene_mask)
        hidden = self.features(scaled)
        if graph is None:
            passed = self.received(scaled).split(self.n_features, dim=1)
            return {"z": self.conv.of_smoothed([hidden, *passed]), "hidden": hidden}
        out = {"hidden": hidden, "scaled": scaled}
        near = graph.sampled().to(x.device)
        out["z"] = self._convolve(hidden, near, near.seed_weight)
        out["pairs"] = near.edge_index[:, : near.edge_index.shape[1] - len(near.far_weight)]
        if not graph.adaptive:  # another view by dropout alone
            out["drawn"] = self._convolve(hidden, near, near.seed_weight)
            return out
        positions, weight = self.draw_edges(out["z"], graph.candidates().to(x.device), temperature)
        drawn = graph.drawn(positions).to(x.device)
        out["drawn"] = self._convolve(hidden, drawn, weight.ravel())
        out["edges"] = positions
        return out

    def _convolve(
        self, hidden: torch.Tensor, around: Subgraph, seed_weight: torch.Tensor | None
    ) -> torch.Tensor:
        """Convolve the cells of a minibatch with what is remembered of their surroundings."""
        assert seed_weight is not None
        weight = torch.cat([seed_weight, around.far_weight])
        wanted = around.wanted(len(hidden), self.n_hops)
        own, others = self._disturbed(hidden), self._disturbed(around.features)
        return self.conv(own, around.edge_index, weight, wanted, others)

    def draw_edges(
        self, z: torch.Tensor, candidates: Candidates, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw edges from the candidates.

        Returns
        -------
        Columns drawn, and weights that sum to one for each cell and carry gradients.
        """
        logits = similarity_logits(z, candidates.latent, self.similarity_scale)
        positions, values = sample_edges(
            logits + candidates.bonus, candidates.noise, self.n_neighbors, temperature
        )
        return positions, values / values.sum(dim=1, keepdim=True)

    def features(self, scaled: torch.Tensor) -> torch.Tensor:
        """Own features of cells: principal components beside learnt units."""
        return torch.cat([scaled @ self.axes * self.component_scale, self.learnt(scaled)], dim=1)

    def _disturbed(self, features: torch.Tensor) -> torch.Tensor:
        """Drop learnt units out, for a second view of the same cells."""
        n = features.shape[1] - self.n_hidden
        return torch.cat([features[:, :n], self.dropout(features[:, n:])], dim=1)

    @torch.no_grad()
    def _start_at_components(self) -> None:
        """Let the embedding be the smoothed leading components before anything is learnt."""
        n_components = self.axes.shape[1]
        n = min(n_components, self.n_latent)
        for weight in self.conv.lins.parameters():
            weight[:, :n_components] = 0
            weight[range(n), range(n)] = 1.0 / len(self.conv.lins)
            weight[:, n_components:] *= _LEARNT_START

    # --- output -------------------------------------------------------------------------------

    def _get_generative_input(
        self, tensors: dict[str, Any], inference_outputs: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        x = tensors[REGISTRY_KEYS.X_KEY]
        return {"z": inference_outputs["z"], "library": x[:, self.chosen_genes].sum(dim=1)}

    @auto_move_data
    def generative(
        self, z: torch.Tensor, library: torch.Tensor, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Decode the embedding; `library` is the total of each cell over the chosen genes."""
        return self.decoder(z, library)

    @torch.inference_mode()
    def sample(self, tensors: dict[str, torch.Tensor], n_samples: int = 1) -> torch.Tensor:
        """Mean expression of the chosen genes, repeated ``n_samples`` times."""
        _, decoded = self.forward(tensors, compute_loss=False)
        mean = decoded["log_mean"].exp() if "log_mean" in decoded else decoded["mean"]
        return mean if n_samples == 1 else mean.expand(n_samples, -1, -1)

    # --- losses -------------------------------------------------------------------------------

    def loss(
        self,
        tensors: dict[str, Any],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Sum of reconstruction, edges, contrast and, where there is a target, clustering."""
        x, z = tensors[REGISTRY_KEYS.X_KEY], inference_outputs["z"]
        scaled = inference_outputs.get("scaled")
        if scaled is None:
            scaled = self.scale(x, tensors.get("gene_mask"))
        terms = self.decoder.loss(x[:, self.chosen_genes], scaled, generative_outputs)
        if not self.all_present:
            terms = terms * self.present[self.chosen_genes]
        reconstruction = terms.mean(dim=1)
        total = reconstruction.mean()
        metrics: dict[str, torch.Tensor] = {}
        graph = tensors.get(GRAPH)
        if graph is not None and self.contrast_weight > 0:
            contrast = info_nce(z, inference_outputs["drawn"], _CONTRAST_TEMPERATURE)
            total = total + self.contrast_weight * contrast
            metrics["contrast"] = contrast.detach()
        if graph is not None and self.adjacency_weight > 0:
            adjacency = self.edge_loss(z, inference_outputs["pairs"])
            total = total + self.adjacency_weight * adjacency
            metrics["adjacency"] = adjacency.detach()
        if TARGET in tensors:
            clustering = cluster_loss(soft_assignments(z, self.centres), tensors[TARGET])
            total = total + self.cluster_weight * clustering
            metrics["clustering"] = clustering.detach()
        return LossOutput(
            loss=total,
            reconstruction_loss=reconstruction,
            kl_local=torch.zeros_like(reconstruction),
            extra_metrics=metrics,
        )

    def edge_loss(self, z: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the edges among the cells of the minibatch and of their absence.

        Parameters
        ----------
        z
            Embedding of the minibatch.
        pairs
            Source and target of edges into its cells, 2 x edges; the cells come first.
        """
        head = self.edge_head(z)
        source, target = pairs[:, pairs[0] < len(z)]
        score = head @ self.edge_form @ head.T
        edges = torch.zeros_like(score)
        edges[target, source] = 1.0
        n_edges = edges.sum()
        # edges and their absence weigh the same, however few there are
        n_pairs = float(edges.numel() - len(edges))
        weight = torch.where(
            edges > 0, 0.5 / n_edges.clamp_min(1), 0.5 / (n_pairs - n_edges).clamp_min(1)
        )
        weight = weight * (1 - torch.eye(len(edges), device=z.device))
        return (weight * F.binary_cross_entropy_with_logits(score, edges, reduction="none")).sum()
