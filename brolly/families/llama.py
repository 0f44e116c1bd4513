"""Llama 1 to 3.3, in Hugging Face's, Meta's, llama2.c's and GGUF's layouts; what its kin share is here too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.card import Family, Header, Rename
from brolly.checkpoint.names import rename
from brolly.configs import LlamaConfig, Rope
from brolly.errors import CheckpointError

# Hugging Face's names are the network's own; old buffers, wrappers' prefixes and what lacks its own need a row.
HUGGING_FACE = (
    Rename(r"(.*\.)?rotary_emb\.inv_freq", None),
    Rename(r"(?:_orig_mod|module)\.(.*)", r"\1"),
    Rename(r"((?:embed_tokens|norm|layers\.\d+)\..*)", r"model.\1"),  # published without a head
)

# Meta's own files, and Mistral's, which follow them: rotary pairs interleaved.
META = (
    Rename(r"rope\.freqs", None),
    Rename(r"tok_embeddings\.weight", "model.embed_tokens.weight"),
    Rename(r"norm\.weight", "model.norm.weight"),
    Rename(r"output\.weight", "lm_head.weight"),
    Rename(r"layers\.(\d+)\.attention_norm\.weight", r"model.layers.\1.input_layernorm.weight"),
    Rename(r"layers\.(\d+)\.ffn_norm\.weight", r"model.layers.\1.post_attention_layernorm.weight"),
    Rename(r"layers\.(\d+)\.attention\.w([qk])\.(weight|bias)", r"model.layers.\1.self_attn.\2_proj.\3", "rope"),
    Rename(r"layers\.(\d+)\.attention\.w([vo])\.(weight|bias)", r"model.layers.\1.self_attn.\2_proj.\3"),
    Rename(r"layers\.(\d+)\.attention\.inner_attention\.rope\.freqs", None),
    Rename(r"layers\.(\d+)\.feed_forward\.w1\.weight", r"model.layers.\1.mlp.gate_proj.weight"),
    Rename(r"layers\.(\d+)\.feed_forward\.w2\.weight", r"model.layers.\1.mlp.down_proj.weight"),
    Rename(r"layers\.(\d+)\.feed_forward\.w3\.weight", r"model.layers.\1.mlp.up_proj.weight"),
)


def gguf_names(interleaved: bool) -> tuple[Rename, ...]:
    """llama.cpp's names; its llama architecture keeps rotary pairs interleaved, its qwen ones do not."""
    block = r"blk\.(\d+)\."
    return (
        Rename(r"token_embd\.weight", "model.embed_tokens.weight"),
        Rename(r"output_norm\.weight", "model.norm.weight"),
        Rename(r"output\.weight", "lm_head.weight"),
        Rename(r"rope_freqs\.weight", None),
        Rename(block + r"attn_norm\.weight", r"model.layers.\1.input_layernorm.weight"),
        Rename(block + r"ffn_norm\.weight", r"model.layers.\1.post_attention_layernorm.weight"),
        Rename(block + r"attn_([qk])\.(weight|bias)", r"model.layers.\1.self_attn.\2_proj.\3", "rope" * interleaved),
        Rename(block + r"attn_v\.(weight|bias)", r"model.layers.\1.self_attn.v_proj.\2"),
        Rename(block + r"attn_output\.(weight|bias)", r"model.layers.\1.self_attn.o_proj.\2"),
        Rename(block + r"attn_([qk])_norm\.weight", r"model.layers.\1.self_attn.\2_norm.weight"),
        Rename(block + r"ffn_(gate|up|down)\.(weight|bias)", r"model.layers.\1.mlp.\2_proj.\3"),
    )


def is_gguf(header: Header, *architectures: str) -> bool:
    return header.format == "gguf" and header.metadata.get("general.architecture") in architectures


def is_hugging_face(header: Header, *model_types: str) -> bool:
    """By config.json's model_type, and by a tensor that such a decoder cannot lack."""
    known = header.config.get("model_type") in model_types
    return known and any(name.endswith("layers.0.self_attn.q_proj.weight") for name in header.tensors)


def is_native(header: Header) -> bool:
    """Meta's or Mistral's own layout: params.json beside Meta's names, and no mixture of experts."""
    native = "layers.0.attention.wq.weight" in header.tensors and "layers.0.feed_forward.w1.weight" in header.tensors
    return native and "dim" in header.config and "model_type" not in header.config


def is_mistral_native(header: Header) -> bool:
    """Mistral's params.json states head_dim and hidden_dim; Meta's derives both."""
    return is_native(header) and "head_dim" in header.config and header.format == "safetensors"


