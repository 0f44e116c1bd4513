"""What OpenAI's chats and responses share: schemas that it enforces, tools and their calls, log-probabilities."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from brolly.errors import BadAnswer, OptionError
from brolly.remote.ask import Ask
from brolly.remote.content import clean, text_of
from brolly.remote.shapes import schema_of
from brolly.remote.target import Target
from brolly.remote.traits import EFFORTS, nearest, traits_of
from brolly.verbs import TokenLogprob, ToolDelta

TOP = 20  # likeliest tokens that are told at most
MOST_CALLS = 1024  # of one answer
MOST_WRITTEN = 32 << 20  # characters of one answer's calls
UNLIKELY = -9999.0  # OpenAI's number for what is hardly possible
SCHEMA = "answer"  # what an answer's schema is called there

# what OpenAI's structured outputs know of JSON Schema: platform.openai.com/docs/guides/structured-outputs, 2026-11
KNOWN = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "$ref", "$defs",
    "definitions", "title", "description", "pattern", "format", "multipleOf", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
})  # fmt: skip
TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
DEEPEST, MOST_PROPERTIES, MOST_VALUES, MOST_NAMES = 10, 5000, 1000, 120_000


def loose(schema: Any) -> str:
    """Why OpenAI cannot enforce a schema; "" where it can."""
    try:
        if not isinstance(schema, Mapping) or schema.get("type") != "object":
            return "its root is no object"
        counts = [0, 0, 0]
        _walk(schema, schema, 1, counts)
    except _Loose as reason:
        return str(reason)
    except RecursionError:
        return "it is nested too deeply"
    sizes = zip(counts, (MOST_PROPERTIES, MOST_VALUES, MOST_NAMES), strict=True)
    return "it is too large" if any(n > most for n, most in sizes) else ""


class _Loose(Exception):
    pass


def _walk(one: Any, root: Mapping[str, Any], depth: int, counts: list[int]) -> None:
    """Count properties, values and characters. Raises _Loose."""
    if not isinstance(one, Mapping):
        raise _Loose("a part of it is no object")
    if unknown := one.keys() - KNOWN:
        raise _Loose(f"{min(map(str, unknown)):.40} is not enforced")
    for name in ("$defs", "definitions"):
        for key, inner in _rows(one, name):
            if one is not root:
                raise _Loose("definitions stand below its root")
            counts[2] += len(key)
            _walk(inner, root, 1, counts)
    if "$ref" in one:
        _reference(one, root)
        return
    if "anyOf" in one:
        if one.keys() - {"anyOf", "title", "description"} or not isinstance(one["anyOf"], list) or not one["anyOf"]:
            raise _Loose("anyOf stands beside other keywords")
        for inner in one["anyOf"]:
            _walk(inner, root, depth, counts)
        return
    kinds = one.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        raise _Loose("a part of it has no type")
    _values(one, counts)
    if not isinstance(one.get("pattern", ""), str) or re.search(r"\(\?[=!<]", one.get("pattern", "")):
        raise _Loose("its pattern looks around")
    if one.get("format", "date") not in FORMATS:
        raise _Loose("its format is not enforced")
    if "object" in kinds:
        if depth > DEEPEST:
            raise _Loose(f"it is nested more than {DEEPEST} deep")
        rows = _rows(one, "properties")
        if one.get("additionalProperties") is not False:
            raise _Loose("an object of it has no additionalProperties: false")
        required = one.get("required", [])
        if not isinstance(required, list) or sorted(map(str, required)) != sorted(key for key, _ in rows):
            raise _Loose("an object of it does not require all its properties")
        for key, inner in rows:
            counts[0] += 1
            counts[2] += len(key)
            _walk(inner, root, depth + 1, counts)
    if "array" in kinds:
        _walk(one.get("items"), root, depth + 1, counts)


def _rows(one: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    rows = one.get(name, {})
    if not isinstance(rows, Mapping):
        raise _Loose(f"{name} is no object")
    return [(str(key), inner) for key, inner in rows.items()]


def _reference(one: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    ref, beside = one["$ref"], one.keys() - {"$ref"} - ({"$defs", "definitions"} if one is root else set())
    if beside:
        raise _Loose("a $ref stands beside other keywords")
    _, _, path = str(ref).partition("#/")
    where, _, name = path.partition("/")
    if ref != "#" and not (where in ("$defs", "definitions") and name in dict(_rows(root, where)) and " " not in name):
        raise _Loose("a $ref of it leads nowhere that is known")


def _values(one: Mapping[str, Any], counts: list[int]) -> None:
    values = one.get("enum", [])
    if not isinstance(values, list):
        raise _Loose("enum is no list")
    texts = [value for value in [*values, one.get("const")] if isinstance(value, str)]
    counts[1] += len(values)
    counts[2] += sum(map(len, texts))
    if len(values) > 250 and sum(map(len, texts)) > 15_000:
        raise _Loose("an enum of it is too long")


def function_of(tool: Any) -> Mapping[str, Any]:
    """The function of a tool in OpenAI's chat form. Raises OptionError."""
    function = (
        tool.get("function") if isinstance(tool, Mapping) and tool.get("type", "function") == "function" else None
    )
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise OptionError(
            f'a tool is {tool!r:.80}; expected {{"type": "function", "function": {{"name": …, "parameters": …}}}}.'
        )
    return function


