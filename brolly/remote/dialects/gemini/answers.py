"""What Gemini answers: pieces of a stream or of a whole answer, tokens, and what its errors say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from brolly.errors import BadAnswer, Filtered, RemoteError
from brolly.remote.ask import Ask
from brolly.remote.content import clean
from brolly.remote.dialect import Told
from brolly.remote.target import Target
from brolly.verbs import Piece, TokenLogprob, ToolDelta, Usage

FAMILY = "gemini"  # whose `opaque` these are, Vertex's alike
MESSAGE = 2000  # characters of a vendor's message that are kept
ENDS = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"} | dict.fromkeys(
    (
        "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR", "ESCALATION", "PUP_LIMITED_DISABLED",
    ),
    "content_filter",
)  # fmt: skip
# parts of tools that ran at Google's: they go back as they came
KEPT = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
SECONDS = re.compile(r"(\d{1,7}(?:\.\d{1,9})?)s")


class Answer:
    """One of the answers: what came of it, and why it ended."""

    def __init__(self, index: int) -> None:
        self.index, self.calls, self.written = index, 0, 0
        self.reason: str | None = None
        self.message = ""
        self.tokens: int | None = None

    def piece(self, candidate: Mapping[str, Any]) -> Piece | None:
        """What a candidate adds. Raises BadAnswer."""
        text, thoughts = "", ""
        calls: list[ToolDelta] = []
        opaque: list[dict[str, Any]] = []
        for part in _rows(_mapping(candidate.get("content"), "content").get("parts"), "parts"):
            said = clean(part.get("text"))
            signature = part.get("thoughtSignature")
            back: dict[str, Any] = {}
            if part.get("thought") is True:
                thoughts, said = thoughts + said, ""
            elif "functionCall" in part:
                delta, own = self._called(part["functionCall"])
                calls.append(delta)
                if own or isinstance(signature, str):
                    back = {"call": delta.id, "own": own}
            else:
                back = {"part": part, "after": self.written} if any(name in part for name in KEPT) else {}
                text += said
            if isinstance(signature, str) and not back:
                back = {"after": self.written, "length": len(said)}
            if back:
                signed = {"signature": signature} if isinstance(signature, str) else {}
                opaque.append({"vendor": FAMILY, **back, **signed})
            self.written += len(said)
        if isinstance(candidate.get("finishReason"), str):
            self.reason, self.message = candidate["finishReason"], clean(candidate.get("finishMessage"))
        self.tokens = _count(candidate.get("tokenCount"), None)
        chances = logprobs(candidate.get("logprobsResult"))
        if not (text or thoughts or calls or opaque or chances):
            return None
        return Piece(
            text, reasoning=thoughts, calls=tuple(calls), opaque=tuple(opaque), logprobs=chances, index=self.index
        )

    def end(self, usage: Usage) -> Piece:
        """The last piece. Raises BadAnswer."""
        if self.reason is None:
            raise BadAnswer("the answer ended without a reason: it was cut off; ask again.")
        why = ENDS.get(self.reason)
        if why is None:
            told = f": {self.message[:300]}" if self.message else ""
            raise BadAnswer(f"the model did not come to an end ({self.reason[:60]}){told}; ask again.")
        if why == "stop" and self.calls:
            why = "tool_calls"
        return Piece("", finish_reason=why, usage=usage, index=self.index)

    def _called(self, call: Any) -> tuple[ToolDelta, bool]:
        """A call, and whether its id is the vendor's own."""
        name = call.get("name") if isinstance(call, Mapping) else None
        if not isinstance(name, str) or not name:
            raise BadAnswer("the model called a tool without a name; ask again.")
        if "partialArgs" in call or call.get("willContinue"):
            raise BadAnswer(f"the arguments of {name[:80]} came in parts; leave out streamFunctionCallArguments.")
        given = call.get("args", {})
        try:
            if not isinstance(given, Mapping):
                raise ValueError
            arguments = clean(json.dumps(given, ensure_ascii=False, allow_nan=False))
        except (ValueError, RecursionError):
            raise BadAnswer(
                f"the arguments of {name[:80]} are a {type(given).__name__} that is no JSON object; ask again."
            ) from None
        own = call.get("id")
        known = isinstance(own, str) and bool(own)
        index, self.calls = self.calls, self.calls + 1
        return ToolDelta(index, arguments, clean(own) if known else f"call_{uuid4().hex}", clean(name)), known


class Stream:
    """Pieces of streamGenerateContent's events. An answer's end is told with the stream's: reasons may come twice."""

    def __init__(self, ask: Ask, target: Target) -> None:
        self.answers = [Answer(index) for index in range(ask.n)]
        self.target = target
        self.usage: Mapping[str, Any] = {}
        self.over = False

    def push(self, event: str, data: Any) -> list[Piece]:
        """What an event adds. Raises RemoteError's kinds."""
        if self.over:
            return []
        found = []
        for body in data if isinstance(data, list) else [data]:
            body = _mapping(body, "an event")
            if body.get("error") is not None:
                raise _fault(body, self.target)
            for index, candidate in _apart(_candidates(body, len(self.answers))):
                piece = self.answers[index].piece(candidate)
                if piece is not None:
                    found.append(piece)
            self.usage = _mapping(body.get("usageMetadata"), "usageMetadata") or self.usage
        return found

    def end(self) -> list[Piece]:
        """The last piece of each answer. Raises BadAnswer."""
        if self.over:
            return []
        self.over = True
        return [answer.end(used) for answer, used in zip(self.answers, _shares(self.usage, self.answers), strict=True)]


