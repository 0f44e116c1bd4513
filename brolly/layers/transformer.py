"""A row of transformer blocks over whole sequences: the body of every encoder and text tower, without a cache.

Sequences lie one behind the other, with no padding between: N tokens of all of them, C dim, H heads, D head_dim.
`Spans` knows where each ends. `kernels` computes the same from the same weights; see brolly.engine.encode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.configs import StackConfig
from brolly.layers.linear import Linear
from brolly.layers.norm import LayerNorm
from brolly.layers.rope import cos_sin, rotate


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's approximation: x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class Spans:
    """The lengths of sequences that lie one behind the other, and attention within each of them."""

    def __init__(self, lengths: Sequence[int], device: torch.device | None = None) -> None:
        self.lengths, self.device = tuple(lengths), device

    @cached_property
    def starts(self) -> tuple[int, ...]:
        return (0, *accumulate(self.lengths))[:-1]

    @cached_property
    def positions(self) -> Tensor:
        """Each token's place in its own sequence: (N,)."""
        starts, lengths = (torch.tensor(t, dtype=torch.long, device=self.device) for t in (self.starts, self.lengths))
        return torch.arange(sum(self.lengths), device=self.device) - starts.repeat_interleave(lengths)

    def at(self, places: Sequence[int]) -> Tensor:
        """Rows of one token a sequence, counted from its start, or from its end where negative: (B,)."""
        pairs = zip(self.starts, self.lengths, places, strict=True)
        return torch.tensor([start + place % n for start, n, place in pairs], device=self.device)

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Neighbours of equal length as (first token, sequences, length): each is one batch without padding."""
        found: list[tuple[int, int, int]] = []
        for start, n in zip(self.starts, self.lengths, strict=True):
            if found and found[-1][2] == n:
                found[-1] = (found[-1][0], found[-1][1] + 1, n)
            else:
                found.append((start, 1, n))
        return found

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, window: int | None = None,
        bias: Callable[[int], Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Attention within each sequence. q: (N, H, D); k, v: the same, or fewer heads that q's share → (N, H, D).

        `window` is how far a token looks to each side; `bias(n)` is added to the scores of n tokens: (H, n, n).
        """
        out = []
        for first, count, n in self.runs:
            q1, k1, v1 = (
                t[first : first + count * n].unflatten(0, (count, n)).transpose(1, 2) for t in (q, k, v)
            )  # (B, H, n, D)
            mask = bias(n) if bias else None
            if window is not None and window < n - 1:
                places = torch.arange(n, device=q.device)
                near = (places[:, None] - places).abs() <= window
                mask = near if mask is None else mask.masked_fill(~near, float("-inf"))
            shared = q1.shape[1] != k1.shape[1]
            mixed = F.scaled_dot_product_attention(q1, k1, v1, attn_mask=mask, is_causal=causal, enable_gqa=shared)
            out.append(mixed.transpose(1, 2).flatten(0, 1))
        return out[0] if len(out) == 1 else torch.cat(out)


class Stack(nn.Module):
    """The blocks, one after the other: (N, C) → (N, C), before any last norm."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))

    def forward(self, x: Tensor, spans: Spans, bias: Callable[[int], Tensor] | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, spans, bias)
        return x


class Block(nn.Module):
    def __init__(self, config: StackConfig, index: int) -> None:
        super().__init__()
        self.config = config
        norm = partial(LayerNorm, config.dim, eps=config.norm_eps, bias=config.norm_bias)
        self.layer_norm1 = norm() if config.first_norm or index else nn.Identity()
        self.self_attn = Attention(config, index)
        self.layer_norm2 = norm()
        self.mlp = MLP(config)
        if config.layer_scale:
            self.scale1, self.scale2 = nn.Parameter(torch.empty(config.dim)), nn.Parameter(torch.empty(config.dim))

    def forward(self, x: Tensor, spans: Spans, bias: Callable[[int], Tensor] | None = None) -> Tensor:
        if self.config.post_norm:
            x = self.layer_norm1(x + self.self_attn(x, spans, bias))
            return self.layer_norm2(x + self.mlp(x))
        if self.config.layer_scale:
            x = x + self.scale1 * self.self_attn(self.layer_norm1(x), spans, bias)
            return x + self.scale2 * self.mlp(self.layer_norm2(x))
        x = x + self.self_attn(self.layer_norm1(x), spans, bias)
        return x + self.mlp(self.layer_norm2(x))


class Attention(nn.Module):
    """Multi-head attention within each sequence, with rotary positions where its layer has them."""

    def __init__(self, config: StackConfig, index: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim, self.causal = config.n_heads, config.head_dim, config.causal
        self.rope = config.ropes[index] if config.ropes else None
        self.window = config.windows[index] if config.windows else None
        self.q_proj = Linear(config.dim, config.dim, bias=config.q_bias)
        self.k_proj = Linear(config.dim, config.dim, bias=config.k_bias)
        self.v_proj = Linear(config.dim, config.dim, bias=config.v_bias)
        self.out_proj = Linear(config.dim, config.dim, bias=config.o_bias)

    def forward(self, x: Tensor, spans: Spans, bias: Callable[[int], Tensor] | None = None) -> Tensor:
        q, k, v = (proj(x).unflatten(-1, (self.n_heads, -1)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.rope is not None:
            cos, sin = cos_sin(self.rope, self.head_dim, spans.positions[None], x.dtype)  # (1, 1, N, D/2)
            q, k = (rotate(t, cos[0].transpose(0, 1), sin[0].transpose(0, 1)) for t in (q, k))
        mixed = spans.attend(q, k, v, causal=self.causal, window=self.window, bias=bias)  # (N, H, D)
        return self.out_proj(mixed.flatten(1))


class MLP(nn.Module):
    """fc2(act(fc1 x)), or fc2(act(gate x) * fc1 x) where gated."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.act = ACTS[config.act]
        self.fc1 = Linear(config.dim, config.hidden_dim, bias=config.up_bias and config.mlp_bias)
        if config.gated:
            self.gate = Linear(config.dim, config.hidden_dim, bias=config.up_bias and config.mlp_bias)
        self.fc2 = Linear(config.hidden_dim, config.dim, bias=config.mlp_bias)
        self.gated = config.gated

    def forward(self, x: Tensor) -> Tensor:
        up = self.fc1(x)  # (N, F)
        return self.fc2(self.act(self.gate(x)) * up if self.gated else self.act(up))
