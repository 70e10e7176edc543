"""The two configurations of the method: the better one and the published one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from sczoo.model.sce2tm._ecr import Solver
    from sczoo.model.sce2tm._start import EmbeddingStart

__all__ = ["PRESETS", "GuidanceName", "Preset", "PresetName"]

PresetName = Literal["default", "paper"]
GuidanceName = Literal["geometry", "assignments"]


@dataclass(frozen=True)
class Preset:
    """Everything in which the two configurations differ."""

    n_topics: int
    n_hidden: int
    n_embedding: int
    prior_weight: float
    ecr_weight: float
    embedding_init: EmbeddingStart
    """Where the embeddings of topics and genes start."""
    guidance: GuidanceName
    guidance_weight: float
    solver: Solver
    published: bool
    """Published encoder and decoder, anchors encoded twice, guidance not scaled."""
    optimizer: Literal["Adam", "RMSprop"]
    learning_rate: float
    decoder_rate: float
    """Learning rate of the decoder, relative to the encoder's."""
    schedule: Literal["cosine", "step", "constant"]
    max_epochs: int | None
    """Epochs; ``None`` depends on the number of cells."""
    batch_size: int


PRESETS: dict[str, Preset] = {
    "default": Preset(
        n_topics=30,
        n_hidden=64,
        n_embedding=64,
        prior_weight=0.3,
        ecr_weight=30.0,
        embedding_init="coexpression",
        guidance="geometry",
        guidance_weight=1.2,
        solver="detached",
        published=False,
        optimizer="Adam",
        learning_rate=1e-3,
        decoder_rate=30.0,
        schedule="cosine",
        max_epochs=None,
        batch_size=256,
    ),
    "paper": Preset(
        n_topics=100,
        n_hidden=200,
        n_embedding=200,
        prior_weight=1.0,
        ecr_weight=100.0,
        embedding_init="random",
        guidance="assignments",
        guidance_weight=1.0,
        solver="unrolled",
        published=True,
        optimizer="RMSprop",
        learning_rate=1e-3,
        decoder_rate=1.0,
        schedule="step",
        max_epochs=500,
        batch_size=512,
    ),
}
assert set(PRESETS) == set(get_args(PresetName))
