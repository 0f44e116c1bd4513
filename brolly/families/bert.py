"""BERT (Devlin et al. 2018): what MiniLM, BGE, E5, GTE and most embedders and rerankers of texts are built on."""

from __future__ import annotations

from brolly.card import Family, Header, Rename
from brolly.configs import TextEncoderConfig
from brolly.errors import CheckpointError
from brolly.families import encoders, gguf_encoders, towers

QUERY = "encoder.layer.0.attention.self.query.weight"


def config(header: Header) -> TextEncoderConfig:
    if header.format == "gguf":
        return gguf_encoders.config(header, "gelu")
    places = header.config.get("position_embedding_type", "absolute")
    if places != "absolute" or header.config.get("is_decoder"):
        raise CheckpointError(
            f"{header.path}: a BERT of {places!r:.40} positions or a decoder's; expected absolute ones."
        )
    found = towers.shapes(header, names(header))
    blocks = encoders.stack(
        header, found, header.whole("num_attention_heads"), header.config.get("hidden_act", "gelu"),
        float(header.number("layer_norm_eps", 1e-12, high=1)), post_norm=True,
    )  # fmt: skip
    return encoders.encoder(header, found, blocks, head=encoders.head(header, found))


def names(header: Header) -> tuple[Rename, ...]:
    if header.format == "gguf":
        return gguf_encoders.names()
    at = r"(?:bert\.)?"
    judges = "classifier.weight" in header.tensors
    return (
        *encoders.behind(header),
        *encoders.embeddings(at),
        *encoders.blocks(at),
        Rename(r"cls\..*", None),  # what it was trained with
        Rename(rf"{at}pooler\.dense\.(weight|bias)", r"head.dense.\1" if judges else None),
        Rename(r"classifier\.(weight|bias)", r"head.out.\1"),
    )


def match(header: Header) -> bool:
    return encoders.is_hugging_face(header, ("bert",), QUERY) or gguf_encoders.matches(header, "bert")


FAMILY = Family("BERT", match, config, names, ("embed", "rerank", "classify"))
