"""What a config computes: one architecture a file, no formats, no I/O."""

from __future__ import annotations

from typing import Any

from torch import nn

from brolly.configs import (
    CLIPConfig,
    GPT2Config,
    ImageEncoderConfig,
    LlamaConfig,
    LlamaTextsConfig,
    TextEncoderConfig,
    WhisperConfig,
)


def build(config: Any) -> nn.Module:
    """The network of a config, with its parameters unfilled; call it under torch.device("meta") to allocate nothing."""
    match config:
        case LlamaConfig():
            from brolly.models.llama import Llama

            return Llama(config)
        case GPT2Config():
            from brolly.models.gpt2 import GPT2

            return GPT2(config)
        case CLIPConfig():
            from brolly.models.clip import CLIP

            return CLIP(config)
        case ImageEncoderConfig():
            from brolly.models.vision import ImageEncoder

            return ImageEncoder(config)
        case WhisperConfig():
            from brolly.models.whisper import Whisper

            return Whisper(config)
        case LlamaTextsConfig():
            from brolly.models.llama_texts import LlamaTexts

            return LlamaTexts(config)
        case TextEncoderConfig():
            from brolly.models.bert import TextEncoder

            return TextEncoder(config)
    raise AssertionError(f"no network for {type(config).__name__}")
