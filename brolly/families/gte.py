"""GTE (Zhang et al. 2024): BERT with rotary positions and a gate, in Alibaba's layout ("new") and Hugging Face's."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import Rope, TextEncoderConfig
from brolly.errors import CheckpointError
from brolly.families import encoders, towers


def config(header: Header) -> TextEncoderConfig:
    usual = {"position_embedding_type": "rope", "layer_norm_type": "layer_norm", "logn_attention_scale": False}
    if odd := next((key for key, value in usual.items() if header.config.get(key, value) != value), None):
        raise CheckpointError(f"{header.path}: its {odd} is {header.config[odd]!r:.40}; expected {usual[odd]!r}.")
    found = towers.shapes(header, names(header))
    made = encoders.rotary(header, found, "gelu", 160000.0)
    said = header.config.get("rope_scaling")
    if not isinstance(said, dict) or "rope_parameters" in header.config:
        return made
    if said.get("type") != "ntk" or said.get("mixed_b") is not None:
        raise CheckpointError(f"{header.path}: its rope scaling is {said!r:.80}; expected the type 'ntk'.")
    factor = float(header.number("rope_scaling.factor", low=1, high=1e6))
    theta = float(header.number("rope_theta", 10000.0, low=1e-3, high=1e15))
    # a larger base, and then all waves a little slower (Su 2023, "NTK-aware")
    turns = Rope(theta * factor, "linear", factor ** (2 / made.stack.head_dim))
    return made._replace(stack=made.stack._replace(ropes=(turns,) * made.stack.n_layers))


def names(header: Header) -> tuple[Rename, ...]:
    at = r"(?:new\.|gte\.)?"
    here, there = rf"{at}encoder\.layer\.(\d+)\.", r"encoder.layers.\1."
    return (
        *encoders.rotary_names(header, at),
        *encoders.embeddings(at),
        Rename(rf"{here}attention\.qkv_proj\.(weight|bias)", tuple(rf"{there}self_attn.{p}_proj.\2" for p in "qkv")),
        Rename(rf"{here}attention\.o_proj\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}mlp\.up_gate_proj\.(weight|bias)", (rf"{there}mlp.fc1.\2", rf"{there}mlp.gate.\2")),
        Rename(rf"{here}mlp\.down_proj\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        Rename(rf"{here}attn_ln\.(weight|bias)", rf"{there}layer_norm1.\2"),
        Rename(rf"{here}mlp_ln\.(weight|bias)", rf"{there}layer_norm2.\2"),
        Rename(r"lm_head\..*", None),
    )


def match(header: Header) -> bool:
    gte = "encoder.layer.0.mlp.up_gate_proj.weight", "layers.0.mlp.up_proj.weight"
    return any(encoders.is_hugging_face(header, ("new", "gte"), name) for name in gte)


FAMILY = Family("GTE", match, config, names, ("embed", "rerank", "classify"))
