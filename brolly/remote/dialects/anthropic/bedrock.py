"""Claude at AWS: the same bodies under Bedrock's addresses, and its events within frames of AWS's (`remote.frames`)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from brolly.errors import BadAnswer, OptionError
from brolly.remote.ask import Ask
from brolly.remote.dialect import Call, Told
from brolly.remote.dialects.anthropic import answers, messages
from brolly.remote.dialects.anthropic.answers import whole as whole
from brolly.remote.dialects.anthropic.messages import BLANK_STOPS as BLANK_STOPS
from brolly.remote.dialects.anthropic.messages import OPTIONS as OPTIONS
from brolly.remote.dialects.anthropic.messages import hints as hints
from brolly.remote.dialects.anthropic.messages import lacks as lacks
from brolly.remote.faults import fault
from brolly.remote.target import Target
from brolly.verbs import Piece

VERSION = "bedrock-2023-05-31"  # which every Claude there takes; 2026-10-21 those from 4.7 on alone


def call(ask: Ask, target: Target) -> Call:
    """The request. Raises OptionError."""
    return Call(path(target, "invoke-with-response-stream" if ask.stream else "invoke"), said(ask, target))


def said(ask: Ask, target: Target) -> dict[str, Any]:
    """The body: the model is in the address, and betas are a field."""
    found = {"anthropic_version": VERSION, **messages.body(ask, target)}
    betas = found.pop("betas", None)
    if betas:
        found["anthropic_beta"] = betas.split(",") if isinstance(betas, str) else list(betas)
    return found


def path(target: Target, doing: str) -> str:
    """Of a model's name, or of the ARN of an inference profile. Raises OptionError."""
    if target.model in (".", ".."):
        raise OptionError(f"{target.model!r} is no name of a model; expected one such as anthropic.claude-….")
    return f"/model/{quote(target.model, safe=':')}/{doing}"


def count(ask: Ask, target: Target) -> Call:
    """A request for the tokens of a conversation."""
    body = base64.b64encode(json.dumps(said(ask, target)).encode()).decode()
    return Call(path(target, "count-tokens"), {"input": {"invokeModel": {"body": body}}})


def counted(body: Any) -> int:
    """Tokens. Raises BadAnswer."""
    return messages.counted({"input_tokens": body.get("inputTokens")} if isinstance(body, Mapping) else body)


def told(body: Any) -> Told:
    return answers.told(body)


class Reader:
    """Pieces of events, each in the `bytes` of a chunk; an exception of AWS's is an event of that name."""

    def __init__(self, target: Target) -> None:
        self.target, self.within = target, answers.Reader(target)

    def push(self, event: str, data: Any) -> list[Piece]:
        """What became certain with a frame. Raises RemoteError's kinds, Busy."""
        if event == "chunk":
            return self.within.push("", self._unpacked(data))
        if isinstance(data, Mapping) and "message" in data:
            said = answers.told(data)
            raise fault(STATUS.get(event, 500), said._replace(kind=event), self.target)
        return []

    def end(self) -> list[Piece]:
        return self.within.end()

    def _unpacked(self, data: Any) -> Any:
        packed = data.get("bytes") if isinstance(data, Mapping) else None
        try:
            return json.loads(base64.b64decode(packed, validate=True)) if isinstance(packed, str) else None
        except (ValueError, binascii.Error, RecursionError):
            raise BadAnswer(f"{self.target.host} sent a chunk that is no JSON in base64; ask again.") from None


# as AWS's reference has them for answers that are not streams
STATUS = {
    "validationException": 400, "throttlingException": 429, "modelTimeoutException": 408,
    "serviceUnavailableException": 503, "internalServerException": 500, "modelStreamErrorException": 424,
}  # fmt: skip


def reader(ask: Ask, target: Target) -> Reader:
    return Reader(target)
