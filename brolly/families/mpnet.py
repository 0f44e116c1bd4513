"""MPNet (Song et al. 2020): RoBERTa's network, whose heads also see how far apart two tokens are."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import TextEncoderConfig
from brolly.families import encoders, roberta, towers


def config(header: Header) -> TextEncoderConfig:
    found = towers.shapes(header, names(header))
    return roberta.config_of(header, found, 1e-12)._replace(n_buckets=found["relative_bias.table.weight"][0])


def names(header: Header) -> tuple[Rename, ...]:
    at = r"(?:mpnet\.)?"
    here, there = rf"{at}encoder\.layer\.(\d+)\.attention\.", r"encoder.layers.\1."
    return (
        *encoders.behind(header),
        *encoders.embeddings(at),
        Rename(rf"{here}attn\.([qkv])\.(weight|bias)", rf"{there}self_attn.\2_proj.\3"),
        Rename(rf"{here}attn\.o\.(weight|bias)", rf"{there}self_attn.out_proj.\2"),
        *encoders.norm(rf"{here}LayerNorm", f"{there}layer_norm1"),
        *encoders.blocks(at),
        Rename(rf"{at}encoder\.relative_attention_bias\.weight", "relative_bias.table.weight"),
        Rename(rf"lm_head\..*|{at}pooler\..*", None),
        *encoders.TWO_LAYER_HEAD,
    )


def match(header: Header) -> bool:
    return encoders.is_hugging_face(header, ("mpnet",), "encoder.layer.0.attention.attn.q.weight")


FAMILY = Family("MPNet", match, config, names, ("embed", "rerank", "classify"))
