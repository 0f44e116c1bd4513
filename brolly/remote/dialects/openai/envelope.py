"""What an OpenAI-compatible server says of an error, and how many tokens a request took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.errors import BrollyError
from brolly.remote.dialect import Told
from brolly.remote.faults import fault
from brolly.remote.target import Target
from brolly.verbs import Usage

MESSAGE = 2000  # characters of a vendor's message that are kept


def told(body: Any) -> Told:
    """The kind, message and parameter of an error: OpenAI's envelope, vLLM's without one, Ollama's bare text."""
    if not isinstance(body, Mapping):
        return Told(message=_text(body))
    error = body.get("error", body)
    if not isinstance(error, Mapping):
        return Told(message=_text(error))
    kind = next((error[name] for name in ("code", "type") if isinstance(error.get(name), str) and error[name]), "")
    message = next((_text(error[name]) for name in ("message", "detail") if error.get(name)), "")
    return Told(kind[:200], message, _text(error.get("param"))[:200])


def broken(body: Any, target: Target) -> BrollyError:
    """The error that came within an answer."""
    return fault(0, told(body), target)


def tokens(body: Any) -> Usage | None:
    """The usage of any route: `input_tokens` and `output_tokens`, or the chat's names of them; None: it tells none."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    read, written = (
        next((n for name in names if (n := _count(usage.get(name))) is not None), None)
        for names in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
    )
    if read is None and written is None:
        return None
    read, written = read or 0, written or 0
    ins, outs = (
        next((one for name in names if isinstance(one := usage.get(f"{name}_tokens_details"), Mapping)), {})
        for names in (("input", "prompt"), ("output", "completion"))
    )  # fmt: skip
    # DeepSeek has the second name; no part is larger than the whole
    cached = min(_count(ins.get("cached_tokens")) or _count(usage.get("prompt_cache_hit_tokens")) or 0, read)
    stored = min(_count(ins.get("cache_write_tokens")) or 0, read - cached)
    thought = _count(outs.get("reasoning_tokens")) or 0
    if thought and _count(usage.get("total_tokens")) == read + written + thought:
        written += thought  # xAI counts thoughts apart from what is written
    return Usage(read, written, cached, min(thought, written), stored)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 40 else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:MESSAGE]
