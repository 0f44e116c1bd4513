"""Nomic Embed (Nussbaum et al. 2024): BERT with rotary positions, SwiGLU and no biases, in Nomic's and Hugging Face's
layout."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import Rope, TextEncoderConfig
from brolly.errors import CheckpointError
from brolly.families import encoders, gguf_encoders, towers


def config(header: Header) -> TextEncoderConfig:
    if header.format == "gguf":
        return gguf_encoders.config(header, "silu")
    said = header.config
    found = towers.shapes(header, names(header))
    if "n_embd" not in said:
        return encoders.rotary(header, found, "silu", 1000.0)
    if said.get("prenorm") or said.get("rotary_emb_fraction", 1.0) != 1.0 or said.get("rotary_emb_interleaved"):
        raise CheckpointError(f"{header.path} is not built as Nomic's published encoders are, and cannot be run.")
    theta = float(header.number("rotary_emb_base", 1000.0, low=1e-3, high=1e15))
    turns, stretch = Rope(theta), said.get("rotary_scaling_factor")
    if stretch:
        factor = float(header.number("rotary_scaling_factor", low=1, high=1e6))
        turns = Rope(theta, "dynamic", factor, original_context=header.whole("max_trained_positions", 2048))
    eps = float(header.number("layer_norm_epsilon", 1e-12, high=1))
    blocks = encoders.stack(header, found, header.whole("n_head"), "silu", eps, post_norm=True)
    blocks = blocks._replace(ropes=(turns,) * blocks.n_layers)
    longest = header.whole("n_positions", 8192)
    return encoders.encoder(header, found, blocks, longest=longest, head=encoders.head(header, found))


def names(header: Header) -> tuple[Rename, ...]:
    if header.format == "gguf":
        return gguf_encoders.names()
    at = r"(?:nomic_bert\.|bert\.)?"
    here, there = rf"{at}encoder\.layers\.(\d+)\.", r"encoder.layers.\1."
    return (
        *encoders.rotary_names(header, at),
        *encoders.embeddings(at),
        Rename(rf"{at}emb_ln\.(weight|bias)", r"embeddings.norm.\1"),
        Rename(rf"{here}attn\.Wqkv\.(weight|bias)", tuple(rf"{there}self_attn.{p}_proj.\2" for p in "qkv")),
        Rename(rf"{here}attn\.out_proj\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}mlp\.fc11\.(weight|bias)", rf"{there}mlp.fc1.\2"),
        Rename(rf"{here}mlp\.fc12\.(weight|bias)", rf"{there}mlp.gate.\2"),
        Rename(rf"{here}mlp\.fc2\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        Rename(rf"{here}norm([12])\.(weight|bias)", rf"{there}layer_norm\2.\3"),
        Rename(r"cls\..*", None),
    )


def match(header: Header) -> bool:
    nomic = "encoder.layers.0.mlp.fc11.weight", "layers.0.mlp.up_proj.weight"
    hugging_face = any(encoders.is_hugging_face(header, ("nomic_bert",), name) for name in nomic)
    return hugging_face or gguf_encoders.matches(header, "nomic-bert")


FAMILY = Family("Nomic Embed", match, config, names, ("embed", "rerank", "classify"))
