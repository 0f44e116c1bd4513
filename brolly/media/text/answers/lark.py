"""Grammars of tool calls in a model's own format, in the Lark that llguidance reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from brolly.media.text.answers.calls import Calls, Channels, JsonCalls, NamedCalls, TaggedCalls, kinds_of

Rows = Sequence[tuple[str, Mapping[str, Any]]]
TEXT = r"/(.|\n)*/"
OBJECT: Mapping[str, Any] = {"type": "object"}


def forced_grammar(
    calls: Calls, thoughts: tuple[str, str] | None, rows: Rows, several: bool, begun: str, control: Mapping[str, int]
) -> str:
    """Thoughts, if the model has any, then a call of one of these tools, or several."""
    spell = Spelling(control)
    if isinstance(calls, Channels):
        spell.rules.append(
            f"thoughts: {spell('<|channel|>analysis<|message|>')} {TEXT} {spell('<|end|><|start|>assistant')}"
        )
        return spell.grammar(f"thoughts? ({_any(calls, rows, spell, '')})")
    before = spell.thoughts(thoughts, begun)
    opening = begun if begun and not (thoughts and begun == thoughts[0]) else ""
    one = _any(calls, rows, spell, "")
    if isinstance(calls, JsonCalls) and calls.listed:
        more = f'(", " ({one}))*' if several else ""
        body = f'{spell(calls.begin)} "[" ({one}) {more} "]" {spell(calls.end)}'
    else:
        first = f"({_any(calls, rows, spell, opening)})" if opening else f"({one})"
        bare = calls.bare
        more = f'("\\n"? ({one}))*' if several and not bare and not calls.section[0] else f"({one})*"
        body = f"{first} {more if several and not bare else ''}"
    section = calls.section if calls.section[0] else ("", "")
    return spell.grammar(f"{before} {spell(section[0])} {body} {spell(section[1])}")


def free_grammar(
    calls: Calls, thoughts: tuple[str, str] | None, rows: Rows, parallel: bool, begun: str, control: Mapping[str, int]
) -> str | None:
    """Any text, in which a call once begun keeps to its tool's schema; None where that cannot be said."""
    spell = Spelling(control)
    if isinstance(calls, Channels) or begun:
        return None
    several = "*" if parallel else "?"
    if calls.bare:
        one = _any(calls, rows, spell, "")
        spell.rules.append(r"words: /[^{\s](.|\n)*/")
        return spell.grammar(f"{spell.thoughts(thoughts, begun)} (words | {one})")
    begin = calls.section[0] or calls.begin
    mark = re.split(r"(?<=>)|\s", begin)[0] or begin
    one = _any(calls, rows, spell, "")
    if isinstance(calls, JsonCalls) and calls.listed:
        one = f'{spell(calls.begin)} "[" ({one}) (", " ({one}))* "]" {spell(calls.end)}'
    whole = f"{spell(calls.section[0])} ({one})+ {spell(calls.section[1])}" if calls.section[0] else f"({one})"
    if mark in control:
        return spell.grammar(f"({TEXT} {whole}){several} {TEXT}")
    # the text up to the mark is one lexeme, so what follows goes without it
    text = whole.replace(json.dumps(begin, ensure_ascii=False), "until_mark", 1)
    rest = begin[len(mark) :]
    spell.rules.append(f"until_mark: mark {spell(rest)}")
    spell.rules.append(f"mark[lazy]: {TEXT[:-1]}{re.escape(mark).replace('/', chr(92) + '/')}/")
    for i in range(len(spell.rules)):
        if calls.begin == begin and spell.rules[i].startswith("call_"):
            spell.rules[i] = spell.rules[i].replace(json.dumps(begin, ensure_ascii=False), "until_mark", 1)
    return spell.grammar(f"({text}){several} {TEXT}")


