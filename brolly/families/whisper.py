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
    found = hugging_face(header) if said is None else openai(header._replace(config=said))
    for part, n_heads in (("encoder", found.encoder.n_heads), ("decoder", found.n_heads)):
        if found.dim % n_heads:
            raise CheckpointError(f"{header.path}: the {part} has {n_heads} heads, which do not divide {found.dim}.")
    return found


def hugging_face(header: Header) -> WhisperConfig:
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


# The (layer, head)s whose looks follow the sound, as OpenAI published them for its models, told apart by their shape:
# decoder layers, heads, tokens. Large v1 has the shape of v2, which is the later and the commoner.
HEADS = {
    (4, 6, 51864): "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    (4, 6, 51865): "2.2 3.0 3.2 3.3 3.4 3.5",
    (6, 8, 51864): "3.3 4.7 5.1 5.5 5.7",
    (6, 8, 51865): "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    (12, 12, 51864): "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    (12, 12, 51865): "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    (
        24,
        16,
        51864,
    ): "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    (24, 16, 51865): "13.15 15.4 15.15 16.1 20.0 23.4",
    (32, 20, 51865): "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 23.5 "
    "23.7 23.13 25.5 26.1 26.12 27.15",
    (32, 20, 51866): "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
    (4, 20, 51866): "2.4 2.11 3.3 3.6 3.11 3.14",
}


def alignment_heads(config: WhisperConfig, said: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The (layer, head)s that tell a word's time: generation_config's (`said`), the published, or the last half's."""
    listed = said.get("alignment_heads")
    if isinstance(listed, list) and listed:
        pairs = [tuple(p) for p in listed if isinstance(p, list) and [type(n) for n in p] == [int, int]]
        if len(pairs) == len(listed) and all(0 <= p[0] < config.n_layers and 0 <= p[1] < config.n_heads for p in pairs):
            return tuple(dict.fromkeys((layer, head) for layer, head in pairs))
        raise CheckpointError(
            f"generation_config.json: alignment_heads is {listed!r:.60}; expected pairs of one of {config.n_layers} "
            f"layers and one of {config.n_heads} heads."
        )
    if published := HEADS.get((config.n_layers, config.n_heads, config.vocab_size)):
        return tuple((int(layer), int(head)) for layer, head in (pair.split(".") for pair in published.split()))
    return tuple((i, head) for i in range(config.n_layers // 2, config.n_layers) for head in range(config.n_heads))


FAMILY = Family("Whisper", match, config, names, ("transcribe",))
