"""Pictures by generateContent: of a text, or pictures changed as a text says."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from brolly.errors import BadAnswer, Filtered, MediaError, OptionError
from brolly.remote.content import clean, media_type
from brolly.remote.dialect import Call
from brolly.remote.dialects.gemini.answers import ENDS, usage_of
from brolly.remote.dialects.gemini.answers import told as told
from brolly.remote.dialects.gemini.content import model_path
from brolly.remote.target import Target
from brolly.verbs import Drawing, DrawOptions, Picture

DRAW = frozenset({"size", "seed"})  # one picture a request
LARGEST = 64 << 20  # bytes of a picture that are believed
RATIO = re.compile(r"\d{1,2}:\d{1,2}")
AREA = re.compile(r"512|\d{1,2}K", re.IGNORECASE)


def draw(prompt: str, images: Sequence[bytes], options: DrawOptions, target: Target) -> Call:
    """Raises OptionError, MediaError."""
    parts: list[dict[str, Any]] = [{"text": prompt}]
    for at, data in enumerate(images):
        kind = media_type(data)
        if not kind.startswith("image/"):
            raise MediaError(f"picture {at + 1} is {kind or 'of no known kind'}; expected PNG, JPEG, GIF or WebP.")
        parts.append({"inlineData": {"mimeType": kind, "data": base64.b64encode(data).decode()}})
    config: dict[str, Any] = {"responseModalities": ["IMAGE"]}
    if options.seed is not None:
        config["seed"] = options.seed
    if options.size:
        config["imageConfig"] = _size(options.size, target)
    body = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
    return Call(model_path(target, "generateContent"), body)


def _size(size: str, target: Target) -> dict[str, str]:
    """imageConfig of "16:9", "2K" or both with a blank between. Raises OptionError."""
    found: dict[str, str] = {}
    for word in size.split():
        if RATIO.fullmatch(word):
            found["aspectRatio"] = word
        elif AREA.fullmatch(word):
            found["imageSize"] = word.upper()
        else:
            found.clear()
            break
    if not found or len(found) != len(size.split()):
        raise OptionError(
            f"size is {size!r:.40}; {target} takes a ratio and how large: 16:9, 2K, or '16:9 2K', and no pixels."
        )
    return found


def drawn(body: Any) -> Drawing:
    """Raises BadAnswer, Filtered."""
    body = body if isinstance(body, Mapping) else {}
    feedback = body.get("promptFeedback")
    if isinstance(feedback, Mapping) and clean(feedback.get("blockReason")):
        raise Filtered(f"Google's rules forbid this picture ({clean(feedback['blockReason'])[:60]}).")
    pictures, why, said = [], "", ""
    candidates = body.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else []:
        candidate = candidate if isinstance(candidate, Mapping) else {}
        why = clean(candidate.get("finishReason")) or why
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, Mapping) else None
        for part in parts if isinstance(parts, list) else []:
            if not isinstance(part, Mapping) or part.get("thought") is True:
                continue  # drafts of a model that thinks in pictures
            said += clean(part.get("text"))
            if "inlineData" in part:
                pictures.append(_picture(part["inlineData"]))
    if not pictures:
        if ENDS.get(why) == "content_filter":
            raise Filtered(f"Google's rules forbid this picture ({why}).")
        told = f"{why[:60]}{': ' * bool(said)}{said[:200]}".strip()
        raise BadAnswer(f"no picture came{f' ({told})' if told else ''}; ask again, or ask a model that draws.")
    usage = usage_of(body["usageMetadata"]) if isinstance(body.get("usageMetadata"), Mapping) else None
    return Drawing(tuple(pictures), usage)


def _picture(inline: Any) -> Picture:
    text = inline.get("data") if isinstance(inline, Mapping) else None
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) and len(text) < LARGEST * 4 // 3 else b""
    except (ValueError, binascii.Error):
        data = b""
    kind = media_type(data)
    if kind not in ("image/png", "image/jpeg", "image/webp"):
        raise BadAnswer("a picture came that is no PNG, JPEG or WebP.")
    return Picture(data, kind.removeprefix("image/"))
