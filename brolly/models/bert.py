"""Encoders of text: BERT (Devlin et al. 2018) and its kin, as embedders and as judges of pairs. Knows no text.

N tokens of all texts one behind the other, B texts, C dim, H heads, E the vectors' length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from brolly.configs import HeadConfig, TextEncoderConfig
from brolly.layers.linear import Embedding, Linear
from brolly.layers.norm import LayerNorm
from brolly.layers.pool import DENSE_ACTS, Pool, pooled
from brolly.layers.transformer import Spans, Stack

Bias = Callable[[int], Tensor]


class TextEncoder(nn.Module):
    """BERT, RoBERTa, MPNet, DistilBERT, ModernBERT, Nomic's and GTE's: they differ by what their configs say."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Stack(config.stack)
        if config.last_norm:
            self.final_norm = LayerNorm(config.stack.dim, eps=config.stack.norm_eps, bias=config.stack.norm_bias)
        if config.n_buckets:
            self.relative_bias = RelativeBias(config.n_buckets, config.stack.n_heads)
        if config.head:
            self.head = Head(config.stack.dim, config.stack.norm_eps, config.head)
        else:
            self.pool = Pool(config.pool)

    def forward(self, ids: Tensor, spans: Spans, types: Tensor | None = None, seen: int | None = None) -> Tensor:
        """Hidden states: (N,) → (N, C). `types` tells a pair's second text from its first (0 and 1); of a text alone,
        nobody sees tokens behind the first `seen`."""
        bias: Bias | None = self.relative_bias if self.config.n_buckets else None
        if seen is not None:
            bias = partial(hidden_behind, seen, bias, self.embeddings.word.weight)
        x = self.encoder(self.embeddings(ids, spans, types), spans, bias)
        return self.final_norm(x) if self.config.last_norm else x

    def texts(self, ids: Tensor, spans: Spans, seen: int | None = None) -> Tensor | tuple[Tensor, ...]:
        """Each text's vector, of whatever length: (N,) → (B, E); or (n, E) of each, a vector a token."""
        return self.pool(self(ids, spans, seen=seen), spans)

    def scores(self, ids: Tensor, spans: Spans, types: Tensor | None = None) -> Tensor:
        """What the classifier says of each text or pair: (N,) → (B, labels)."""
        return self.head(self(ids, spans, types if self.config.n_types > 1 else None), spans)


def hidden_behind(seen: int, bias: Bias | None, like: Tensor, n: int) -> Tensor:
    """What is added to scores so that nobody looks at tokens behind the first `seen`: (1 or H, n, n)."""
    closed = like.new_zeros(1, n, n)
    closed[..., seen:] = float("-inf")
    return closed if bias is None else bias(n) + closed


class Embeddings(nn.Module):
    """What a token is, where it stands and which text it is of, as far as the network says so here."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config, dim = config, config.stack.dim
        self.word = Embedding(config.vocab_size, dim)
        if config.n_positions:
            self.position = Embedding(config.n_positions, dim)
        if config.n_types:
            self.token_type = Embedding(config.n_types, dim)
        self.norm = LayerNorm(dim, eps=config.stack.norm_eps, bias=config.stack.norm_bias)

    def forward(self, ids: Tensor, spans: Spans, types: Tensor | None) -> Tensor:
        x = self.word(ids)
        if self.config.n_types:
            x = x + (self.token_type.weight[0] if types is None else self.token_type(types))
        if self.config.n_positions:
            x = x + self.position(spans.positions + self.config.first_position)
        return self.norm(x)


class RelativeBias(nn.Module):
    """What each head adds to a score by how far apart two tokens are (T5's, Raffel et al. 2019, as MPNet has it)."""

    def __init__(self, n_buckets: int, n_heads: int, far: int = 128) -> None:
        super().__init__()
        self.n_buckets, self.far = n_buckets, far
        self.table = Embedding(n_buckets, n_heads)

    def forward(self, n: int) -> Tensor:  # (H, n, n)
        places = torch.arange(n, device=self.table.weight.device)
        return self.table(self.buckets(places - places[:, None])).permute(2, 0, 1)

    def buckets(self, ahead: Tensor) -> Tensor:
        """Half of the buckets look back and half ahead; of each half, half count tokens and half their logarithm."""
        half = self.n_buckets // 2
        near = half // 2
        distance = ahead.abs()
        steps = torch.log(distance.clamp(min=1).float() / near) / math.log(self.far / near) * (half - near)
        slow = (near + steps.long()).clamp(max=half - 1)
        return torch.where(distance < near, distance, slow) + half * (ahead > 0)


class Head(nn.Module):
    """The classifier over one text or pair: a layer, an activation, perhaps a norm, and the labels' scores."""

    def __init__(self, dim: int, norm_eps: float, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        if config.act:
            self.dense = Linear(dim, dim, bias=config.dense_bias)
        if config.norm:
            self.norm = LayerNorm(dim, eps=norm_eps, bias=config.norm_bias)
        self.out = Linear(dim, len(config.labels))

    def forward(self, x: Tensor, spans: Spans) -> Tensor:
        x = pooled(x, spans, (self.config.mode,)).to(self.out.weight.dtype)  # a new one learns in float32
        if self.config.act:
            x = DENSE_ACTS[self.config.act](self.dense(x))
        return self.out(self.norm(x) if self.config.norm else x)
