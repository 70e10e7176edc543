"""The two configurations of the method: the better one and the published one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["PRESETS", "GraphName", "LikelihoodName", "Preset", "PresetName"]

PresetName = Literal["default", "reference"]
GraphName = Literal["adaptive", "static"]
LikelihoodName = Literal["zinb", "gaussian"]

_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 160, 2, 40
_BATCHES, _SMALLEST_BATCH, _LARGEST_BATCH = 8, 32, 256
_PUBLISHED_EPOCHS = 1300


@dataclass(frozen=True)
class Preset:
    """Everything in which the two configurations differ."""

    published: bool
    """Full batches, one-hop layers, centres that do not move: the published computation."""
    n_top_genes: int
    n_latent: int
    n_hidden: int
    n_hops: int
    dropout_rate: float
    n_candidates: int | None
    """Neighbours that an edge is sampled from; ``None`` for all other cells."""
    similarity_scale: float
    """Factor of the cosine before the Gumbel noise; 1 makes the graph nearly random."""
    balance: float
    """First step of the prices that even the degrees out."""
    contrast_weight: float
    adjacency_weight: float
    cluster_weight: float
    learning_rate: float
    cluster_learning_rate: float
    pretrain_share: float
    """Share of the epochs before the clusters come in."""

    def batch_size_of(self, n_cells: int) -> int:
        """Cells in a minibatch: fewer with small data, or an epoch would be one or two steps."""
        if self.published:
            return n_cells
        return min(max(n_cells // _BATCHES, _SMALLEST_BATCH), _LARGEST_BATCH)

    def epochs_of(self, n_cells: int, batch_size: int) -> int:
        """Epochs, so that the embedding can settle whatever the number of cells."""
        if self.published:
            return _PUBLISHED_EPOCHS
        per_epoch = max(1, n_cells // batch_size)
        return min(max(-(-_STEPS // per_epoch), _FEWEST_EPOCHS), _MOST_EPOCHS)


PRESETS: dict[str, Preset] = {
    "default": Preset(
        published=False,
        n_top_genes=2000,
        n_latent=15,
        n_hidden=128,
        n_hops=2,
        dropout_rate=0.2,
        n_candidates=50,
        similarity_scale=10.0,
        balance=0.3,
        contrast_weight=0.01,
        adjacency_weight=0.1,
        cluster_weight=1.0,
        learning_rate=1e-3,
        cluster_learning_rate=5e-4,
        pretrain_share=0.15,
    ),
    "reference": Preset(
        published=True,
        n_top_genes=1500,
        n_latent=15,
        n_hidden=128,
        n_hops=1,
        dropout_rate=0.0,
        n_candidates=None,
        similarity_scale=1.0,
        balance=0.0,
        contrast_weight=0.01,
        adjacency_weight=0.3,
        cluster_weight=1.5,
        learning_rate=1e-4,
        cluster_learning_rate=5e-4,
        pretrain_share=1000 / 1300,
    ),
}
assert set(PRESETS) == set(get_args(PresetName))
