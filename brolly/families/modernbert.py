"""ModernBERT (Warner et al. 2024): rotary positions, most layers looking near only, gated, norms before each half."""

from __future__ import annotations

from collections.abc import Mapping

from brolly.card import Family, Header, Rename
from brolly.configs import Rope, TextEncoderConfig
from brolly.errors import CheckpointError
from brolly.families import encoders, towers


def config(header: Header) -> TextEncoderConfig:
    said = header.config
    found = towers.shapes(header, names(header))
    blocks = encoders.stack(
        header, found, header.whole("num_attention_heads"), said.get("hidden_activation", "gelu"),
        float(header.number("norm_eps", 1e-5, high=1)),
    )  # fmt: skip
    near = near_layers(header, blocks.n_layers)
    ropes = {local: rope(header, local) for local in (True, False)}
    to_a_side = header.whole("local_attention", 128) // 2
    blocks = blocks._replace(
        ropes=tuple(ropes[local] for local in near), windows=tuple(to_a_side if local else None for local in near)
    )
    head = encoders.head(
        header, found, mode=said.get("classifier_pooling", "cls"),
        act=towers.ACTS.get(said.get("classifier_activation", "gelu"), ""),
        dense_bias="head.dense.bias" in found, norm=True, norm_bias="head.norm.bias" in found,
    )  # fmt: skip
    if head and (head.mode not in ("cls", "mean") or not head.act):
        raise CheckpointError(f"{header.path}: its classifier pools by {head.mode!r:.40}; expected cls or mean.")
    return encoders.encoder(header, found, blocks, last_norm=True, head=head)


def near_layers(header: Header, n_layers: int) -> list[bool]:
    """Which layers look near only: layer_types, or all but each third."""
    kinds = header.config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == n_layers:
        return [kind == "sliding_attention" for kind in kinds]
    each = header.whole("global_attn_every_n_layers", 3)
    return [i % each != 0 for i in range(n_layers)]


def rope(header: Header, local: bool) -> Rope:
    """rope_parameters by kind of layer (transformers 5), or a theta of each kind."""
    kind, name, usual = (
        ("sliding_attention", "local_rope_theta", 10000.0) if local else ("full_attention", "global_rope_theta", 16e4)
    )
    said = header.config.get("rope_parameters")
    said = said.get(kind) if isinstance(said, Mapping) else None
    theta = said.get("rope_theta") if isinstance(said, Mapping) else header.config.get(name)
    theta = usual if theta is None else theta
    stretched = isinstance(said, Mapping) and said.get("rope_type", "default") != "default"
    if stretched or type(theta) not in (int, float) or not 1e-3 <= theta <= 1e15:
        raise CheckpointError(f"{header.path}: rotary embedding {said or theta!r:.80}; expected the default kind.")
    return Rope(float(theta))


def names(header: Header) -> tuple[Rename, ...]:
    at = r"(?:model\.)?"
    here, there = rf"{at}layers\.(\d+)\.", r"encoder.layers.\1."
    judges = "classifier.weight" in header.tensors
    return (
        *encoders.behind(header),
        Rename(rf"{at}embeddings\.tok_embeddings\.weight", "embeddings.word.weight"),
        Rename(rf"{at}embeddings\.norm\.(weight|bias)", r"embeddings.norm.\1"),
        Rename(rf"{here}attn_norm\.(weight|bias)", rf"{there}layer_norm1.\2"),
        Rename(rf"{here}attn\.Wqkv\.(weight|bias)", tuple(rf"{there}self_attn.{p}_proj.\2" for p in "qkv")),
        Rename(rf"{here}attn\.Wo\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}mlp_norm\.(weight|bias)", rf"{there}layer_norm2.\2"),
        Rename(rf"{here}mlp\.Wi\.(weight|bias)", (rf"{there}mlp.gate.\2", rf"{there}mlp.fc1.\2")),
        Rename(rf"{here}mlp\.Wo\.(weight|bias)", rf"{there}mlp.fc2.\2"),
        Rename(rf"{at}final_norm\.(weight|bias)", r"final_norm.\1"),
        Rename(r"head\.(dense|norm)\.(weight|bias)", r"head.\1.\2" if judges else None),
        Rename(r"decoder\..*", None),
        Rename(r"classifier\.(weight|bias)", r"head.out.\1"),
    )


def match(header: Header) -> bool:
    return encoders.is_hugging_face(header, ("modernbert",), "layers.0.attn.Wqkv.weight")


FAMILY = Family("ModernBERT", match, config, names, ("embed", "rerank", "classify"))
