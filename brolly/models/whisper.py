"""Whisper (Radford et al. 2022): mel frames to places of sound, and tokens that look at them.

B windows of sound, M mel bands, F frames, S = F / 2 places, R rows of tokens (one or more a window), T tokens, C dim,
H heads, D head_dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.configs import WhisperConfig
from brolly.layers.attention import Cache, join_heads, split_heads
from brolly.layers.linear import Conv1d, Embedding, Linear
from brolly.layers.norm import LayerNorm
from brolly.layers.transformer import ACTS, Spans, Stack

Cross = Sequence[tuple[Tensor, Tensor]]  # each layer's keys and values of the sound: (B, H, S, D)
NOTHING: Mapping[int, list[Tensor]] = {}


class Whisper(nn.Module):
    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if not config.tied_head:
            self.proj_out = Linear(config.dim, config.vocab_size, bias=False)

    def encode(self, mel: Tensor) -> Tensor:
        """What is heard: (B, M, F) → (B, S, C)."""
        return self.encoder(mel)

    def cross(self, audio: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values of the sound, once for all tokens: (B, S, C) → (B, H, S, D) each."""
        blocks: Any = self.decoder.layers
        return [block.encoder_attn.look_at(audio) for block in blocks]

    def decode(self, ids: Tensor, positions: Tensor, cache: Cache, cross: Cross) -> Tensor:
        """ids, positions: (R, T) → hidden states after the last norm: (R, T, C). Rows of one window are neighbours."""
        return self.decoder(ids, positions, cache, cross)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, C) → (…, V)."""
        head = self.decoder.embed_tokens if self.config.tied_head else self.proj_out
        return F.linear(hidden, head.weight)

    def align(
        self, ids: Tensor, positions: Tensor, cache: Cache, cross: Cross, heads: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """`decode`, and where some (layer, head)s looked, as scores before their softmax: (R, heads, T, S)."""
        seen: dict[int, list[Tensor]] = {layer: [] for layer, _ in heads}
        hidden = self.decoder(ids, positions, cache, cross, seen)
        return hidden, torch.stack([seen[layer][0][:, head] for layer, head in heads], dim=1)


class Encoder(nn.Module):
    """Two convolutions, the second of which halves the frames, then the blocks."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        dim = config.dim
        self.conv1 = Conv1d(config.n_mels, dim, kernel_size=3, padding=1)
        self.conv2 = Conv1d(dim, dim, kernel_size=3, stride=2, padding=1)
        self.embed_positions = Embedding(config.audio_context, dim)
        self.blocks = Stack(config.encoder)
        self.layer_norm = LayerNorm(dim, eps=config.encoder.norm_eps)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)  # (B, S, C)
        n_windows, n_places = x.shape[:2]
        x = x + self.embed_positions.weight[:n_places]
        x = self.blocks(x.flatten(0, 1), Spans([n_places] * n_windows, x.device))
        return self.layer_norm(x).unflatten(0, (n_windows, n_places))


class Decoder(nn.Module):
    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.dim)
        self.embed_positions = Embedding(config.context, config.dim)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.layer_norm = LayerNorm(config.dim, eps=config.encoder.norm_eps)

    def forward(
        self, ids: Tensor, positions: Tensor, cache: Cache, cross: Cross, seen: Mapping[int, list[Tensor]] = NOTHING
    ) -> Tensor:
        """The layers that `seen` names add to it where they looked: (R, H, T, S)."""
        x = self.embed_tokens(ids) + self.embed_positions(positions)
        for i, (layer, sound) in enumerate(zip(self.layers, cross, strict=True)):
            x = layer(x, cache, *sound, seen.get(i))
        return self.layer_norm(x)


class Block(nn.Module):
    def __init__(self, config: WhisperConfig, index: int) -> None:
        super().__init__()
        dim, eps = config.dim, config.encoder.norm_eps
        self.self_attn = SelfAttention(config, index)
        self.self_attn_layer_norm = LayerNorm(dim, eps=eps)
        self.encoder_attn = CrossAttention(config)
        self.encoder_attn_layer_norm = LayerNorm(dim, eps=eps)
        self.fc1 = Linear(dim, config.hidden_dim)
        self.fc2 = Linear(config.hidden_dim, dim)
        self.final_layer_norm = LayerNorm(dim, eps=eps)
        self.act = ACTS[config.encoder.act]

    def forward(self, x: Tensor, cache: Cache, k: Tensor, v: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), cache)
        asked = self.encoder_attn_layer_norm(x)
        if seen is not None:
            seen.append(self.encoder_attn.scores(asked, k))
        x = x + self.encoder_attn(asked, k, v)
        return x + self.fc2(self.act(self.fc1(self.final_layer_norm(x))))


class SelfAttention(nn.Module):
    def __init__(self, config: WhisperConfig, index: int) -> None:
        super().__init__()
        self.n_heads, self.index, dim = config.n_heads, index, config.dim
        self.q_proj, self.v_proj, self.out_proj = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.k_proj = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        q, k, v = (split_heads(proj(x), self.n_heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(join_heads(cache.attend(self.index, q, k, v)))


class CrossAttention(nn.Module):
    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.n_heads, dim = config.n_heads, config.dim
        self.q_proj, self.v_proj, self.out_proj = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.k_proj = Linear(dim, dim, bias=False)

    def look_at(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (B, S, C): (B, H, S, D) each, in one piece."""
        k, v = (split_heads(proj(audio), self.n_heads).contiguous() for proj in (self.k_proj, self.v_proj))
        return k, v

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n_rows, n_new, n_windows = x.shape[0], x.shape[1], k.shape[0]
        # the tokens of all rows of a window are one batch of queries: its keys are read once, and never copied
        q = split_heads(self.q_proj(x).view(n_windows, n_rows // n_windows * n_new, -1), self.n_heads)
        mixed = join_heads(F.scaled_dot_product_attention(q, k, v))
        return self.out_proj(mixed.view(n_rows, n_new, -1))

    def scores(self, x: Tensor, k: Tensor) -> Tensor:
        """How much each head likes each place of the sound, before the softmax: (R, H, T, S)."""
        q = split_heads(self.q_proj(x), self.n_heads)
        k = k.repeat_interleave(len(q) // len(k), dim=0)
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
