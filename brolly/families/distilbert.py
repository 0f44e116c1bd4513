"""DistilBERT (Sanh et al. 2019): BERT without token types, and with names of its own."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import TextEncoderConfig
from brolly.families import encoders, towers


def config(header: Header) -> TextEncoderConfig:
    found = towers.shapes(header, names(header))
    n_heads, act = header.whole("n_heads"), header.config.get("activation", "gelu")
    blocks = encoders.stack(header, found, n_heads, act, 1e-12, post_norm=True)
    return encoders.encoder(header, found, blocks, head=encoders.head(header, found, act="relu"))


def names(header: Header) -> tuple[Rename, ...]:
    at = r"(?:distilbert\.)?"
    here, there = rf"{at}transformer\.layer\.(\d+)\.", r"encoder.layers.\1."
    return (
        *encoders.behind(header),
        *encoders.embeddings(at),
        Rename(rf"{here}attention\.([qkv])_lin\.(weight|bias)", rf"{there}self_attn.\2_proj.\3"),
        Rename(rf"{here}attention\.out_lin\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        Rename(rf"{here}ffn\.lin([12])\.(weight|bias)", rf"{there}mlp.fc\2.\3"),
        *encoders.norm(rf"{here}sa_layer_norm", f"{there}layer_norm1"),
        *encoders.norm(rf"{here}output_layer_norm", f"{there}layer_norm2"),
        Rename(r"vocab_(?:transform|layer_norm|projector)\..*", None),
        Rename(r"pre_classifier\.(weight|bias)", r"head.dense.\1"),
        Rename(r"classifier\.(weight|bias)", r"head.out.\1"),
    )


def match(header: Header) -> bool:
    return encoders.is_hugging_face(header, ("distilbert",), "transformer.layer.0.attention.q_lin.weight")


FAMILY = Family("DistilBERT", match, config, names, ("embed", "rerank", "classify"))
