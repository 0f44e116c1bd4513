"""llama2.c's `.bin`: seven int32, then float32 tensors in a fixed order, under Meta's names with interleaved rotary."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

from brolly.card import TensorInfo
from brolly.checkpoint.bounded import exactly, opened
from brolly.errors import CheckpointError
from brolly.place import Where

FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
LIMITS = (2**16, 2**18, 1000, 1024, 1024, 2**20, 2**24)


def read_llama2c(path: Where) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    """Tensors and a config like params.json. Raises CheckpointError."""
    with opened(path) as (file, size):
        if size < 28:
            raise CheckpointError(f"{path} has {size} bytes; a llama2.c file begins with seven numbers (28 bytes).")
        numbers = struct.unpack("<7i", exactly(file, 28, path))
    if numbers[0] == 0x616B3432:
        raise CheckpointError(
            f"{path} is a llama2.c file of version {numbers[1]}; export it as version 0 or as safetensors."
        )
    config: dict[str, Any] = dict(zip(FIELDS, numbers, strict=True))
    tied, config["vocab_size"] = config["vocab_size"] > 0, abs(config["vocab_size"])
    for key, limit in zip(FIELDS, LIMITS, strict=True):
        if not 0 < config[key] <= limit:
            raise CheckpointError(f"{path} is no llama2.c file: it says {key} = {config[key]}; expected 1 to {limit}.")
    if config["dim"] % config["n_heads"] or config["n_heads"] % config["n_kv_heads"]:
        raise CheckpointError(
            f"{path} is no llama2.c file: {config['dim']} is not shared by {config['n_heads']} heads."
        )
    tensors: dict[str, TensorInfo] = {}
    offset = 28
    for name, shape in _order(config, tied):
        nbytes = 4 * prod(shape)
        if name:
            tensors[name] = TensorInfo(name, "F32", shape, path, offset, nbytes)
        offset += nbytes
    if offset != size:
        raise CheckpointError(f"{path} has {size} bytes; a llama2.c file of this shape has {offset}.")
    return tensors, config | {"norm_eps": 1e-5, "rope_theta": 10000.0}


def _order(c: dict[str, Any], tied: bool) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes as they lie in the file; an empty name is a rotary table that nobody needs."""
    dim, hidden, head_dim = c["dim"], c["hidden_dim"], c["dim"] // c["n_heads"]
    kv_dim = c["n_kv_heads"] * head_dim
    each = (
        ("attention_norm", (dim,)), ("attention.wq", (dim, dim)), ("attention.wk", (kv_dim, dim)),
        ("attention.wv", (kv_dim, dim)), ("attention.wo", (dim, dim)), ("ffn_norm", (dim,)),
        ("feed_forward.w1", (hidden, dim)), ("feed_forward.w2", (dim, hidden)), ("feed_forward.w3", (hidden, dim)),
    )  # fmt: skip
    rows: list[tuple[str, tuple[int, ...]]] = [("tok_embeddings.weight", (c["vocab_size"], dim))]
    for part, shape in each:
        rows += [(f"layers.{i}.{part}.weight", shape) for i in range(c["n_layers"])]
    rows += [("norm.weight", (dim,)), ("", (c["max_seq_len"], head_dim // 2)), ("", (c["max_seq_len"], head_dim // 2))]
    return rows if tied else [*rows, ("output.weight", (c["vocab_size"], dim))]
