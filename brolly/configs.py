"""The numbers that shape each network: one frozen dataclass per architecture. No torch: identifying needs none."""

from __future__ import annotations

from typing import NamedTuple


class Rope(NamedTuple):
    """Rotary position embedding (Su et al. 2021) and the published ways to stretch it.

    kind: "default", "linear" (Chen et al. 2023), "dynamic" (NTK), "llama3" (Llama 3.1), "yarn" (Peng et al. 2023).
    `original_context` is the length that the model was first trained on; the other numbers are each kind's own.
    """

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


class LlamaConfig(NamedTuple):
    """Pre-norm decoder with rotary attention and SwiGLU: Llama, Mistral, Qwen2, Qwen3, SmolLM, TinyLlama.

    `context` is the longest sequence in tokens; `windows` is each layer's attention window (None: everything before).
    """

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float
    context: int
    rope: Rope
    windows: tuple[int | None, ...]
    tied_head: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool


class GPT2Config(NamedTuple):
    """Pre-norm decoder with learned positions, LayerNorm and GELU (Radford et al. 2019)."""

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float
    context: int
    tied_head: bool

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads

    @property
    def windows(self) -> tuple[None, ...]:
        return (None,) * self.n_layers