def read_rope(header: Header, head_dim: int) -> tuple[Rope, int]:
    """The rotary embedding and the context in either spelling: rope_parameters (v5), or rope_theta and rope_scaling."""
    config = header.config
    context = header.whole("max_position_embeddings", high=2**30)
    new = config.get("rope_parameters")
    scaling: Any = new or config.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise CheckpointError(f"{header.path}: the rope scaling is {scaling!r:.80}; expected an object.")
    where = "rope_parameters." if new else "rope_scaling."
    theta = header.number(where + "rope_theta", config.get("rope_theta", 10000.0), low=1e-3, high=1e15)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    partial = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if kind not in ("default", "linear", "dynamic", "llama3", "yarn") or partial != 1.0:
        raise CheckpointError(
            f"{header.path}: rotary embedding {kind!r:.60} (share of the head {partial!r:.20}) is not known here; "
            "expected default, linear, dynamic, llama3 or yarn over the whole head."
        )
    if kind == "default":
        return Rope(float(theta)), context

    def number(key: str, default: float | None = None) -> float:
        return float(header.number(where + key, default, low=-1e9, high=1e9))

    kept = scaling.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    original = int(number("original_max_position_embeddings", kept or context))
    original = context if kind in ("linear", "dynamic") else original
    factor = number("factor", context / original)
    if factor < 1 or original < 1 or (kind in ("dynamic", "yarn") and head_dim < 4):
        raise CheckpointError(f"{header.path}: rope factor {factor:g} over {original} positions; expected at least 1.")
    optional = {
        k: number(k)
        for k in ("attention_factor", "mscale", "mscale_all_dim")
        if isinstance(scaling.get(k), (int, float))
    }
    rope = Rope(
        theta=float(theta),
        kind=kind,
        factor=factor,
        original_context=original,
        low_freq_factor=number("low_freq_factor", 1.0),
        high_freq_factor=number("high_freq_factor", 4.0),
        beta_fast=number("beta_fast", 32.0),
        beta_slow=number("beta_slow", 1.0),
        truncate=bool(scaling.get("truncate", True)),
        **optional,
    )
    if kind == "llama3":
        return rope, context
    return rope, max(context, int(original * factor))


def windows(header: Header, n_layers: int) -> tuple[int | None, ...]:
    """Each layer's sliding window, as layer_types says or, without it, the older keys."""
    config = header.config
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return (None,) * n_layers
    window = header.whole("sliding_window", high=2**30)
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == n_layers:
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    first = header.whole("max_window_layers", n_layers) if "use_sliding_window" in config else 0
    return tuple(window if i >= first else None for i in range(n_layers))


