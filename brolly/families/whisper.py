"""Whisper (Radford et al. 2022), distil-whisper and turbo: Hugging Face's, OpenAI's and whisper.cpp's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from brolly.card import Family, Header, Rename
from brolly.configs import StackConfig, WhisperConfig
from brolly.errors import CheckpointError

EPS = 1e-5
ACTS = ("gelu", "relu", "silu", "quick_gelu")
ENCODER = {"layer_norm1": "attn_ln", "layer_norm2": "mlp_ln", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}
DECODER = {
    "self_attn_layer_norm": "attn_ln", "encoder_attn_layer_norm": "cross_attn_ln", "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0", "fc2": "mlp.2",
}  # fmt: skip
PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
ATTENTIONS = {"self_attn": "attn", "encoder_attn": "cross_attn"}
PARTS = {f"{new}.{p}": f"{old}.{q}" for new, old in ATTENTIONS.items() for p, q in PROJECTIONS.items()}


def rows(tower: str, parts: Mapping[str, str]) -> tuple[Rename, ...]:
    """OpenAI's names of a tower's blocks."""
    blocks = {"encoder": "encoder.blocks.layers", "decoder": "decoder.layers"}[tower]
    return tuple(
        Rename(rf"{tower}\.blocks\.(\d+)\.{re.escape(old)}\.(weight|bias)", rf"{blocks}.\1.{new}.\2")
        for new, old in parts.items()
    )


OPENAI = (
    *rows("encoder", ENCODER | PARTS),
    *rows("decoder", DECODER | PARTS),
    Rename(r"(encoder|decoder)\.positional_embedding", r"\1.embed_positions.weight"),
    Rename(r"decoder\.token_embedding\.weight", "decoder.embed_tokens.weight"),
    Rename(r"(encoder)\.ln_post\.(weight|bias)", r"\1.layer_norm.\2"),
    Rename(r"(decoder)\.ln\.(weight|bias)", r"\1.layer_norm.\2"),
    Rename(r"(encoder\.conv[12]\.bias)", r"\1", "reshape"),  # ggml keeps a column
)
BLOCK = r"encoder\.layers\.(\d+)\."
HUGGING_FACE = (
    Rename(rf"(?:model\.)?{BLOCK}self_attn_layer_norm(.*)", r"encoder.blocks.layers.\1.layer_norm1\2"),
    Rename(rf"(?:model\.)?{BLOCK}final_layer_norm(.*)", r"encoder.blocks.layers.\1.layer_norm2\2"),
    Rename(rf"(?:model\.)?{BLOCK}(fc[12]\..*)", r"encoder.blocks.layers.\1.mlp.\2"),
    Rename(rf"(?:model\.)?{BLOCK}(.*)", r"encoder.blocks.layers.\1.\2"),
    Rename(r"model\.(.*)", r"\1"),
)


def names(header: Header) -> tuple[Rename, ...]:
    if dims(header):
        return OPENAI
    tied = header.config.get("tie_word_embeddings", True)
    return (*HUGGING_FACE, *((Rename(r"proj_out\.weight", None),) if tied else ()))


def dims(header: Header) -> Mapping[str, Any] | None:
    """OpenAI's ModelDimensions, of a `.pt` or of a ggml file."""
    values = header.metadata.get("values") if header.format == "torch" else None
    found = values.get("dims") if isinstance(values, Mapping) else header.config if header.format == "ggml" else None
    return found if isinstance(found, Mapping) and "n_audio_state" in found else None


def config(header: Header) -> WhisperConfig:
    said = dims(header)
    if said is not None:
        return openai(header._replace(config=said, metadata={}))
    act = header.config.get("activation_function", "gelu")
    if act not in ACTS:
        raise CheckpointError(f"{header.path}: activation_function is {act!r:.60}; expected one of {', '.join(ACTS)}.")
    dim, whole = header.whole("d_model", high=2**16), header.whole
    blocks = StackConfig(
        dim, whole("encoder_layers", high=10000), whole("encoder_attention_heads"), whole("encoder_ffn_dim"), EPS, act,
        k_bias=False,
    )  # fmt: skip
    return WhisperConfig(
        encoder=blocks,
        n_mels=whole("num_mel_bins", 80),
        audio_context=whole("max_source_positions", 1500),
        vocab_size=whole("vocab_size", high=2**24),
        context=whole("max_target_positions", 448),
        n_layers=whole("decoder_layers", high=10000),
        n_heads=whole("decoder_attention_heads"),
        hidden_dim=whole("decoder_ffn_dim"),
        tied_head=header.config.get("tie_word_embeddings", True) is not False,
    )


def openai(header: Header) -> WhisperConfig:
    """Of ModelDimensions as config; a hidden layer is four times as wide as its input."""
    whole = header.whole
    dim = whole("n_text_state", high=2**16)
    blocks = StackConfig(
        dim, whole("n_audio_layer", high=10000), whole("n_audio_head"), 4 * dim, EPS, "gelu", k_bias=False
    )
    return WhisperConfig(
        encoder=blocks,
        n_mels=whole("n_mels"),
        audio_context=whole("n_audio_ctx"),
        vocab_size=whole("n_vocab", high=2**24),
        context=whole("n_text_ctx"),
        n_layers=whole("n_text_layer", high=10000),
        n_heads=whole("n_text_head"),
        hidden_dim=4 * dim,
    )


def match(header: Header) -> bool:
    if header.config.get("model_type") == "whisper":
        return any(name.removeprefix("model.") == "decoder.embed_positions.weight" for name in header.tensors)
    return dims(header) is not None and "decoder.token_embedding.weight" in header.tensors


FAMILY = Family("Whisper", match, config, names, ("transcribe",))
