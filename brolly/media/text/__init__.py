"""Text to token ids and back: tokenizers of every published kind, byte-correct streaming, chat templates. No torch."""

from __future__ import annotations

from brolly.media.text.load import load_tokenizer
from brolly.media.text.prompts import Prompts, prompts_of
from brolly.media.text.stream import TextStream
from brolly.media.text.template import ChatTemplate
from brolly.media.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Prompts", "TextStream", "Tokenizer", "load_tokenizer", "prompts_of"]