def whole(body: Any, ask: Ask, target: Target) -> list[Piece]:
    """The pieces of an answer that was not streamed. Raises RemoteError's kinds."""
    stream = Stream(ask, target)
    return [*stream.push("", body), *stream.end()]


def _candidates(body: Mapping[str, Any], n: int) -> list[tuple[int, Mapping[str, Any]]]:
    """Each candidate with its index. Raises BadAnswer, and Filtered where the question was refused."""
    feedback = _mapping(body.get("promptFeedback"), "promptFeedback")
    if isinstance(feedback.get("blockReason"), str):
        told = clean(feedback.get("blockReasonMessage"))[:300]
        raise Filtered(
            f"Google's rules forbid this question ({feedback['blockReason'][:60]}){': ' * bool(told)}{told}."
        )
    found = []
    for candidate in _rows(body.get("candidates"), "candidates"):
        index = candidate.get("index", 0)  # 0 is left out
        if type(index) is not int or not 0 <= index < n:
            raise BadAnswer(
                f"an answer says that it is number {index if type(index) is int else '?'}; {n} were asked for."
            )
        found.append((index, candidate))
    return found


def _apart(found: list[tuple[int, Mapping[str, Any]]]) -> list[tuple[int, Mapping[str, Any]]]:
    """The same without what the first of several answers repeats: AI Studio puts the parts of all others behind it."""
    parts = [_rows(_mapping(one.get("content"), "content").get("parts"), "parts") for _, one in found]
    rest = [part for several in parts[1:] for part in several]
    if not rest or len(parts[0]) <= len(rest) or parts[0][-len(rest) :] != rest:
        return found
    index, first = found[0]
    return [(index, {**first, "content": {**first["content"], "parts": parts[0][: -len(rest)]}}), *found[1:]]


def usage_of(told: Any) -> Usage:
    """usageMetadata: thoughts are written tokens, and results of Google's own tools are read ones."""
    told = told if isinstance(told, Mapping) else {}
    thoughts = _count(told.get("thoughtsTokenCount"))
    read = _count(told.get("promptTokenCount")) + _count(told.get("toolUsePromptTokenCount"))
    cached = min(_count(told.get("cachedContentTokenCount")), read)
    return Usage(read, _count(told.get("candidatesTokenCount")) + thoughts, cached, thoughts)


def _shares(told: Mapping[str, Any], answers: list[Answer]) -> list[Usage]:
    """The usage of each answer: Google tells one sum, and at times each one's own tokens."""
    whole = usage_of(told)
    own = [answer.tokens or 0 for answer in answers]
    rest = max(whole.completion_tokens - sum(own[1:]), 0) if all(own) else whole.completion_tokens
    shares = [Usage(whole.prompt_tokens, rest, whole.cached_tokens, whole.reasoning_tokens)]
    return shares + [Usage(whole.prompt_tokens, n if all(own) else 0, whole.cached_tokens) for n in own[1:]]


def logprobs(told: Any) -> tuple[TokenLogprob, ...]:
    """logprobsResult: each token that was chosen, with the likeliest at its place. Raises BadAnswer."""
    told = _mapping(told, "logprobsResult")
    tops = _rows(told.get("topCandidates"), "topCandidates")
    found = []
    for place, chosen in enumerate(_rows(told.get("chosenCandidates"), "chosenCandidates")):
        text, chance = _chance(chosen)
        others = _rows(tops[place].get("candidates"), "candidates") if place < len(tops) else []
        several = tuple((token.encode(), likely) for token, likely in map(_chance, others))
        found.append(TokenLogprob(-1, text, chance, {}, text.encode(), several))
    return tuple(found)


def told(body: Any) -> Told:
    """Google's envelope: {"error": {code, message, status, details}}, at times within a list."""
    if isinstance(body, list):
        body = body[0] if body else None
    error = body.get("error") if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return Told(message=clean(error)[:MESSAGE])
    kind, param, after = clean(error.get("status")), "", None
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        if not isinstance(detail, Mapping):
            continue
        name = clean(detail.get("@type")).rpartition(".")[2]
        if name == "ErrorInfo" and clean(detail.get("reason")):
            kind = clean(detail["reason"])  # API_KEY_INVALID, where the status is but INVALID_ARGUMENT
        elif name == "RetryInfo" and (found := SECONDS.fullmatch(clean(detail.get("retryDelay")))):
            after = float(found[1])
        elif name == "BadRequest" and isinstance(rows := detail.get("fieldViolations"), list):
            param = next((clean(row.get("field")) for row in rows if isinstance(row, Mapping)), "")
    return Told(kind[:200], clean(error.get("message"))[:MESSAGE], param[:200], after)


def _fault(body: Mapping[str, Any], target: Target) -> RemoteError | Exception:
    """The error that an event of a stream tells."""
    from brolly.remote.faults import fault

    error = body["error"]
    code = error.get("code") if isinstance(error, Mapping) else None
    return fault(code if type(code) is int and 400 <= code < 600 else 500, told(body), target)


def _chance(row: Mapping[str, Any]) -> tuple[str, float]:
    chance = row.get("logProbability", 0.0)  # 0 is left out
    if type(chance) not in (int, float) or not -1e9 < chance < 1e9:
        raise BadAnswer("a token's log-probability is no number; ask again.")
    return clean(row.get("token")), float(chance)


def _count(value: Any, otherwise: Any = 0) -> Any:
    return value if type(value) is int and 0 <= value < 1 << 53 else otherwise


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadAnswer(f"{name} of Google's answer is a {type(value).__name__}; expected an object.")
    return value


def _rows(value: Any, name: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise BadAnswer(f"{name} of Google's answer is a {type(value).__name__}; expected a list of objects.")
    return value
