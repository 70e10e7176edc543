"""The two towers of LangCell in plain torch: a BERT of genes and a BERT of text that looks at it.

Parameter names are those of the checkpoint, so that a state dict loads as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sczoo.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["BertConfig", "BertTower"]

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
}
# Added to the attention scores of places that must not be looked at.
_MASKED = -10000.0


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a tower, as ``config.json`` states them."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    type_vocab_size: int = 2
    pad_token_id: int = 0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> BertConfig:
        """Read the entries of ``config.json`` that matter; others are ignored."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        try:
            config = cls(**known)
        except TypeError as error:
            raise ArtefactError(f"{where} is not the configuration of a BERT: {error}.") from error
        if config.hidden_act not in _ACTIVATIONS:
            raise ArtefactError(
                f"{where}: hidden_act={config.hidden_act!r} is none of {sorted(_ACTIVATIONS)}."
            )
        if config.hidden_size % config.num_attention_heads:
            raise ArtefactError(
                f"{where}: {config.num_attention_heads} heads do not divide a hidden size of "
                f"{config.hidden_size}."
            )
        return config


class _Embeddings(nn.Module):
    def __init__(self, config: BertConfig, *, types: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        if types:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.types = types
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        embedded = self.word_embeddings(tokens) + self.position_embeddings(positions)
        if self.types:
            embedded = embedded + self.token_type_embeddings.weight[0]
        return self.LayerNorm(embedded)


class _HeadedAttention(nn.Module):
    def __init__(self, config: BertConfig, source_width: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)

    def forward(self, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        def split(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = (
            split(self.query(x)),
            split(self.key(source)),
            split(self.value(source)),
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        scores = scores + (1.0 - mask[:, None, None, :].to(scores.dtype)) * _MASKED
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


class _Residual(nn.Module):
    def __init__(self, n_in: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class _Attention(nn.Module):
    def __init__(self, config: BertConfig, source_width: int) -> None:
        super().__init__()
        self.self = _HeadedAttention(config, source_width)
        self.output = _Residual(config.hidden_size, config)

    def forward(self, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.output(self.self(x, source, mask), x)


class _Intermediate(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = _ACTIVATIONS[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(x))


class _Layer(nn.Module):
    def __init__(self, config: BertConfig, source_width: int | None) -> None:
        super().__init__()
        self.attention = _Attention(config, config.hidden_size)
        if source_width is not None:
            self.crossattention = _Attention(config, source_width)
        self.intermediate = _Intermediate(config)
        self.output = _Residual(config.intermediate_size, config)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        source: torch.Tensor | None,
        source_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        x = self.attention(x, x, mask)
        if source is not None:
            x = self.crossattention(x, source, source_mask)
        return self.output(self.intermediate(x), x)


class _Encoder(nn.Module):
    def __init__(self, config: BertConfig, source_width: int | None) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            _Layer(config, source_width) for _ in range(config.num_hidden_layers)
        )


class BertTower(nn.Module):
    """A BERT encoder without a pooler.

    Parameters
    ----------
    config
        Sizes.
    source_width
        Width of what cross-attention looks at; ``None`` for a tower without it. A tower with it
        has no embeddings of token types.
    """

    def __init__(self, config: BertConfig, source_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config, types=source_width is None)
        self.encoder = _Encoder(config, source_width)

    def forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        source: torch.Tensor | None = None,
        source_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode tokens.

        Parameters
        ----------
        tokens, mask
            ``(n, length)``; the mask is 1 for tokens and 0 for padding.
        source, source_mask
            What cross-attention looks at, ``(n, source length, width)``; without it the tower
            reads its own tokens only.

        Returns
        -------
        Last hidden states, ``(n, length, hidden size)``.
        """
        x = self.embeddings(tokens)
        for layer in self.encoder.layer:
            x = layer(x, mask, source, source_mask)
        return x
