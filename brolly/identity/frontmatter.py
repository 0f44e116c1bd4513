"""The YAML header of a model card: the plain part that the Hub documents, read without a YAML library."""

from __future__ import annotations

import re
from typing import Any

MAX_LINES = 2000
KEY = re.compile(r"([A-Za-z_][\w.-]*):(?:\s+(.*))?$")


def front_matter(text: str) -> dict[str, Any]:
    """Top-level keys with a text, a number, a list of texts, or (for what is nested deeper) the lines as they stand."""
    lines = text.lstrip("\ufeff").splitlines()[:MAX_LINES]
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, Any] = {}
    key = ""
    for line in lines[1:]:
        if line.strip() in ("---", "..."):
            return found
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        matched = KEY.match(line)
        if matched:
            key, value = matched[1], (matched[2] or "").strip()
            if value.startswith(("|", ">")) and len(value) <= 2:
                found[key] = ""
            else:
                found[key] = _value(value) if value else None
        elif key and (item := re.match(r"\s*-\s+(.*)$", line)):
            if not isinstance(found[key], list):
                found[key] = [] if found[key] is None else [found[key]]
            found[key].append(_value(item[1].strip()))
        elif key and isinstance(found[key], str):
            found[key] = f"{found[key]} {line.strip()}".strip()
    return {}  # a header that never ends is none


def _value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    text = text.split(" #")[0].strip()
    return {"true": True, "false": False, "null": None, "~": None}.get(text.lower(), text)
