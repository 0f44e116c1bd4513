"""Llama and its kin (Mistral, Qwen2, Qwen3, SmolLM, TinyLlama): a pre-norm decoder. Knows no pages and no text.

Touvron et al. 2023. B batch, T tokens, C dim, H heads, KV key-value heads, D head_dim, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from brolly.configs import LlamaConfig
from brolly.layers.attention import Cache, join_heads, split_heads
from brolly.layers.linear import Embedding, Linear
from brolly.layers.mlp import SwiGLU
from brolly.layers.norm import RMSNorm
from brolly.layers.rope import cos_sin, rotate


class Llama(nn.Module):
    """Token ids to hidden states, and hidden states to logits."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tied_head:
            self.lm_head = Linear(config.dim, config.vocab_size, bias=False)

    def forward(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """ids, positions: (B, T) → hidden states after the last norm: (B, T, C)."""
        return self.model(ids, positions, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, C) → (…, V)."""
        return F.linear(hidden, self.output.weight)

    @property
    def output(self) -> nn.Embedding | nn.Linear:
        """Whose weight (V, C) `logits` multiplies by."""
        return self.model.embed_tokens if self.config.tied_head else self.lm_head


class Decoder(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)

    def forward(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        x = self.embed_tokens(ids)  # (B, T, C)
        cos, sin = cos_sin(self.config.rope, self.config.head_dim, positions, x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, cache)
        return self.norm(x)


class Block(nn.Module):
    def __init__(self, config: LlamaConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, eps=config.norm_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.dim, eps=config.norm_eps)
        self.mlp = SwiGLU(config.dim, config.hidden_dim, config.mlp_bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with rotary positions; Qwen3 norms each query and key head."""

    def __init__(self, config: LlamaConfig, index: int) -> None:
        super().__init__()
        self.config, self.index = config, index
        q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = Linear(config.dim, q_dim, bias=config.qkv_bias)
        self.k_proj = Linear(config.dim, kv_dim, bias=config.qkv_bias)
        self.v_proj = Linear(config.dim, kv_dim, bias=config.qkv_bias)
        self.o_proj = Linear(q_dim, config.dim, bias=config.o_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, eps=config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim, eps=config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache) -> Tensor:
        q = split_heads(self.q_proj(x), self.config.n_heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.config.n_kv_heads)  # (B, KV, T, D)
        v = split_heads(self.v_proj(x), self.config.n_kv_heads)
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return self.o_proj(join_heads(cache.attend(self.index, q, k, v)))  # (B, T, C)
