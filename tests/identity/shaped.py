"""Headers of models of any size without files: the names and shapes that a publisher's checkpoint has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from brolly.card import BITS, Header, TensorInfo
from brolly.errors import CheckpointError
from brolly.identity.subject import Subject

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]


def tensors_of(shapes: Shapes, path: Path = Path("model.safetensors")) -> dict[str, TensorInfo]:
    out, at = {}, 0
    for name, (dtype, shape) in shapes.items():
        size = prod(shape) * BITS.get(dtype, 8) // 8
        out[name] = TensorInfo(name, dtype, shape, path, at, size)
        at += size
    return out


def subject_of(
    folder: Path, config: Mapping[str, Any], shapes: Shapes, form: str = "safetensors",
    metadata: Mapping[str, Any] | None = None, faults: list[CheckpointError] | None = None, **beside: Any,
) -> Subject:  # fmt: skip
    """A subject whose header holds these tensors; `beside` are JSON files by their name without ".json"."""
    for name, value in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    path = folder / "model.safetensors"
    header = Header(folder, form, tensors_of(shapes, path), config, metadata or {}, (path,) if shapes else ())
    return Subject(folder, header, faults or [])


def llama(
    dim: int, layers: int, kv: int, hidden: int, vocab: int, tied: bool = False, dtype: str = "BF16"
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """A Llama in Hugging Face's names, unpacked."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": (dtype, (vocab, dim))}
    for i in range(layers):
        for name, shape in {
            "input_layernorm": (dim,), "post_attention_layernorm": (dim,), "self_attn.q_proj": (dim, dim),
            "self_attn.k_proj": (kv, dim), "self_attn.v_proj": (kv, dim), "self_attn.o_proj": (dim, dim),
            "mlp.gate_proj": (hidden, dim), "mlp.up_proj": (hidden, dim), "mlp.down_proj": (dim, hidden),
        }.items():  # fmt: skip
            out[f"model.layers.{i}.{name}.weight"] = (dtype, shape)
    out["model.norm.weight"] = (dtype, (dim,))
    return out if tied else {**out, "lm_head.weight": (dtype, (vocab, dim))}


def packed_linear(
    shapes: Mapping[str, tuple[str, tuple[int, ...]]], pack: Any
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The same model with its linear layers packed: `pack` maps (stem, out, in) to the tensors that stand for one."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in shapes.items():
        if "_proj" in name:
            out |= pack(name.removesuffix(".weight"), *shape)
        else:
            out[name] = (dtype, shape)
    return out
