"""Grammars of tool calls in a model's own format, in the Lark that llguidance reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from brolly.media.text.answers.calls import Calls, Channels, JsonCalls, NamedCalls, TaggedCalls, kinds_of

Rows = Sequence[tuple[str, Mapping[str, Any]]]  # a tool's name and its arguments' schema
TEXT = r"/(.|\n)*/"


def json_expression(schema: Mapping[str, Any]) -> str:
    """A JSON Schema as a grammar's expression."""
    return "%json " + json.dumps(schema, ensure_ascii=False)


class Spelling:
    """Texts as a grammar spells them, control tokens by their ids and all else as it is; and the rules made so far."""

    def __init__(self, control: Mapping[str, int], rule: Callable[[Mapping[str, Any]], str] = json_expression) -> None:
        self.control, self.rule, self.rules = control, rule, list[str]()
        found = sorted(filter(None, control), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, found))})" if found else r"(?!)")

    def __call__(self, text: str) -> str:
        parts = [part for part in self._split.split(text) if part]
        spelled = (f"<[{self.control[p]}]>" if p in self.control else json.dumps(p, ensure_ascii=False) for p in parts)
        return " ".join(spelled)

    def until(self, name: str, stop: str) -> str:
        """A rule for any text up to and with a stop."""
        if stop in self.control:
            self.rules.append(f"{name}: {TEXT} {self(stop)}")
        else:
            self.rules.append(f"{name}[lazy]: {TEXT[:-1]}{_pattern(stop)}/")
        return name

    def thoughts(self, marks: tuple[str, str] | None, begun: str) -> str:
        """What a model may think first; the rest of it where the prompt has begun it."""
        if not marks:
            return ""
        rest = f"{self.until('thoughts', marks[1])} /\\s*/"
        return rest if begun == marks[0] else f"({self(marks[0])} {rest})?"

    def grammar(self, start: str) -> str:
        return "\n".join(["%llguidance {}", f"start: {start}", *self.rules, ""])


def forced_grammar(
    calls: Calls, thoughts: tuple[str, str] | None, rows: Rows, several: bool, begun: str, spell: Spelling
) -> str:
    """Thoughts, if the model has any, then a call of one of these tools, or several."""
    if isinstance(calls, Channels):
        head, tail = spell("<|channel|>analysis<|message|>"), spell("<|end|><|start|>assistant")
        return spell.grammar(f"({head} {TEXT} {tail})? {_body(calls, rows, spell, '', False)}")
    before = spell.thoughts(thoughts, begun)
    head = spell((calls.section[0] or calls.begin).removeprefix(begun if begun != (thoughts or [""])[0] else ""))
    return spell.grammar(f"{before} {_body(calls, rows, spell, head, several and not calls.bare)}")


def free_grammar(
    calls: Calls, thoughts: tuple[str, str] | None, rows: Rows, parallel: bool, begun: str, spell: Spelling
) -> str | None:
    """Any text, in which a call once begun keeps to its tool's schema; None where that cannot be said."""
    if isinstance(calls, Channels) or (isinstance(calls, NamedCalls) and calls.plain):
        return None
    before = spell.thoughts(thoughts, begun)
    if calls.bare:
        return spell.grammar(rf"{before} (/[^{{\[\s](.|\n)*/ | {_body(calls, rows, spell, '', False)})?")
    first = calls.section[0] or calls.begin
    mark = re.split(r"(?<=>)|\s", first)[0] or first
    rest = spell(first[len(mark) :])
    until = spell.until("words", mark)
    times = "*" if parallel else "?"
    return spell.grammar(f"{before} ({until} {_body(calls, rows, spell, rest, False)}){times} {TEXT}")


def _body(calls: Calls, rows: Rows, spell: Spelling, head: str, several: bool) -> str:
    """A call of any of the tools, or several, behind `head`, which is what the first one begins with."""
    for i, (name, schema) in enumerate(rows):
        spell.rules.append(f"call_{i}: {_one(calls, name, {'type': 'object', **schema}, spell, i)}")
    one = f"({' | '.join(f'call_{i}' for i in range(len(rows)))})"
    if isinstance(calls, Channels):
        return one
    end = spell(calls.end)
    if isinstance(calls, JsonCalls) and calls.listed:
        more = f'(", " {one})*' if several else ""
        return f'{head} "[" {one} {more} "]" {end}'
    again = f'("\\n"? {spell(calls.begin)} {one} {end})'
    if calls.section[0]:
        return f'{head} {again}{"+" if several else ""} "\\n"? {spell(calls.section[1])}'
    return f"{head} {one} {end} {again + '*' if several else ''}"


def _one(calls: Calls, name: str, schema: Mapping[str, Any], spell: Spelling, i: int) -> str:
    """A call without what begins and ends it."""
    match calls:
        case JsonCalls():
            head = f"{{{json.dumps(calls.name)}: {json.dumps(name)}, {json.dumps(calls.arguments)}: "
            return f'{spell(head)} {spell.rule(schema)} "}}"'
        case NamedCalls():
            whole = f'"functions.{name}:" /[0-9]+/' if calls.numbered else spell(name)
            id = f"{spell(calls.identity)} /[a-zA-Z0-9]{{9}}/" if calls.identity else ""
            return f"{whole} {id} {spell(calls.middle)} {spell.rule(schema)}"
        case Channels():
            head = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
            return f"{spell(head)} {spell.rule(schema)}"
        case TaggedCalls():
            return f"{spell(name + calls.middle)} {_tagged(calls, schema, spell, i)}"


def _tagged(calls: TaggedCalls, schema: Mapping[str, Any], spell: Spelling, i: int) -> str:
    """The arguments of a tagged call, each in its place; those that are not required may be left out."""
    properties, required = schema.get("properties"), schema.get("required")
    if properties is None:  # any arguments
        any_value = spell.until(f"value_{i}", calls.value_end)
        either = f"({spell(chr(10) + calls.key)} | {spell(calls.key)})"
        spell.rules.append(f'argument_{i}: {either} /[^<>="\\n]+/ {spell(calls.between)} {any_value}')
        return f"argument_{i}*"
    shared = {word: schema[word] for word in ("$defs", "definitions") if word in schema}
    parts = []
    for n, (key, given) in enumerate(properties.items() if isinstance(properties, Mapping) else ()):
        value = given if isinstance(given, Mapping) else {}
        values = value.get("enum")
        if isinstance(values, list) and values and all(isinstance(v, str) for v in values):
            text = f"({' | '.join(map(spell, values))}) {spell(calls.value_end)}"
        elif "string" in (kinds_of(value) or {"string"}):
            text = spell.until(f"value_{i}_{n}", calls.value_end)
        else:
            text = f"{spell.rule({**shared, **value})} {spell(calls.value_end)}"
        # one lexeme with its line break: llguidance's lexer takes the longest and does not go back
        head = calls.key + key + calls.between
        spell.rules.append(f"argument_{i}_{n}: ({spell(chr(10) + head)} | {spell(head)}) {text}")
        parts.append(f"argument_{i}_{n}" + ("" if isinstance(required, list) and key in required else "?"))
    return " ".join(parts)


def _pattern(text: str) -> str:
    """A text as a part of a regular expression between slashes."""
    return re.sub(r"([][\\^$.|?*+(){}/&~#-])", r"\\\1", text).replace("\n", r"\n")
