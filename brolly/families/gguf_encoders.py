"""Encoders of text in GGUF files: llama.cpp's names, and its numbers under its keys."""

from __future__ import annotations

from brolly.card import Header, Rename
from brolly.configs import PoolConfig, Rope, TextEncoderConfig
from brolly.errors import CheckpointError
from brolly.families import encoders, towers

POOLING = {1: "mean", 2: "cls", 3: "lasttoken"}  # its pooling_type; 0 is none, 4 a judge's


def matches(header: Header, arch: str) -> bool:
    return header.format == "gguf" and header.metadata.get("general.architecture") == arch


def config(header: Header, act: str) -> TextEncoderConfig:
    """BERT's shape, with rotary positions where the file tells of them."""
    arch, found = header.metadata["general.architecture"], towers.shapes(header, names())
    eps = float(header.number(f"{arch}.attention.layer_norm_epsilon", 1e-12, high=1))
    blocks = encoders.stack(header, found, header.whole(f"{arch}.attention.head_count"), act, eps, post_norm=True)
    if "embeddings.position.weight" not in found:
        turns = Rope(float(header.number(f"{arch}.rope.freq_base", 10000.0, low=1e-3, high=1e15)))
        blocks = blocks._replace(ropes=(turns,) * blocks.n_layers)
    kind = header.metadata.get(f"{arch}.pooling_type", 1)
    if kind not in POOLING and "head.out.weight" not in found:
        raise CheckpointError(f"{header.path}: it pools by {kind!r:.40}; expected one of {sorted(POOLING)}.")
    return encoders.encoder(
        header, found, blocks, longest=header.whole(f"{arch}.context_length", high=2**30),
        pool=PoolConfig((POOLING.get(kind, "mean"),)), head=encoders.head(header, found),
    )  # fmt: skip


def names() -> tuple[Rename, ...]:
    here, there = r"blk\.(\d+)\.", r"encoder.layers.\1."
    return (
        Rename(r"token_embd\.weight", "embeddings.word.weight"),
        Rename(r"position_embd\.weight", "embeddings.position.weight"),
        Rename(r"token_types\.weight", "embeddings.token_type.weight"),
        Rename(r"token_embd_norm\.(weight|bias)", r"embeddings.norm.\1"),
        Rename(rf"{here}attn_([qkv])\.(weight|bias)", rf"{there}self_attn.\2_proj.\3"),
        Rename(rf"{here}attn_qkv\.(weight|bias)", tuple(rf"{there}self_attn.{p}_proj.\2" for p in "qkv")),
        Rename(rf"{here}attn_output\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}attn_output_norm\.(weight|bias)", rf"{there}layer_norm1.\2"),
        Rename(rf"{here}layer_output_norm\.(weight|bias)", rf"{there}layer_norm2.\2"),
        Rename(rf"{here}ffn_up\.(weight|bias)", rf"{there}mlp.fc1.\2"),
        Rename(rf"{here}ffn_gate\.(weight|bias)", rf"{there}mlp.gate.\2"),
        Rename(rf"{here}ffn_down\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        Rename(r"cls\.(weight|bias)", r"head.dense.\1"),
        Rename(r"cls\.output\.(weight|bias)", r"head.out.\1"),
    )