def strict(function: Mapping[str, Any]) -> bool:
    """Whether its arguments can be held to its schema: as it says, else where OpenAI can."""
    said = function.get("strict")
    return said if isinstance(said, bool) else not loose(function.get("parameters"))


def arguments_of(call: Mapping[str, Any]) -> tuple[str, str, str]:
    """The id, name and arguments of a call in a conversation. Raises OptionError."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise OptionError(f"a tool call is {call!r:.80}; expected an id and a function with name and arguments.")
    given = function.get("arguments")
    try:
        written = given if isinstance(given, str) else json.dumps({} if given is None else given)
    except (TypeError, ValueError, RecursionError):
        raise OptionError(f"the arguments of a call are {given!r:.60}; expected JSON.") from None
    return str(call.get("id") or ""), function["name"], written


def failed(message: Mapping[str, Any], text: str) -> str:
    """A tool's result; of one that failed, with the word before it that the wire has no field for."""
    if not message.get("is_error") or text.lstrip().lower().startswith("error"):
        return text
    return f"Error: {text}"


def effort_of(ask: Ask, target: Target) -> tuple[str | None, str]:
    """The word of effort that is said, and how it is not what was asked. Raises OptionError."""
    said, known = ask.options.effort, [word for word in traits_of(target).efforts if word in EFFORTS]
    if said is None:
        return None, ""
    if said.isdecimal():
        more = (
            "" if "effort_tokens" in target.vendor.words else f"{target} has a word for effort, no {said[:20]} tokens"
        )
        return None, more
    if said not in EFFORTS:
        raise OptionError(f"effort is {said!r:.40}; expected {', '.join(known or EFFORTS)}, or a number of tokens.")
    if not known or said in known:
        return said, ""
    word = nearest(said, known)
    return word, f"{target} has no effort {said!r} ({word} is sent in its place)"


def hints(ask: Ask, target: Target) -> list[str]:
    """Efforts that are others there, and where an answer may stray from its shape."""
    found, shape = [effort_of(ask, target)[1]], ask.options.json_schema
    if shape is not None and "any_schema" not in target.vendor.takes:
        schema = schema_of(shape)
        if schema and (reason := loose(schema)):
            found.append(f"{target} has no strict form of this schema, since {reason}")
        if not schema and not says_json(ask):
            found.append(f"{target} has no strict JSON where no message says JSON")
    return [one for one in found if one]


def says_json(ask: Ask) -> bool:
    """Whether a message has the word, without which OpenAI and others refuse to write any JSON."""
    return any("json" in text_of(message.get("content")).lower() for message in ask.messages)


