"""The ways in which models write tool calls: each reads one after its beginning, and tells how it is written.

A call is opened as soon as its name is known and is a given tool's; from there on it is one, whatever follows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from brolly.media.text.answers.reader import Reader, Step, json_string, json_value, stops

NAME = re.compile(r"[\w.-]*")
DIGITS = re.compile(r"[0-9]*")
LONG = 256  # characters of a name or a key
NAMES, ARGUMENTS = ("name", "tool_name"), ("arguments", "parameters")


class Calling(Protocol):
    """Where calls go."""

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The JSON Schema of each given tool's arguments."""
        ...

    def open(self, name: str, id: str | None = None) -> None: ...
    def write(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class JsonCalls:
    """A JSON object that holds the name and the arguments, or a list of such, between two marks.

    Without a first mark it is a call only at the beginning of an answer, and only with arguments.
    """

    begin: str = ""
    end: str = ""
    name: str = "name"
    arguments: str = "arguments"
    listed: bool = False
    also: tuple[str, ...] = ()  # other marks that begin one
    section: tuple[str, str] = ("", "")

    @property
    def bare(self) -> bool:
        return not self.begin

    def read(self, reader: Reader, to: Calling, *, bare: bool) -> Step:
        """One call or a list of them, and the mark behind it."""
        yield from reader.spaces()
        if (yield from reader.literal("[")):
            while True:
                if not (yield from self._one(reader, to, bare)):
                    return False
                yield from reader.spaces()
                if (yield from reader.literal("]")):
                    break
                if not (yield from reader.literal(",")):
                    return False
        else:
            while True:
                if not (yield from self._one(reader, to, bare)):
                    return False
                reader.settle()
                yield from reader.spaces()
                if not (yield from reader.literal("," if self.end else ";")) and (yield from reader.peek()) != "{":
                    break
        reader.settle()
        yield from reader.mark(self.end)
        return True

    def _one(self, reader: Reader, to: Calling, bare: bool) -> Step:
        """{"name": …, "arguments": …} in any order, also within {"function": …}; other members are passed over."""
        name, early, depth = "", list[str](), 1  # `early` are arguments that came before the name
        given = opened = False
        yield from reader.spaces()
        if not (yield from reader.literal("{")):
            return False
        while True:
            yield from reader.spaces()
            key = yield from short_string(reader)
            yield from reader.spaces()
            if key is None or not (yield from reader.literal(":")):
                return False
            yield from reader.spaces()
            if key in (self.name, *NAMES) and not name:
                name = (yield from short_string(reader)) or ""
                if name not in to.tools:
                    return False
                if given:
                    to.open(name)
                    to.write("".join(early))
                    opened = True
            elif key in (self.arguments, *ARGUMENTS) and not given:
                given = True
                if name:
                    to.open(name)
                    opened = True
                if not (yield from arguments(reader, to.write if opened else early.append)):
                    return False
            elif key == "function" and (yield from reader.literal("{")):
                depth += 1
                continue
            elif not (yield from json_value(reader, lambda text: None)):
                return False
            yield from reader.spaces()
            while depth and (yield from reader.literal("}")):
                depth -= 1
                if not depth:
                    break
                yield from reader.spaces()
            if not depth:
                break
            if not (yield from reader.literal(",")):
                return False
        if not name or (bare and not opened):
            return False
        if not opened:
            to.open(name)
            to.write("{}")
        to.close()
        return True


@dataclass(frozen=True)
class NamedCalls:
    """A name between marks, then the arguments as JSON: <function=name>{…}</function>, >>>name, [TOOL_CALLS]name[ARGS].

    `plain` is the name that is no tool and begins ordinary text; `identity` is the mark before a call's id; `numbered`
    names are functions.name:0, which is the id too.
    """

    begin: str
    middle: str
    end: str = ""
    section: tuple[str, str] = ("", "")
    also: tuple[str, ...] = ()
    plain: str = ""
    identity: str = ""
    numbered: bool = False
    bare = False

    def read(self, reader: Reader, to: Calling, *, bare: bool) -> Step:
        yield from reader.spaces()
        name = yield from reader.run(NAME, LONG)
        if self.plain and name == self.plain:
            return (yield from reader.literal("\n"))
        id = None
        if self.numbered and (yield from reader.literal(":")):
            id = f"{name}:{yield from reader.run(DIGITS, LONG)}"
        if self.numbered:
            name = name.removeprefix("functions.")
        if name not in to.tools:
            return False
        if self.identity and (yield from reader.mark(self.identity)):
            yield from reader.spaces()
            id = yield from reader.run(NAME, LONG)
        if not (yield from reader.mark(self.middle)):
            return False
        yield from reader.spaces()
        if (yield from reader.peek()) != "{":
            return False
        to.open(name, id)
        if not (yield from json_value(reader, to.write)):
            return False
        to.close()
        reader.settle()
        yield from reader.mark(self.end)
        return True


@dataclass(frozen=True)
class TaggedCalls:
    """A name, then each argument between marks of its own: <function=name><parameter=key>value</parameter></function>.

    Values are text; the tool's schema says which are to be JSON.
    """

    begin: str
    middle: str  # behind the name
    key: str  # before an argument's name
    between: str  # behind it
    value_end: str
    end: str
    section: tuple[str, str] = ("", "")
    also: tuple[str, ...] = ()
    bare = False

    def read(self, reader: Reader, to: Calling, *, bare: bool) -> Step:
        yield from reader.spaces()
        name = yield from reader.run(NAME, LONG)
        if name not in to.tools or not (yield from reader.mark(self.middle)):
            return False
        properties = to.tools[name].get("properties")
        to.open(name)
        to.write("{")
        n = 0
        while (yield from reader.mark(self.key)):
            found: list[str] = []
            if not (yield from reader.upto(stops(self.between.split()[0]), found.append)):
                return False
            for part in self.between.split()[1:]:
                yield from reader.mark(part)
            if self.between.endswith("\n"):
                yield from reader.literal("\n")
            key = "".join(found).strip()
            to.write(f"{', ' if n else ''}{json.dumps(key, ensure_ascii=False)}: ")
            schema = properties.get(key) if isinstance(properties, Mapping) else None
            if not (yield from self._value(reader, to.write, schema if isinstance(schema, Mapping) else {})):
                return False
            n += 1
        if not (yield from reader.mark(self.end.split()[0])) and not (reader.ended and not (yield from reader.peek())):
            return False
        to.write("}")
        to.close()
        reader.settle()
        for part in self.end.split()[1:]:
            yield from reader.mark(part)
        return True

    def _value(self, reader: Reader, write: Callable[[str], None], schema: Mapping[str, Any]) -> Step:
        tag = self.value_end.strip()
        ends = stops(tag, "\n" + tag) if self.value_end.startswith("\n") else stops(tag)
        kinds = kinds_of(schema)
        if kinds == {"string"}:
            write('"')
            if not (yield from reader.upto(ends, lambda t: write(json.dumps(t, ensure_ascii=False)[1:-1]))):
                return False
            write('"')
            return True
        held: list[str] = []
        if not (yield from reader.upto(ends, held.append)):
            return False
        write(value_of("".join(held), kinds))
        return True


@dataclass(frozen=True)
class Channels:
    """OpenAI's harmony: every message says in its head which channel it is on and to whom it goes."""

    section: tuple[str, str] = ("", "")
    bare = False


Calls = JsonCalls | NamedCalls | TaggedCalls | Channels


def short_string(reader: Reader) -> Generator[None, None, str | None]:
    """A JSON string of a name's length, read; None where there is none."""
    found: list[str] = []
    if not (yield from json_string(reader, found.append)):
        return None
    text = "".join(found)
    return json.loads(text) if len(text) <= 6 * LONG else None


def arguments(reader: Reader, write: Callable[[str], None]) -> Step:
    """Arguments as JSON, or as a string that holds JSON."""
    if (yield from reader.peek()) != '"':
        return (yield from json_value(reader, write))
    found: list[str] = []
    if not (yield from json_string(reader, found.append)):
        return False
    text = "".join(found)
    write(inner if is_object(inner := json.loads(text)) else text)
    return True


def is_object(text: Any) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(text, str) and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def kinds_of(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema allows; none where it does not say."""
    said = schema.get("type")
    values = schema.get("enum")
    if said is None and isinstance(values, list) and values and all(isinstance(v, str) for v in values):
        return {"string"}
    for key in ("anyOf", "oneOf"):
        if said is None and isinstance(schema.get(key), list):
            return {kind for one in schema[key] if isinstance(one, Mapping) for kind in kinds_of(one)}
    return {k for k in (said if isinstance(said, list) else [said]) if isinstance(k, str)}


def value_of(text: str, kinds: set[str]) -> str:
    """A value that was written as text, as JSON of one of these types; a string where it is none of them."""
    words = {"True": "true", "False": "false", "None": "null"}
    plain = words.get(text.strip(), text.strip())
    try:
        value = json.loads(plain, parse_constant=lambda word: None)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    kind = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    found = kind.get(type(value), "null")
    fits = not kinds or found in kinds or (found == "integer" and "number" in kinds)
    if "string" in kinds and (not fits or found == "string"):
        return json.dumps(text, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False) if plain in ("NaN", "Infinity", "-Infinity") else plain
