"""OpenAI's /images: pictures of a text, and pictures changed as a text says."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import BadAnswer, MediaError, UnsupportedTask
from brolly.remote.content import media_type
from brolly.remote.dialect import Call
from brolly.remote.dialects.openai.envelope import tokens
from brolly.remote.dialects.openai.envelope import told as told
from brolly.remote.target import Target
from brolly.remote.traits import traits_of
from brolly.verbs import Drawing, DrawOptions, Picture

# what an option is called there
WORDS = {
    "n": "n", "size": "size", "quality": "quality", "background": "background", "format": "output_format",
    "compression": "output_compression", "seed": "seed",
}  # fmt: skip
DRAW = frozenset(WORDS) - {"seed"}
MOST = 16  # pictures that may be changed at once
LARGEST = 64 << 20  # bytes of a picture that are believed


def draw(prompt: str, images: Sequence[bytes], options: DrawOptions, target: Target) -> Call:
    """A form where there are pictures to change, else JSON. Raises MediaError, UnsupportedTask."""
    if images and "edits" in target.vendor.lacks:
        raise UnsupportedTask(f"{target} draws from texts alone here; openai:gpt-image-2 and Gemini's change pictures.")
    body: dict[str, Any] = {"model": target.model, "prompt": prompt}
    for name, word in WORDS.items():
        value = getattr(options, name)
        if value is not None and (name, value) != ("n", 1):
            body[target.vendor.words.get(name, word)] = value
    if not _tells_base64(target):
        body["response_format"] = "b64_json"
    if not images:
        return Call("/images/generations", body, safe=False)
    if len(images) > MOST:
        raise MediaError(f"{len(images)} pictures were given; expected {MOST} at most.")
    field = "image[]" if len(images) > 1 else "image"
    files = []
    for at, data in enumerate(images):
        kind = media_type(data)
        if kind not in ("image/png", "image/jpeg", "image/webp"):
            raise MediaError(f"picture {at + 1} is {kind or 'of no kind that is known'}; expected PNG, JPEG or WebP.")
        files.append((field, (f"picture-{at + 1}.{kind[6:]}", data, kind)))
    return Call("/images/edits", files=files, form=body, safe=False)


def drawn(body: Any) -> Drawing:
    """The pictures. Raises BadAnswer."""
    rows = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(rows, list) or not rows:
        raise BadAnswer("no picture came; expected some under data.")
    return Drawing(tuple(_picture(row, at) for at, row in enumerate(rows)), tokens(body))


def _picture(row: Any, at: int) -> Picture:
    text = row.get("b64_json") if isinstance(row, Mapping) else None
    if not isinstance(text, str) or len(text) > LARGEST * 4 // 3:
        where = " but its address" if isinstance(row, Mapping) and row.get("url") else ""
        raise BadAnswer(f"picture {at + 1} did not come itself{where}; expected base64 in b64_json.")
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise BadAnswer(f"picture {at + 1} is no base64 that can be read.") from None
    kind = media_type(data)
    if kind not in ("image/png", "image/jpeg", "image/webp"):
        raise BadAnswer(f"picture {at + 1} is {kind or 'of no kind that is known'}; expected PNG, JPEG or WebP.")
    said = row.get("revised_prompt")
    return Picture(data, kind[6:], said if isinstance(said, str) and said else None)


def _tells_base64(target: Target) -> bool:
    """Whether pictures come as base64 without asking: OpenAI's own models refuse to be asked, others give addresses."""
    return "response_format" in {*target.vendor.lacks, *traits_of(target).lacks}
