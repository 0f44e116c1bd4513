"""What the fakes' models say, the same for every vendor and the same each time, so that answers can be compared.

    forbidden in the last user's text     refused: finish "content_filter", `refusal` has the words
    the last turn is a tool's             "The tool said RESULT."  (several: "… and …")
    tools, and forced or "weather"        calls the named or the first tool; twice, if the text says "twice" and may be
    a schema                              the smallest instance of it, as JSON
    pictures, sounds, files               "I see 2 pictures and 1 file."
    else                                  "You said: LAST USER'S TEXT"

Where thinking is asked for, it first thinks "Let me think." A token is a word. `stop` and `max_tokens` cut the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

THOUGHTS = "Let me think."
REFUSAL = "I cannot help with that."


@dataclass(frozen=True)
class Turn:
    """One message: role "system", "user", "assistant" or "tool"; the text of a tool's is its result."""

    role: str
    text: str


@dataclass(frozen=True)
class Tool:
    """A tool that may be called; `parameters` is a JSON schema."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Talk:
    """What was asked, in no vendor's words. `choice` is "auto", "none", "required" or a tool's name."""

    messages: Sequence[Turn]
    tools: Sequence[Tool] = ()
    choice: str = "auto"
    parallel: bool = True
    schema: Mapping[str, Any] | None = None  # the answer's; {} means any JSON
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    pictures: int = 0
    sounds: int = 0
    files: int = 0
    thinking: bool = False

    @property
    def last(self) -> str:
        """The last user's text."""
        return next((turn.text for turn in reversed(self.messages) if turn.role == "user"), "")


@dataclass(frozen=True)
class Called:
    """One call of a tool."""

    name: str
    arguments: dict[str, Any]

    @property
    def json(self) -> str:
        return json.dumps(self.arguments)


@dataclass(frozen=True, kw_only=True)
class Says:
    """What the model answers. `finish` is stop, length, tool_calls or content_filter; `stopped` the text that cut it.

    `prompt_tokens` are all that were read; `completion_tokens` have the `reasoning_tokens` within.
    """

    text: str = ""
    thoughts: str = ""
    calls: tuple[Called, ...] = ()
    finish: str = "stop"
    stopped: str | None = None
    refusal: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def pieces(self) -> list[str]:
        """The text word by word, as it is streamed."""
        return words(self.text)


def words(text: str) -> list[str]:
    """A text in words, each with the white space behind it; joined they are the text."""
    return re.findall(r"\S+\s*|\s+", text)


def says(talk: Talk) -> Says:
    """The answer to what was asked."""
    text, calls, refusal = "", (), ""
    if "forbidden" in talk.last:
        refusal = REFUSAL
    elif talk.messages and talk.messages[-1].role == "tool":
        results = []
        for turn in reversed(talk.messages):
            if turn.role != "tool":
                break
            results.append(turn.text)
        text = f"The tool said {' and '.join(reversed(results))}."
    elif (tool := _tool(talk)) is not None:
        one = Called(tool.name, _object(tool.parameters))
        calls = (one, one) if talk.parallel and "twice" in talk.last else (one,)
    elif talk.schema is not None:
        text = json.dumps(instance(talk.schema) if talk.schema else {"said": talk.last})
    elif talk.pictures or talk.sounds or talk.files:
        counts = {"picture": talk.pictures, "sound": talk.sounds, "file": talk.files}
        seen = " and ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n)
        text = f"I see {seen}."
    else:
        text = f"You said: {talk.last}"
    finish, stopped = "content_filter" if refusal else "tool_calls" if calls else "stop", None
    found = min(((at, stop) for stop in talk.stop if (at := text.find(stop)) >= 0), default=None)
    if found is not None:
        text, stopped = text[: found[0]], found[1]
    if talk.max_tokens is not None and len(words(text)) > talk.max_tokens:
        text, finish, stopped = "".join(words(text)[: talk.max_tokens]).rstrip(), "length", None
    thoughts = THOUGHTS if talk.thinking else ""
    thought = len(words(thoughts))
    written = len(words(text)) + sum(1 + len(words(call.json)) for call in calls) + len(words(refusal))
    return Says(
        text=text, thoughts=thoughts, calls=calls, finish=finish, stopped=stopped, refusal=refusal,
        prompt_tokens=sum(len(words(turn.text)) for turn in talk.messages) or 1,
        completion_tokens=thought + written, reasoning_tokens=thought,
    )  # fmt: skip


def _tool(talk: Talk) -> Tool | None:
    if not talk.tools or talk.choice == "none" or (talk.choice == "auto" and "weather" not in talk.last):
        return None
    return next((tool for tool in talk.tools if tool.name == talk.choice), talk.tools[0])


def _object(schema: Mapping[str, Any]) -> dict[str, Any]:
    made = instance(schema) if schema else {}
    return made if isinstance(made, dict) else {}


def instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A small instance of a JSON schema (or Gemini's, with its capitals): what is required, or all properties."""
    root = schema if root is None else root
    if schema is True or not schema or depth > 20:
        return None
    if "$ref" in schema:
        found = root
        for step in schema["$ref"].lstrip("#/").split("/"):
            found = found[step]
        return instance(found, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf", "any_of"):
        if schema.get(word):
            return instance({**{k: v for k, v in schema.items() if k != word}, **schema[word][0]}, root, depth + 1)
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    kind = (kind[0] if isinstance(kind, list) else str(kind)).lower()
    if kind == "object":
        properties = schema.get("properties") or {}
        names = schema["required"] if "required" in schema else list(properties)
        return {name: instance(properties.get(name, {"type": "string"}), root, depth + 1) for name in names}
    if kind == "array":
        n = int(schema.get("minItems") or schema.get("min_items") or 0)
        return [instance(schema.get("items") or {"type": "string"}, root, depth + 1) for _ in range(n)]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    if schema.get("pattern"):
        return matching(schema["pattern"])
    formats = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "email": "a@example.com"}
    text = formats.get(schema.get("format", ""), "text")
    return text.ljust(int(schema.get("minLength") or 0), "x")[: int(schema.get("maxLength") or 1000)]


def matching(pattern: str) -> str:
    """A short text that a regular expression matches; of its simpler means."""
    from re import _constants as sign  # type: ignore[attr-defined]
    from re import _parser  # type: ignore[attr-defined]

    def text(rows: Any) -> str:
        return "".join(one(op, value) for op, value in rows)

    def one(op: Any, value: Any) -> str:
        if op is sign.LITERAL:
            return chr(value)
        if op is sign.IN:
            op, value = value[0]
            if op is sign.RANGE:
                return chr(value[0])
            if op is sign.CATEGORY:
                return {sign.CATEGORY_DIGIT: "0", sign.CATEGORY_SPACE: " "}.get(value, "a")
            return chr(value) if op is sign.LITERAL else "~"
        if op is sign.CATEGORY:
            return "0"
        if op is sign.BRANCH:
            return text(value[1][0])
        if op is sign.SUBPATTERN:
            return text(value[-1])
        if op in (sign.MAX_REPEAT, sign.MIN_REPEAT):
            return text(value[2]) * value[0]
        return "a" if op in (sign.ANY, sign.NOT_LITERAL) else ""

    found = text(_parser.parse(pattern))
    assert re.search(pattern, found), f"{found!r} does not match {pattern!r}"
    return found