def hugging_face_config(header: Header) -> LlamaConfig:
    """From config.json in transformers' v4 or v5 spelling; biases and norms from the tensors that exist."""
    if header.config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise CheckpointError(f"{header.path}: hidden_act is {header.config['hidden_act']!r:.60}; expected 'silu'.")
    names = {target for targets, _ in rename(header.tensors, HUGGING_FACE).values() for target in targets}
    dim, n_heads = header.whole("hidden_size"), header.whole("num_attention_heads")
    head_dim = header.whole("head_dim", max(dim // n_heads, 1))
    rope, context = read_rope(header, head_dim)
    n_layers = header.whole("num_hidden_layers", high=10000)
    tied = header.config.get("tie_word_embeddings")
    return LlamaConfig(
        vocab_size=header.whole("vocab_size", high=2**24),
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=header.whole("num_key_value_heads", n_heads),
        head_dim=head_dim,
        hidden_dim=header.whole("intermediate_size"),
        norm_eps=float(header.number("rms_norm_eps", 1e-6, high=1)),
        context=context,
        rope=rope,
        windows=windows(header, n_layers),
        tied_head="lm_head.weight" not in names if tied is None else bool(tied),
        qkv_bias="model.layers.0.self_attn.q_proj.bias" in names,
        o_bias="model.layers.0.self_attn.o_proj.bias" in names,
        mlp_bias="model.layers.0.mlp.gate_proj.bias" in names,
        qk_norm="model.layers.0.self_attn.q_norm.weight" in names,
    )


def native_config(header: Header, context: int, window: int | None = None) -> LlamaConfig:
    """From params.json (Meta, Mistral) or a llama2.c header; sizes that it leaves open come from the tensors."""
    dim, n_heads = header.whole("dim"), header.whole("n_heads")
    n_layers = header.whole("n_layers", high=10000)
    embedding = header.tensors["tok_embeddings.weight"]
    pieces = len(embedding.shards) or 1
    by_rows = embedding.shape[0] * pieces if embedding.shape[-1] == dim else embedding.shape[0]
    stated = header.config.get("vocab_size")
    gate = header.tensors["layers.0.feed_forward.w1.weight"]
    return LlamaConfig(
        vocab_size=by_rows if stated in (None, -1) else header.whole("vocab_size", high=2**24),
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=header.whole("n_kv_heads", n_heads),
        head_dim=header.whole("head_dim", max(dim // n_heads, 1)),
        hidden_dim=header.whole("hidden_dim", gate.shape[0] * (len(gate.shards) or 1)),
        norm_eps=float(header.number("norm_eps", 1e-5, high=1)),
        context=context,
        rope=native_rope(header),
        windows=(window,) * n_layers,
        tied_head="output.weight" not in header.tensors,
        qkv_bias=False,
        o_bias=False,
        mlp_bias=False,
        qk_norm=False,
    )


def native_rope(header: Header) -> Rope:
    """params.json says use_scaled_rope from Llama 3.1 on; the numbers are those of Meta's own code."""
    theta = float(header.number("rope_theta", 10000.0, low=1e-3, high=1e15))
    if not header.config.get("use_scaled_rope"):
        return Rope(theta)
    factor = float(header.number("rope_scaling_factor", 8, low=1, high=1e6))
    return Rope(theta, "llama3", factor, original_context=8192, low_freq_factor=1.0, high_freq_factor=4.0)


def gguf_config(header: Header) -> LlamaConfig:
    """From GGUF's key-values."""
    arch = header.metadata["general.architecture"]
    dim, n_heads = header.whole(f"{arch}.embedding_length"), header.whole(f"{arch}.attention.head_count")
    n_layers = header.whole(f"{arch}.block_count", high=10000)
    names = {target for targets, _ in rename(header.tensors, gguf_names(False)).values() for target in targets}
    head_dim = header.whole(f"{arch}.attention.key_length", max(dim // n_heads, 1))
    embedding = header.tensors.get("token_embd.weight")
    vocab_size = embedding.shape[0] if embedding else header.whole(f"{arch}.vocab_size", high=2**24)
    context = header.whole(f"{arch}.context_length", high=2**30)
    return LlamaConfig(
        vocab_size=vocab_size,
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=header.whole(f"{arch}.attention.head_count_kv", n_heads),
        head_dim=head_dim,
        hidden_dim=header.whole(f"{arch}.feed_forward_length"),
        norm_eps=float(header.number(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5, high=1)),
        context=context,
        rope=gguf_rope(header, arch, context),
        windows=(None,) * n_layers,
        tied_head="lm_head.weight" not in names,
        qkv_bias="model.layers.0.self_attn.q_proj.bias" in names,
        o_bias="model.layers.0.self_attn.o_proj.bias" in names,
        mlp_bias=False,
        qk_norm="model.layers.0.self_attn.q_norm.weight" in names,
    )


def gguf_rope(header: Header, arch: str, context: int) -> Rope:
    """Linear and yarn are in the key-values; that of Llama 3.1 is told by a tensor of factors."""
    theta = float(header.number(f"{arch}.rope.freq_base", 10000.0, low=1e-3, high=1e15))
    kind = header.metadata.get(f"{arch}.rope.scaling.type", "none")
    factor = float(header.number(f"{arch}.rope.scaling.factor", 1.0, low=1, high=1e6))
    original = header.whole(f"{arch}.rope.scaling.original_context_length", context, high=2**30)
    if "rope_freqs.weight" in header.tensors:
        # llama.cpp stores the divisors of Llama 3.1's published scaling; 3.2 uses factor 32, told by its small width.
        factor = 32.0 if header.whole(f"{arch}.embedding_length") <= 3072 else 8.0
        return Rope(theta, "llama3", factor, original_context=8192)
    if kind == "none":
        return Rope(theta)
    if kind not in ("linear", "yarn"):
        raise CheckpointError(f"{header.path}: rope scaling {kind!r:.60} is not known here; expected linear or yarn.")
    return Rope(theta, kind, factor, original_context=original)


def config(header: Header) -> LlamaConfig:
    if header.format == "gguf":
        return gguf_config(header)
    if not is_native(header):
        return hugging_face_config(header)
    # params.json says nothing of the context: Llama 1 had 2048, 2 had 4096, 3 had 8192, 3.1 and later 131072 tokens.
    params = header.config
    context = 8192 if params.get("rope_theta", 0) >= 500000 else 4096 if params.get("norm_eps") == 1e-5 else 2048
    context = 131072 if params.get("use_scaled_rope") else context
    return native_config(header, header.whole("max_seq_len", context, high=2**30))


def names(header: Header) -> tuple[Rename, ...]:
    if header.format == "gguf":
        return gguf_names(interleaved=True)
    if is_native(header):
        return META
    dropped = (Rename(r"lm_head\.weight", None),) if header.config.get("tie_word_embeddings") else ()
    return (*dropped, *HUGGING_FACE)


def match(header: Header) -> bool:
    native = is_native(header) and not is_mistral_native(header)
    return is_hugging_face(header, "llama") or native or is_gguf(header, "llama")


FAMILY = Family("Llama", match, config, names, ("generate", "chat", "score"))
