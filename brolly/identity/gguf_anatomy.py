"""A GGUF file's decoder from its key-values: heads, windows and caches of each layer; its tensors count themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.identity.anatomy import Anatomy, Layer
from brolly.identity.mixers import Untold

# architectures of which every second, fourth, sixth … layer sees the whole context (llama.cpp's patterns)
PATTERNS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4, "olmo2": 4, "exaone4": 4, "llama4": 4, "gemma3n": 5}
SSM = ("mamba", "mamba2", "falcon-h1", "jamba", "granitehybrid", "nemotron_h", "nemotron_h_moe", "plamo2")
ENCODERS = (
    "bert",
    "nomic-bert",
    "nomic-bert-moe",
    "jina-bert-v2",
    "t5",
    "t5encoder",
    "clip",
    "modern-bert",
    "whisper",
    "neo-bert",
)


def anatomy(said: Mapping[str, Any]) -> Anatomy | None:
    """The anatomy without counts; None for encoders and what does not say enough."""
    name = said.get("general.architecture")
    if not isinstance(name, str) or name in ENCODERS:
        return None

    def number(key: str, default: int | None = None, at: int = 0) -> int:
        value = said.get(f"{name}.{key}")
        if isinstance(value, list):
            value = value[at] if at < len(value) else default
        value = default if value is None else value
        if type(value) is not int or not 0 <= value < 2**40:
            raise Untold(key)
        return value

    n, d = number("block_count"), number("embedding_length")
    n -= number("nextn_predict_layers", 0)
    if not 0 < n <= 4096:
        raise Untold("block_count")
    rank = number("attention.kv_lora_rank", 0)
    window, every = (
        number("attention.sliding_window", 8192 if name == "llama4" else 0),
        number("full_attention_interval", 0),
    )
    pattern = said.get(f"{name}.attention.sliding_window_pattern")
    shared = number("attention.shared_kv_layers", 0)
    layers = []
    for i in range(n):
        heads = number("attention.head_count", 0, i)
        kv = number("attention.head_count_kv", heads, i)
        usual = d // heads if heads else 0
        k = number("attention.key_length", usual)
        v = number("attention.value_length", usual)
        state = 0
        if name in SSM or every and (i + 1) % every:
            state = number("ssm.inner_size", 0) * (number("ssm.state_size", 0) + number("ssm.conv_kernel", 0))
        linear = (every and (i + 1) % every) or name.startswith(("mamba", "rwkv", "arwkv")) or not kv
        full = "full" if not linear else "ssm" if state else "none"
        limit = None
        if window and not linear:
            local = number_pattern(pattern, i, name)
            full, limit = ("sliding", window) if local else ("full", None)
        cached = 0 if linear or i >= n - shared else rank + number("rope.dimension_count", 64) if rank else kv * (k + v)
        experts = number("expert_count", 0)
        moe = experts > 0 and i >= number("leading_dense_block_count", 0)
        layers.append(
            Layer(full, heads, kv, k, v, limit, cached, state, "moe" if moe else "dense",
                  number("feed_forward_length", 0, i),
                  experts if moe else 0, number("expert_used_count", 0) if moe else 0)
        )  # fmt: skip
    context = said.get(f"{name}.context_length")
    tokens = said.get("tokenizer.ggml.tokens")
    vocab = number("vocab_size", len(tokens) if isinstance(tokens, list) else 0)
    return Anatomy(
        f"gguf:{name}", d, vocab, context if type(context) is int and context > 0 else None, False, tuple(layers), {},
        exact=False, mla=bool(rank),
    )  # fmt: skip


def number_pattern(pattern: Any, layer: int, name: str) -> bool:
    """Whether a layer sees a window only."""
    if isinstance(pattern, list):
        return layer < len(pattern) and bool(pattern[layer])
    if type(pattern) is int and pattern > 0:
        return (layer + 1) % pattern != 0
    if name in PATTERNS:
        return (layer + 1) % PATTERNS[name] != 0
    return True
