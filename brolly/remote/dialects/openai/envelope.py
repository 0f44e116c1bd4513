"""What an OpenAI-compatible server says of an error, and how many tokens a request took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.remote.dialect import Told
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


def tokens(body: Any) -> Usage | None:
    """The usage of embeddings, pictures and sounds: `input_tokens` and `output_tokens`, or the chat's names of them."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    read = _count(usage.get("input_tokens", usage.get("prompt_tokens")))
    written = _count(usage.get("output_tokens", usage.get("completion_tokens")))
    if read is None and written is None:
        return None
    details = usage.get("input_tokens_details", usage.get("prompt_tokens_details"))
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    return Usage(read or 0, written or 0, cached or 0)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:MESSAGE]
