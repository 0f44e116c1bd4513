"""Claude at Google Cloud: the same bodies under Vertex's addresses, with the version within."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from brolly.errors import OptionError
from brolly.remote.ask import Ask
from brolly.remote.dialect import Call, Told
from brolly.remote.dialects.anthropic import answers, messages
from brolly.remote.dialects.anthropic.answers import whole as whole
from brolly.remote.dialects.anthropic.messages import BLANK_STOPS as BLANK_STOPS
from brolly.remote.dialects.anthropic.messages import OPTIONS as OPTIONS
from brolly.remote.dialects.anthropic.messages import counted as counted
from brolly.remote.dialects.anthropic.messages import hints as hints
from brolly.remote.dialects.anthropic.messages import lacks as lacks
from brolly.remote.dialects.anthropic.messages import reader as reader
from brolly.remote.dialects.gemini.answers import told as google
from brolly.remote.target import Target

SAMPLED = "vertex-2023-10-16"  # the last version that has temperature, top_p and top_k


def call(ask: Ask, target: Target) -> Call:
    """The request. Raises OptionError."""
    said, headers = _parted(messages.body(ask, target))
    if ask.stream:
        said["stream"] = True
    model = quote(target.model, safe="@:")
    if target.model in (".", ".."):
        raise OptionError(f"{target.model!r} is no name of a model; expected one such as claude-….")
    return Call(f"/models/{model}:{'streamRawPredict' if ask.stream else 'rawPredict'}", said, headers=headers)


def count(ask: Ask, target: Target) -> Call:
    """A request for the tokens of a conversation."""
    said, headers = _parted({"model": target.model, **messages.body(ask, target)})
    kept = {name: said[name] for name in messages.COUNTED if name in said}
    return Call("/models/count-tokens:rawPredict", {"anthropic_version": messages.VERSION, **kept}, headers=headers)


def told(body: Any) -> Told:
    """Of Anthropic's envelope, which passes through, or of Google's own gates."""
    error = body.get("error") if isinstance(body, Mapping) else None
    return answers.told(body) if isinstance(error, Mapping) and "type" in error else google(body)


def _parted(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The body with its version, and the headers."""
    said = dict(body)
    headers = messages.headers(said, said.pop("betas", None))
    version = headers.pop("anthropic-version")
    return {"anthropic_version": SAMPLED if version == messages.SAMPLED else version, **said}, headers