class Spelling:
    """Texts as a grammar spells them: control tokens by their ids, all else as it is; and the rules made so far."""

    def __init__(self, control: Mapping[str, int]) -> None:
        self.control, self.rules = control, list[str]()
        found = sorted(filter(None, control), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, found))})" if found else r"(?!)")

    def __call__(self, text: str) -> str:
        parts = [part for part in self._split.split(text) if part]
        return " ".join(
            f"<[{self.control[part]}]>" if part in self.control else json.dumps(part, ensure_ascii=False)
            for part in parts
        )

    def until(self, name: str, stop: str) -> str:
        """A rule for any text up to and with a stop."""
        if stop in self.control:
            self.rules.append(f"{name}: {TEXT} {self(stop)}")
        else:
            self.rules.append(f"{name}[suffix={json.dumps(stop, ensure_ascii=False)}]: {TEXT}")
        return name

    def thoughts(self, marks: tuple[str, str] | None, begun: str) -> str:
        if not marks:
            return ""
        rest = f"{self.until('thoughts', marks[1])} /\\s*/"
        return rest if begun == marks[0] else f"({self(marks[0])} {rest})?"

    def grammar(self, start: str) -> str:
        return "\n".join(["%llguidance {}", f"start: {start}", *self.rules, ""])


def _any(calls: Calls, rows: Rows, spell: Spelling, opened: str) -> str:
    """One call of any of the tools, as an alternative of rules."""
    made = []
    for i, (name, schema) in enumerate(rows):
        rule = f"call_{i}" if not opened else f"first_{i}"
        spell.rules.append(f"{rule}: {_one(calls, name, schema, spell, opened, i)}")
        made.append(rule)
    return " | ".join(made)


def _json(schema: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**OBJECT, **schema}, ensure_ascii=False)


def _one(calls: Calls, name: str, schema: Mapping[str, Any], spell: Spelling, opened: str, i: int) -> str:
    match calls:
        case JsonCalls():
            head = f"{{{json.dumps(calls.name)}: {json.dumps(name)}, {json.dumps(calls.arguments)}: "
            begin, end = ("", "") if calls.listed else (calls.begin, calls.end)
            return f'{spell(begin)} {spell(head)} {_json(schema)} "}}" {spell(end)}'
        case NamedCalls():
            numbered = f'"functions." {json.dumps(name)} ":" /[0-9]+/' if calls.numbered else spell(name)
            id = f"{spell(calls.identity)} /[a-zA-Z0-9]{{9}}/" if calls.identity else ""
            begin = calls.begin.removeprefix(opened)
            return f"{spell(begin)} {numbered} {id} {spell(calls.middle)} {_json(schema)} {spell(calls.end)}"
        case Channels():
            head = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
            return f"{spell(head)} {_json(schema)}"
        case TaggedCalls():
            return f"{spell(calls.begin + name + calls.middle)} {_tagged(calls, schema, spell, i)} {spell(calls.end)}"


def _tagged(calls: TaggedCalls, schema: Mapping[str, Any], spell: Spelling, i: int) -> str:
    """The arguments of a tagged call, each in its place; those that are not required may be left out."""
    properties = schema.get("properties")
    required = schema.get("required")
    parts = []
    gap = "" if not re.search(r"\s$", calls.value_end) and calls.end.startswith("\n") is False else '"\\n"?'
    for n, (key, value) in enumerate(properties.items() if isinstance(properties, Mapping) else ()):
        value = value if isinstance(value, Mapping) else {}
        values = value.get("enum")
        if isinstance(values, list) and values and all(isinstance(v, str) for v in values):
            text = f"({' | '.join(spell(v) for v in values)}) {spell(calls.value_end)}"
        elif kinds_of(value) in ({"string"}, set()):
            text = spell.until(f"value_{i}_{n}", calls.value_end)
        else:
            text = f"%json {json.dumps(value, ensure_ascii=False)} {spell(calls.value_end)}"
        spell.rules.append(f"argument_{i}_{n}: {gap} {spell(calls.key + key + calls.between)} {text}")
        need = isinstance(required, list) and key in required
        parts.append(f"argument_{i}_{n}" if need else f"argument_{i}_{n}?")
    return " ".join(parts)
