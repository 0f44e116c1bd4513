"""RoBERTa (Liu et al. 2019): BERT whose positions begin behind the padding's, with a two-layer classifier."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import TextEncoderConfig
from brolly.families import bert, encoders, towers
from brolly.families.towers import Shapes


def config(header: Header) -> TextEncoderConfig:
    return config_of(header, towers.shapes(header, names(header)), 1e-5)


def config_of(header: Header, found: Shapes, norm_eps: float) -> TextEncoderConfig:
    blocks = encoders.stack(
        header, found, header.whole("num_attention_heads"), header.config.get("hidden_act", "gelu"),
        float(header.number("layer_norm_eps", norm_eps, high=1)), post_norm=True,
    )  # fmt: skip
    first = int(header.number("pad_token_id", 1)) + 1
    return encoders.encoder(header, found, blocks, first_position=first, head=encoders.head(header, found))


def names(header: Header) -> tuple[Rename, ...]:
    at = r"(?:roberta\.)?"
    return (
        *encoders.behind(header),
        *encoders.embeddings(at),
        *encoders.blocks(at),
        Rename(rf"lm_head\..*|{at}pooler\..*", None),
        *encoders.TWO_LAYER_HEAD,
    )


def match(header: Header) -> bool:
    return encoders.is_hugging_face(header, ("roberta",), bert.QUERY)


FAMILY = Family("RoBERTa", match, config, names, ("embed", "rerank", "classify"))
