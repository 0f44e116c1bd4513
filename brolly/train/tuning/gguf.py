"""A LoRA as llama.cpp's own file (--lora): GGUF with general.type = adapter, and a pair of tensors a layer."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly import hub, models
from brolly.card import Header, Recognised
from brolly.checkpoint import Mapped
from brolly.checkpoint.safetensors import write_whole
from brolly.errors import CheckpointError, RecipeError
from brolly.families.peft import read_lora
from brolly.fill import check_base, table_shapes, view
from brolly.identity import examine

ALIGNMENT, UINT32, FLOAT32, STRING, F32 = 32, 4, 6, 8, 0
# what llama.cpp calls the modules of a block
LLAMA = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
GPT2 = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
INTERLEAVED = ("Llama", "Mistral", "SmolLM", "TinyLlama")  # whose queries and keys llama.cpp orders by pairs


def write_gguf(model: str | Path, adapter: Any, *, out: str | Path) -> Path:
    """Write an adapter as one .gguf file. Raises NotFound, CheckpointError, RecipeError, DiskFull."""
    path = Path(out).expanduser()
    path = path if path.suffix == ".gguf" else path / "adapter.gguf"
    if path.exists():
        raise RecipeError(f"{path} is there already; give another --out.")
    base = examine(hub.resolve(model)).recognised
    folder = Path(hub.resolve(getattr(adapter, "path", adapter)))
    with torch.device("meta"):
        network = models.build(base.config)
    linear = {n: (m.out_features, m.in_features) for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    lora = read_lora(folder, base, linear, table_shapes(network))
    check_base(lora.header, base)
    if lora.rows:
        raise CheckpointError(
            f"{folder} has rows of its own for some tokens, which GGUF's adapters lack; merge it instead."
        )
    tensors: list[tuple[str, Tensor]] = []
    alphas = set()
    with Mapped(lora.header) as mapped:
        for module, pair in lora.pairs.items():
            if pair.magnitude is not None:
                raise CheckpointError(f"{folder} is a DoRA, which llama.cpp's adapters cannot hold; merge it instead.")
            name = named(module, base)
            a, b = view(mapped, pair.a).float(), view(mapped, pair.b).float()
            if base.family.name in INTERLEAVED and name.endswith(("attn_q", "attn_k")):
                b = by_pairs(b, base.config.head_dim)
            tensors += [(f"{name}.weight.lora_a", a.contiguous()), (f"{name}.weight.lora_b", b.contiguous())]
            alphas.add(round(pair.scale * pair.a.shape[0], 6))  # llama.cpp divides by the rank again
        if len(alphas) > 1:
            raise CheckpointError(f"{folder} has several alphas, and a GGUF adapter one for all; merge it instead.")
        path.parent.mkdir(parents=True, exist_ok=True)
        settings: list[tuple[str, int, Any]] = [
            ("general.type", STRING, "adapter"), ("general.architecture", STRING, architecture(base)),
            ("general.name", STRING, folder.name), ("adapter.type", STRING, "lora"),
            ("adapter.lora.alpha", FLOAT32, alphas.pop()), ("general.alignment", UINT32, ALIGNMENT),
        ]  # fmt: skip
        data = list(written(settings, tensors))
        write_whole(path, lambda: data, sum(map(len, data)))
    return path


def architecture(base: Recognised) -> str:
    """llama.cpp's word. Raises CheckpointError."""
    words = {"LlamaConfig": None, "GPT2Config": "gpt2"}
    kind, header = type(base.config).__name__, base.header
    if kind not in words:
        raise CheckpointError(f"{header.path} is a {base.family.name}; GGUF adapters are written for language models.")
    told = told_by(header)
    return words[kind] or ("llama" if base.family.name in INTERLEAVED else told)


def told_by(header: Header) -> str:
    said = header.metadata.get("general.architecture") or header.config.get("model_type")
    return said if isinstance(said, str) else "llama"


def named(module: str, base: Recognised) -> str:
    """A module's tensor in GGUF. Raises CheckpointError."""
    table = GPT2 if type(base.config).__name__ == "GPT2Config" else LLAMA
    parts = module.removeprefix("model.layers.").removeprefix("h.").split(".", 1)
    if len(parts) != 2 or not parts[0].isdigit() or parts[1] not in table:
        raise CheckpointError(f"{base.header.path}: {module} has no name in GGUF; merge the adapter instead.")
    return f"blk.{parts[0]}.{table[parts[1]]}"


def by_pairs(b: Tensor, head_dim: int) -> Tensor:
    """Rows (0, D/2), (1, D/2 + 1) … of each head to interleaved rotary pairs, as llama.cpp keeps a Llama's."""
    return b.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(b.shape)


def written(settings: list[tuple[str, int, Any]], tensors: list[tuple[str, Tensor]]) -> Iterable[bytes]:
    """GGUF version 3: settings, where each tensor lies, then the tensors, each on a multiple of 32 bytes."""
    head = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(settings))]
    for key, kind, value in settings:
        packed = text(value) if kind == STRING else struct.pack("<f" if kind == FLOAT32 else "<I", value)
        head.append(text(key) + struct.pack("<I", kind) + packed)
    offset = 0
    for name, tensor in tensors:
        shape = tensor.shape[::-1]
        head.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, F32, offset))
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    raw = b"".join(head)
    yield raw + bytes(-len(raw) % ALIGNMENT)
    for _, tensor in tensors:
        body = tensor.numpy().tobytes()
        yield body + bytes(-len(body) % ALIGNMENT)


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw
