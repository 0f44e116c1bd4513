"""How many tokens a request can read, before anybody counts them: for a budget, which has to hold whatever is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from brolly.remote.ask import Ask

EACH = 16  # tokens around a message, a part, or a call
TOOLS = 1000  # of a vendor's own words about tools
PICTURE = 16_384  # of a picture that is read
DRAWN = 8192  # and of one that is drawn: the largest known has 6,240
PAGE, PER_BYTE = 3000, 8  # of a PDF: so many, and one for so many bytes
HEARD = 30  # bytes of a sound that may be a token: 32 tokens a second at 8 kbit/s
# fields that choose another price: how soon, how fast, where, in what, and by which of the vendor's own tools
REPRICED = frozenset(
    ("service_tier", "serviceTier", "speed", "inference_geo", "modalities", "tools", "web_search_options", "plugins")
)
SHORT = (None, "5m")  # how long a cache keeps what is put into it for the price that the table has


def weighed(ask: Ask) -> int:
    """Tokens that an ask can have: one a byte of its texts, of files what their size lets expect."""
    options = ask.options
    found = EACH + TOOLS * bool(ask.tools) + _texts((ask.tools, ask.extra, ask.template))
    found += utf8((options.json_schema, *options.choice))
    return found + sum(EACH + _texts(message) for message in ask.messages)


def utf8(texts: Iterable[Any]) -> int:
    """Bytes of those that are texts, which no tokens outnumber."""
    return sum(len(text.encode(errors="replace")) for text in texts if isinstance(text, str))


def packed(inputs: Sequence[Any], most: int, most_bytes: int) -> Iterator[list[Any]]:
    """Inputs in lists of so many at most, and of so many bytes of text together."""
    part: list[Any] = []
    n_bytes = 0
    for one in inputs:
        size = utf8([one])
        if part and (len(part) == most or n_bytes + size > most_bytes):
            yield part
            part, n_bytes = [], 0
        part.append(one)
        n_bytes += size
    if part:
        yield part


def heard(n_bytes: int) -> int:
    """Tokens of a sound of so many bytes."""
    return EACH + n_bytes // HEARD


def kept_long(ask: Ask) -> bool:
    """Whether something is to be put into the vendor's cache for longer than its shortest time."""
    return any(_marked(one) for one in (*ask.messages, *ask.tools, ask.extra))


def repriced(ask: Ask) -> bool:
    """Whether it asks for what has another price than the table's, or a price beside that of tokens."""
    own = any(tool.get("type", "function") != "function" for tool in ask.tools)  # tools that run at the vendor's
    return own or bool(REPRICED & ask.extra.keys())


def _texts(value: Any) -> int:
    if isinstance(value, str):
        return utf8((value,))
    if isinstance(value, Mapping):
        kind = value.get("type")
        if kind == "image_url":
            return PICTURE
        if kind == "input_audio":
            return heard(_size(value, "input_audio", "data"))
        if kind == "file":
            return PAGE + _size(value, "file", "file_data") // PER_BYTE
        return sum(EACH + _texts(inner) + len(str(name)) for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return sum(EACH // 4 + _texts(inner) for inner in value)
    return EACH


def _size(part: Mapping[str, Any], name: str, field: str) -> int:
    """Bytes of what is within a part as base64."""
    inner = part.get(name)
    data = inner.get(field) if isinstance(inner, Mapping) else None
    return len(data) * 3 // 4 if isinstance(data, str) else 0


def _marked(value: Any) -> bool:
    if isinstance(value, Mapping):
        mark = value.get("cache_control")
        return (isinstance(mark, Mapping) and mark.get("ttl") not in SHORT) or any(map(_marked, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_marked, value))
