"""Writes a reference network's weights in the layouts that publishers use. Our own converters, for tests only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

INNER = {
    "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}  # fmt: skip
OUTER = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
GGUF_INNER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.down_proj": "ffn_down", "mlp.up_proj": "ffn_up",
}  # fmt: skip
GGUF_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def weights(reference: Any) -> dict[str, Tensor]:
    """The state dict without a tied head."""
    state = dict(reference.state_dict())
    if reference.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return state


def interleave(weight: Tensor, head_dim: int) -> Tensor:
    """Half-split rotary rows back to pairs, as Meta, Mistral and llama.cpp keep them."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(weight.shape)


def renamed(reference: Any, outer: dict, inner: dict, layer: str, head_dim: int | None) -> dict[str, Tensor]:
    """State dict in another publisher's names; head_dim given: q and k interleaved."""
    out = {}
    for name, tensor in weights(reference).items():
        stem, _, kind = name.rpartition(".")
        if stem in outer:
            new = outer[stem]
        else:
            _, _, index, part = stem.split(".", 3)
            new = layer.format(index) + inner[part]
            if head_dim and part in ("self_attn.q_proj", "self_attn.k_proj"):
                tensor = interleave(tensor, head_dim)
        out[f"{new}.{kind}"] = tensor.contiguous()
    return out


def meta_names(reference: Any, head_dim: int) -> dict[str, Tensor]:
    return renamed(reference, OUTER, INNER, "layers.{}.", head_dim)


def write_meta(folder: Path, reference: Any, params: dict, head_dim: int, n_ranks: int, by_column: bool) -> None:
    """consolidated.NN.pth + params.json; the embedding split by column as in Llama 1 and 2, or by row as in 3."""
    folder.mkdir(parents=True, exist_ok=True)
    ranks: list[dict[str, Tensor]] = [{} for _ in range(n_ranks)]
    for name, tensor in meta_names(reference, head_dim).items():
        column = name.endswith(("wo.weight", "w2.weight")) or (by_column and name.startswith("tok_embeddings"))
        pieces = tensor.chunk(n_ranks, dim=int(column)) if tensor.dim() == 2 else [tensor] * n_ranks
        for rank, piece in zip(ranks, pieces, strict=True):
            rank[name] = piece.clone()
    for i, rank in enumerate(ranks):
        torch.save(rank | {"rope.freqs": torch.ones(4)}, folder / f"consolidated.{i:02d}.pth")
    (folder / "params.json").write_text(json.dumps(params))


def write_mistral(folder: Path, reference: Any, params: dict, head_dim: int) -> None:
    """consolidated.safetensors + params.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(meta_names(reference, head_dim), folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(params))


def write_gguf(path: Path, reference: Any, arch: str, head_dim: int, dtype: str = "F32") -> None:
    """One GGUF file through the `gguf` package, numbers under llama.cpp's keys."""
    import gguf

    c = reference.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    names = renamed(reference, GGUF_OUTER, GGUF_INNER, "blk.{}.", head_dim if arch == "llama" else None)
    for name, tensor in names.items():
        numbers = tensor.float().numpy()
        writer.add_tensor(name, numbers.astype("float16") if dtype == "F16" and tensor.dim() == 2 else numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def older_spelling(folder: Path) -> None:
    """Rewrite a config.json of transformers v5 as v4 spelled it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters", None)
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        kind = rope.pop("rope_type")
        config["rope_scaling"] = None if kind == "default" else {"type": kind, "rope_type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype", "float32")
    config.pop("layer_types", None)
    path.write_text(json.dumps(config))
