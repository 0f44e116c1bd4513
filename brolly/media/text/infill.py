"""Fill in the middle: the control tokens by which code models are shown what comes before and after."""

from __future__ import annotations

from brolly.errors import UnsupportedTask
from brolly.media.text.tokenizer import Tokenizer

# (before the prefix, before the suffix, before the middle); the order in which the prompt is read
MARKERS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen 2.5 Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek Coder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
)


def infill(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    """Ids after which a model writes what stands between the two. Raises UnsupportedTask."""
    for marks in MARKERS:
        ids = [tokenizer.token_id(mark) for mark in marks]
        if None in ids:
            continue
        before, after, middle = (i for i in ids if i is not None)
        start = tokenizer.encode("")
        if start and start[-1] == tokenizer.eos_id:
            start = start[:-1]
        texts = (tokenizer.encode(text, special=False, parse_special=False) for text in (prefix, suffix))
        return [*start, before, *next(texts), after, *next(texts), middle]
    raise UnsupportedTask(
        f"This model has no tokens to fill in the middle ({MARKERS[0][0]} and its like); leave suffix out."
    )
