"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, GELU, one fused projection for query, key and value.

B batch, T tokens, C dim, H heads, D head_dim, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from brolly.configs import GPT2Config
from brolly.layers.attention import Cache, join_heads, split_heads
from brolly.layers.linear import Embedding, Linear
from brolly.layers.norm import LayerNorm


class GPT2(nn.Module):
    """Token ids to hidden states, and hidden states to logits."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = Embedding(config.vocab_size, config.dim)
        self.wpe = Embedding(config.context, config.dim)
        self.h = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.ln_f = LayerNorm(config.dim, eps=config.norm_eps)
        if not config.tied_head:
            self.lm_head = Linear(config.dim, config.vocab_size, bias=False)

    def forward(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """ids, positions: (B, T) → hidden states after the last norm: (B, T, C)."""
        x = self.wte(ids) + self.wpe(positions)
        for block in self.h:
            x = block(x, cache)
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, C) → (…, V)."""
        return F.linear(hidden, self.output.weight)

    @property
    def output(self) -> nn.Embedding | nn.Linear:
        """Whose weight (V, C) `logits` multiplies by."""
        return self.wte if self.config.tied_head else self.lm_head


class Block(nn.Module):
    def __init__(self, config: GPT2Config, index: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = Attention(config, index)
        self.ln_2 = LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class Attention(nn.Module):
    def __init__(self, config: GPT2Config, index: int) -> None:
        super().__init__()
        self.n_heads, self.index = config.n_heads, index
        self.c_attn = Linear(config.dim, 3 * config.dim)
        self.c_proj = Linear(config.dim, config.dim)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        q, k, v = (split_heads(part, self.n_heads) for part in self.c_attn(x).chunk(3, dim=-1))  # (B, H, T, D)
        return self.c_proj(join_heads(cache.attend(self.index, q, k, v)))


class MLP(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.dim, config.hidden_dim)
        self.c_proj = Linear(config.hidden_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
