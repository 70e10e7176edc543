"""The published computation: full batches, dense graphs, centres that do not move.

What the published code does, not what the paper says: one-hop layers, a graph that is drawn from
all pairs of cells, a likelihood of counts fitted to scaled expression, KL(q||p). Its stopping by
the score against the true labels is left out. It holds several cells x cells matrices.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data
from scvi.train import TrainingPlan
from torch import nn
from torch.nn import functional as F

from sczoo.graph import knn
from sczoo.model.scagc._adaptive_graph import gumbel_noise
from sczoo.model.scagc._clustering import (
    by_size,
    centres_of,
    cluster_loss,
    soft_assignments,
    target_of,
)
from sczoo.model.scagc._contrast import info_nce
from sczoo.model.scagc._encoder import OneHopConv
from sczoo.model.scagc._input import AttachingModule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MOST_REFERENCE_CELLS",
    "ReferenceModule",
    "ReferencePlan",
    "ReferenceState",
    "dense_draw",
    "dense_normalised",
    "published_zinb_loss",
]

MOST_REFERENCE_CELLS = 4000
_CONTRAST_TEMPERATURE = 0.7
_GUMBEL_TEMPERATURE = 0.5
_ADJACENCY_WIDTH = 32
_DECODER_WIDTHS = (128, 256, 512)
_TARGET_EPOCHS = 8
_STOP_BELOW = 1e-3
_ADAM_EPS = 1e-7


def dense_draw(
    z: torch.Tensor, noise: torch.Tensor, n_neighbors: int, temperature: float, scale: float = 1.0
) -> torch.Tensor:
    """Draw an undirected graph among all cells, with gradients straight through.

    Parameters
    ----------
    z
        Cells x dimensions.
    noise
        Gumbel noise, cells x cells.
    n_neighbors
        Neighbours that each cell draws.
    temperature
        Of the softmax; the graph does not depend on it, only its gradient.
    scale
        Factor of the cosine.

    Returns
    -------
    Cells x cells, symmetric, zeros and ones with an empty diagonal.
    """
    unit = F.normalize(z, dim=1)
    diagonal = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (scale * unit @ unit.T + noise).masked_fill(diagonal, -torch.inf)
    soft = torch.softmax(logits / temperature, dim=1)
    chosen = logits.detach().topk(n_neighbors, dim=1).indices
    hard = torch.zeros_like(soft).scatter(1, chosen, 1.0)
    directed = (hard - soft).detach() + soft
    both = directed + directed.T
    # Edges drawn from one side lie exactly at the bound, where releases of torch disagree on the
    # gradient of clamp: it is passed on here.
    return torch.where(both > 1.0, torch.ones_like(both), both)


def dense_normalised(adjacency: torch.Tensor) -> torch.Tensor:
    """Divide by the roots of the degrees; only edges that exist carry gradients."""
    root = adjacency.sum(dim=1).clamp_min(1e-12).rsqrt()
    exists = (adjacency.detach() > 0.5).to(adjacency.dtype)
    return root[:, None] * (adjacency * exists) * root[None, :]


def published_zinb_loss(
    y: torch.Tensor, mean: torch.Tensor, theta: torch.Tensor, pi: torch.Tensor
) -> torch.Tensor:
    """Zero-inflated negative binomial of scaled values, as published; cells x genes.

    Values below 1e-8, which most scaled values are, count as zero.
    """
    eps = 1e-10
    zero = y < 1e-8
    # masked before, not after: gamma functions have poles at negative values
    count = torch.where(zero, torch.zeros_like(y), y)
    nb = (
        torch.lgamma(theta + eps)
        + torch.lgamma(count + 1)
        - torch.lgamma(count + theta + eps)
        + (theta + count) * torch.log1p(mean / (theta + eps))
        + count * (torch.log(theta + eps) - torch.log(mean + eps))
        - torch.log(1 - pi + eps)
    )
    power = torch.pow(theta / (theta + mean + eps), theta)
    return torch.where(zero, -torch.log(pi + (1 - pi) * power + eps), nb)


class ReferenceModule(AttachingModule):
    """The published network.

    Parameters
    ----------
    n_genes, n_top_genes, n_clusters, n_anchors, n_latent, n_hidden
        Sizes, as of :class:`~sczoo.model.scagc.SCAGCModule`.
    n_neighbors
        Neighbours that each cell draws.
    similarity_scale
        Factor of the cosine; 1 as published.
    contrast_weight, adjacency_weight, cluster_weight
        Weights of the losses.
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
        n_neighbors: int = 15,
        similarity_scale: float = 1.0,
        contrast_weight: float = 0.01,
        adjacency_weight: float = 0.3,
        cluster_weight: float = 1.5,
    ) -> None:
        n_top_genes = min(n_top_genes, n_genes)
        super().__init__(
            n_genes,
            n_top_genes,
            n_clusters=n_clusters,
            n_anchors=n_anchors,
            n_latent=n_latent,
            n_passed=n_top_genes + n_hidden,
            clip=float("inf"),
        )
        self.n_hidden = n_hidden
        self.n_neighbors, self.similarity_scale = n_neighbors, similarity_scale
        self.contrast_weight = contrast_weight
        self.adjacency_weight = adjacency_weight
        self.cluster_weight = cluster_weight
        self.first = OneHopConv(n_top_genes, n_hidden)
        self.second = OneHopConv(n_hidden, n_latent)
        self.edge_head = nn.Linear(n_latent, _ADJACENCY_WIDTH)
        self.edge_form = nn.Parameter(torch.empty(_ADJACENCY_WIDTH, _ADJACENCY_WIDTH))
        nn.init.xavier_uniform_(self.edge_form)
        widths = (n_latent, *_DECODER_WIDTHS)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.decoder = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(widths[-1], n_top_genes) for name in ("pi", "theta", "mean")}
        )
        self.centres.requires_grad_(False)

    # --- encoding -----------------------------------------------------------------------------

    def hidden(self, scaled: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """First layer of all cells on a graph."""
        return F.relu(self.first(scaled, adjacency))

    def encode(self, scaled: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """Embedding of all cells on a normalised graph, cells x dimensions."""
        return self.second(self.hidden(scaled, adjacency), adjacency)

    def _get_inference_input(self, tensors: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "gene_mask": tensors.get("gene_mask")}

    @auto_move_data
    def inference(
        self, x: torch.Tensor, gene_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Encode cells attached to the anchors; ``"z"`` is the embedding."""
        scaled = self.scale(x, gene_mask)
        passed = self.received(scaled)
        n_genes = scaled.shape[1]

        first = scaled @ self.first.kernel[0] + self.first.bias
        hidden = F.relu(first + passed[:, :n_genes] @ self.first.kernel[1:].sum(dim=0))
        z = hidden @ self.second.kernel[0] + self.second.bias
        z = z + passed[:, n_genes:] @ self.second.kernel[1:].sum(dim=0)
        return {"z": z, "scaled": scaled}

    # --- output -------------------------------------------------------------------------------

    def _get_generative_input(
        self, tensors: dict[str, Any], inference_outputs: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        return {"z": inference_outputs["z"]}

    @auto_move_data
    def generative(self, z: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Decode: ``"mean"``, ``"theta"`` and ``"pi"``, cells x genes."""
        hidden = self.decoder(z)
        return {
            "mean": self.heads["mean"](hidden).clamp(-11.6, 13.9).exp().clamp(1e-5, 1e6),
            "theta": F.softplus(self.heads["theta"](hidden)).clamp(1e-4, 1e4),
            "pi": torch.sigmoid(self.heads["pi"](hidden)),
        }

    def loss(
        self,
        tensors: dict[str, Any],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, torch.Tensor],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Reconstruction of the scaled expression."""
        terms = published_zinb_loss(inference_outputs["scaled"], **generative_outputs)
        per_cell = terms.mean(dim=1)
        zero = torch.zeros_like(per_cell)
        return LossOutput(loss=per_cell.mean(), reconstruction_loss=per_cell, kl_local=zero)

    def total_loss(
        self,
        scaled: torch.Tensor,
        z: torch.Tensor,
        drawn: torch.Tensor,
        graph: torch.Tensor,
        target: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """All losses of one epoch; ``"loss"`` is their weighted sum."""
        head = self.edge_head(z)
        decoded = torch.sigmoid(head @ self.edge_form @ head.T)
        terms = {
            "reconstruction_loss": published_zinb_loss(scaled, **self.generative(z)).mean(),
            "adjacency": (graph - decoded).square().mean(),
            "contrast": info_nce(z, drawn, _CONTRAST_TEMPERATURE, symmetric=False),
        }
        total = (
            terms["reconstruction_loss"]
            + self.adjacency_weight * terms["adjacency"]
            + self.contrast_weight * terms["contrast"]
        )
        if target is not None:
            q = soft_assignments(z, self.centres)
            terms["clustering"] = cluster_loss(q, target, published=True)
            total = total + self.cluster_weight * terms["clustering"]
        return {"loss": total, **terms}

    @torch.inference_mode()
    def sample(self, tensors: dict[str, torch.Tensor], n_samples: int = 1) -> torch.Tensor:
        """Mean of the scaled expression, repeated ``n_samples`` times."""
        _, decoded = self.forward(tensors, compute_loss=False)
        mean = decoded["mean"]
        return mean if n_samples == 1 else mean.expand(n_samples, -1, -1)


class ReferenceState:
    """The graphs of a run of the published computation.

    Parameters
    ----------
    components
        Principal components of the cells.
    n_neighbors
        Neighbours, the cell itself counted as published.
    adaptive
        Whether the graph is drawn anew in every epoch.
    """

    def __init__(
        self, components: NDArray[np.float32], n_neighbors: int, *, adaptive: bool
    ) -> None:
        self.components = components
        self.adaptive = adaptive
        n_cells = len(components)
        near = knn(components, max(1, min(n_neighbors, n_cells) - 1)).indices
        ones = np.ones(near.size, dtype=np.float32)
        rows = np.repeat(np.arange(n_cells), near.shape[1])
        directed = sparse.csr_matrix((ones, (rows, near.ravel())), shape=(n_cells, n_cells))
        self.first_graph = directed.maximum(directed.T).tocsr()
        with_self = torch.from_numpy(self.first_graph.toarray()) + torch.eye(n_cells)
        self.first_adjacency = with_self
        self.graph = with_self
        self.adjacency = dense_normalised(with_self)
        self.history: dict[str, list[float]] = {"jaccard": []}

    def partition(self, n_clusters: int | None, seed: int) -> NDArray[np.int64]:
        """Partition of the first graph, from which the centres start."""
        from sczoo.graph import leiden_of_graph

        if n_clusters is None:
            return leiden_of_graph(self.first_graph, seed=seed)
        if n_clusters == 1:
            return np.zeros(len(self.components), dtype=np.int64)
        from sklearn.cluster import SpectralClustering

        found = SpectralClustering(
            n_clusters, affinity="precomputed", assign_labels="discretize", random_state=0
        ).fit_predict(self.first_adjacency.numpy())
        return by_size(found)

    def learned_graph(self) -> sparse.csr_matrix:
        """Return the current graph without loops, in CSR."""
        graph = sparse.csr_matrix((self.graph > 0.5).numpy().astype(np.float32))
        graph.setdiag(0)
        graph.eliminate_zeros()
        return graph


class ReferencePlan(TrainingPlan):
    """Full-batch training as published.

    Parameters
    ----------
    module
        A :class:`ReferenceModule`.
    state
        The graphs.
    n_clusters
        Number of clusters; ``None`` asks Leiden on the first graph.
    pretrain_epochs
        Epochs before the clusters come in.
    seed
        Seed of the draws.
    lr, cluster_lr
        Learning rates of the two stages.
    **kwargs
        Of :class:`scvi.train.TrainingPlan`.
    """

    def __init__(
        self,
        module: Any,
        *,
        state: ReferenceState,
        n_clusters: int | None,
        pretrain_epochs: int,
        seed: int,
        lr: float = 1e-4,
        cluster_lr: float = 5e-4,
        eps: float = _ADAM_EPS,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            module, lr=lr, eps=eps, weight_decay=weight_decay, n_epochs_kl_warmup=None, **kwargs
        )
        self.state, self.n_clusters = state, n_clusters
        self.pretrain_epochs, self.cluster_lr, self.graph_seed = pretrain_epochs, cluster_lr, seed
        self.target: torch.Tensor | None = None
        self.labels: np.ndarray | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Make the one step of an epoch and draw the next graph."""
        module, state = self.module, self.state
        scaled = module.scale(batch[REGISTRY_KEYS.X_KEY])
        z = module.encode(scaled, state.adjacency)
        graph = state.first_adjacency
        if state.adaptive:
            noise = gumbel_noise((len(z), len(z)), self._generator).to(z.device)
            graph = dense_draw(
                z, noise, module.n_neighbors, _GUMBEL_TEMPERATURE, module.similarity_scale
            )
        adjacency = dense_normalised(graph)
        drawn = module.encode(scaled, adjacency)
        if self.current_epoch >= self.pretrain_epochs:
            self._follow_target(z.detach())
        terms = module.total_loss(scaled, z, drawn, graph, self.target)
        with torch.no_grad():
            both = ((graph > 0.5) & (state.graph > 0.5)).sum()
            either = ((graph > 0.5) | (state.graph > 0.5)).sum()
            state.history["jaccard"].append(float(both / either))
            state.graph, state.adjacency = graph.detach(), adjacency.detach()
        for name, value in terms.items():
            self.log(
                "train_loss" if name == "loss" else f"{name}_train",
                value.detach(),
                on_step=False,
                on_epoch=True,
                batch_size=len(z),
                prog_bar=name == "loss",
            )
        return terms["loss"]

    def _follow_target(self, z: torch.Tensor) -> None:
        """Compute the target again every eight epochs; stop when labels no longer change."""
        module = self.module
        if self.target is None:
            if not module.clustered:
                labels = self.state.partition(self.n_clusters, self.graph_seed)
                n_clusters = self.n_clusters or int(labels.max()) + 1
                module.set_centres(centres_of(z.cpu().numpy(), labels, n_clusters))
            optimizer = self.optimizers().optimizer
            optimizer.state.clear()
            for group in optimizer.param_groups:
                group["lr"] = self.cluster_lr
        elif (self.current_epoch - self.pretrain_epochs) % _TARGET_EPOCHS:
            return
        q = soft_assignments(z, module.centres)
        self.target = target_of(q)
        labels = q.argmax(dim=1).cpu().numpy()
        if self.labels is not None:
            changed = float((labels != self.labels).mean())
            self.state.history.setdefault("label_changes", []).append(changed)
            if changed < _STOP_BELOW:
                self.trainer.should_stop = True
        self.labels = labels