def shape_of(ask: Ask, target: Target) -> dict[str, Any] | None:
    """An answer's schema as responses have it; None where any JSON will do."""
    schema, any_ = schema_of(ask.options.json_schema or "{}"), "any_schema" in target.vendor.takes
    if not schema and (any_ or says_json(ask)):
        return None
    schema = schema or {"type": "object"}
    return {"name": SCHEMA, "schema": schema, "strict": any_ or not loose(schema)}


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set a field; "reasoning.effort" is one within another."""
    *outer, last = path.split(".")
    for name in outer:
        body = body.setdefault(name, {})
    body[last] = value


# What comes back ------------------------------------------------------------------------------------------------------


def text(value: Any, what: str = "text") -> str:
    """A text that can be written as UTF-8; "" of null. Raises BadAnswer."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadAnswer(f"the vendor's {what} is {value!r:.40}; expected a text.")
    return clean(value)


def written(given: Mapping[str, Any]) -> str:
    """An object as JSON. Raises BadAnswer."""
    try:
        return json.dumps(given)
    except RecursionError:
        raise BadAnswer("the vendor's arguments of a call are nested too deeply.") from None


def rows_of(value: Any, what: str) -> list[Mapping[str, Any]]:
    """A list of objects; [] of null. Raises BadAnswer."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise BadAnswer(f"the vendor's {what} are {value!r:.40}; expected a list of objects.")
    return value


def logprobs_of(value: Any) -> tuple[TokenLogprob, ...]:
    """Tokens with their log-probabilities. Raises BadAnswer."""
    found = []
    for row in rows_of(value, "logprobs"):
        said, likely = _token(row)
        others = tuple((bytes_, p) for bytes_, p in map(_token, rows_of(row.get("top_logprobs"), "top_logprobs")[:128]))
        found.append(TokenLogprob(-1, text(row.get("token"), "token"), likely, {}, said, others))
    return tuple(found)


def _token(row: Mapping[str, Any]) -> tuple[bytes, float]:
    likely, said = row.get("logprob"), row.get("bytes")
    if isinstance(likely, bool) or not isinstance(likely, (int, float)) or not likely <= 1000:
        raise BadAnswer("the vendor's logprob is none; expected a number, at most 0.")
    likely = max(likely, UNLIKELY)
    if not isinstance(said, list):
        return text(row.get("token"), "token").encode(), float(likely)
    if not all(type(one) is int and 0 <= one < 256 for one in said):
        raise BadAnswer(f"the vendor's bytes of a token are {said!r:.40}; expected numbers below 256.")
    return bytes(said), float(likely)


class Calls:
    """The tool calls of one answer, as they are written; whole and sound at its end."""

    def __init__(self) -> None:
        self.rows: list[_Row] = []
        self._size = 0

    def push(self, at: int, id: str = "", name: str = "", arguments: str = "") -> tuple[ToolDelta, ...]:
        """More of the call at a place; a call is told as soon as its name is known. Raises BadAnswer."""
        if at == len(self.rows):
            if at >= MOST_CALLS:
                raise BadAnswer(f"the vendor's answer calls more than {MOST_CALLS} tools.")
            self.rows.append(_Row())
        row = self.rows[at]
        row.id, row.name = row.id or id, row.name or name
        row.parts.append(arguments)
        self._size += len(arguments)
        if self._size > MOST_WRITTEN:
            raise BadAnswer(
                f"the arguments of {row.name or 'a tool'!r:.60} have more than {MOST_WRITTEN:,} characters."
            )
        if not row.name:
            return ()
        if row.told:
            return (ToolDelta(at, arguments),) if arguments else ()
        row.told, row.id = True, row.id or f"call_{secrets.token_hex(12)}"
        return (ToolDelta(at, "".join(row.parts), row.id, row.name),)

    def closed(self) -> tuple[ToolDelta, ...]:
        """The answer ended by itself: what is missing of calls without arguments. Raises BadAnswer."""
        found = []
        for at, row in enumerate(self.rows):
            written = "".join(row.parts)
            if not row.name:
                raise BadAnswer(f"the vendor's answer calls a tool without a name, with {written!r:.60}.")
            if not written.strip():
                found.append(ToolDelta(at, "{}"))
                continue
            try:
                sound = isinstance(json.loads(written), dict)
            except (ValueError, RecursionError):
                sound = False
            if not sound:
                raise BadAnswer(
                    f"the model called {row.name!r:.60} with {written!r:.80}, which is no JSON object; ask again."
                )
        return tuple(found)


class _Row:
    def __init__(self) -> None:
        self.id, self.name, self.told = "", "", False
        self.parts: list[str] = []
