"""Writes a transformers Whisper's weights as OpenAI and whisper.cpp do. Our own converters, for tests only."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brolly.media.audio.mel import filters

PARTS = {
    "self_attn_layer_norm": "attn_ln", "self_attn": "attn", "encoder_attn_layer_norm": "cross_attn_ln",
    "encoder_attn": "cross_attn", "final_layer_norm": "mlp_ln", "fc1": "mlp.0", "fc2": "mlp.2",
    "q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out",
}  # fmt: skip


def openai_names(reference: Any) -> dict[str, Tensor]:
    """The weights in OpenAI's names."""
    found = {}
    for name, tensor in reference.state_dict().items():
        if name == "proj_out.weight":
            continue
        name = name.removeprefix("model.").replace("embed_tokens", "token_embedding").replace(".layers.", ".blocks.")
        name = name.replace("embed_positions.weight", "positional_embedding")
        name = name.replace("encoder.layer_norm", "encoder.ln_post").replace("decoder.layer_norm", "decoder.ln")
        matched = re.fullmatch(r"(\w+\.blocks\.\d+)\.(.*)\.(weight|bias)", name)
        if matched:
            parts = ".".join(PARTS[part] for part in matched[2].split("."))
            name = f"{matched[1]}.{parts}.{matched[3]}"
        found[name] = tensor.detach().clone()
    return found


def dims(config: Any) -> dict[str, int]:
    """ModelDimensions of a transformers config."""
    return {
        "n_mels": config.num_mel_bins, "n_audio_ctx": config.max_source_positions, "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads, "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size, "n_text_ctx": config.max_target_positions, "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads, "n_text_layer": config.decoder_layers,
    }  # fmt: skip


def write_openai(path: Path, reference: Any, dtype: torch.dtype = torch.float32) -> None:
    """{"dims", "model_state_dict"}."""
    state = {name: tensor.to(dtype) for name, tensor in openai_names(reference).items()}
    torch.save({"dims": dims(reference.config), "model_state_dict": state}, path)


def write_ggml(path: Path, reference: Any, words: Sequence[bytes], half: bool = True) -> None:
    """whisper.cpp's file: numbers, mel filters, words, then tensors, matrices in F16 where `half`."""
    numbers, bands = dims(reference.config), filters(reference.config.num_mel_bins)
    order = ("n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_text_ctx", "n_text_state",
             "n_text_head", "n_text_layer", "n_mels")  # fmt: skip
    with path.open("wb") as file:
        file.write(b"lmgg" + struct.pack("<11i", *(numbers[name] for name in order), int(half)))
        file.write(struct.pack("<2i", *bands.shape) + bands.tobytes())
        file.write(struct.pack("<i", len(words)))
        for word in words:
            file.write(struct.pack("<i", len(word)) + word)
        for name, tensor in openai_names(reference).items():
            if re.fullmatch(r"encoder\.conv\d\.bias", name):
                tensor = tensor[:, None]
            small = half and tensor.dim() > 1 and tensor.shape[-1] > 1 and "positional" not in name
            data = tensor.contiguous().to(torch.float16 if small else torch.float32).numpy().tobytes()
            shape = tensor.shape[::-1]
            file.write(struct.pack(f"<3i{len(shape)}i", len(shape), len(name), int(small), *shape))
            file.write(name.encode() + data)
