"""How a model writes tool calls and thoughts: seen by rendering its chat template with values that can be found again.

What the template does not render is looked for in its text and among the tokenizer's added tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from os.path import commonprefix
from typing import Any

from brolly.errors import TemplateError
from brolly.media.text.answers.calls import Calls, Channels, JsonCalls, NamedCalls, TaggedCalls
from brolly.media.text.template import ChatTemplate

QUESTION, WORDS, THOUGHTS, RESULT = "Zebrafrage", "Zebraworte", "Zebragedanken", "Zebraantwort"
FIRST, SECOND = "zebra_tool", "zebra_other"
ARGUMENTS: dict[str, Any] = {"zebra_key": "zebra value", "zebra_more": "zebra rest"}
IDS = ("zebraid00", "functions.zebra_tool:0")
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Zebra.",
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string", "description": "Zebra."} for key in ARGUMENTS},
                "required": list(ARGUMENTS),
            },
        },
    }
    for name in (FIRST, SECOND)
]
TAG = re.compile(r"<[^<>\s]{1,80}>|\[/?[A-Z_]{1,80}\]|◁[^▷]{1,80}▷|```\w{0,80}")
LONG = 256  # characters of a mark; what is longer is no mark but a template's prose
NEAR = 16  # brackets before a name, of which one may open the call's JSON
# what ends an answer or begins the next turn, whoever writes it
TURN = re.compile(r"<[|｜]?(eo[mts]\b|eo[mts]_|end\||im_|END_OF|START_OF|start_|end[_▁]of)|</s>")
PAIRS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
GENERIC = JsonCalls("<tool_call>\n", "\n</tool_call>")
# what a text names that renders no calls: the mark in it, and how calls are then written
NAMED: tuple[tuple[str, Calls], ...] = (
    ("<|tool_call|>", JsonCalls("<|tool_call|>", "<|/tool_call|>", listed=True)),
    ("<function=", NamedCalls("<function=", ">", "</function>")),
    ("<tool_call>", GENERIC),
    ("[TOOL_CALLS]", JsonCalls("[TOOL_CALLS]", listed=True)),
    ("functools[", JsonCalls("functools", listed=True)),
    ("<|python_tag|>", JsonCalls(arguments="parameters", also=("<|python_tag|>",))),
)


@dataclass(frozen=True)
class Deduced:
    """What a template does with tools: whether it shows them, renders calls, and in what form it takes arguments."""

    calls: Calls
    thoughts: tuple[str, str] | None
    shown: bool
    rendered: bool
    objects: bool
    beside: bool = False  # tools are shown only beside a system message
    within: bool = False  # and there they are a text of the message's own
    empty: str | None = ""  # the content of a message that only calls
    alone: bool = False  # a message shows either words or calls
    single: bool = False  # a message shows one call


def deduce(template: ChatTemplate, control: Collection[str], added: Collection[str]) -> Deduced:
    """Read a template. `control` are the texts of control tokens, `added` those of all added tokens."""
    source = template.source_for(tools=True)
    names = {*control, *added}
    shown, system, within = _shows_tools(template)
    if "<|channel|>" in source and "<|message|>" in source:
        return Deduced(Channels(), None, shown, True, True, system, within, single=True)
    thoughts = _thoughts(template, source, names)
    for part, objects, given, empty, alone in _renderings(template):
        if (calls := _calls(part, given)) is not None and _short(calls):
            calls = _with_others(calls, source, names)
            return Deduced(calls, thoughts, shown, True, objects, system, within, empty, alone, not part.two)
    found = next((calls for mark, calls in NAMED if mark in source or (shown and mark in names)), None)
    return Deduced(found or GENERIC, thoughts, shown and found is not None, False, True, system, within)


@dataclass(frozen=True)
class Part:
    """What a template writes for an answer with one call and with two, without what stands around any answer."""

    one: str
    two: str | None
    head: str
    tail: str


def attempt(template: ChatTemplate, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """A rendering, or None where the template refuses. Raises TemplateError where it had to be stopped."""
    try:
        return template.render(messages, **options)
    except TemplateError as error:
        if "was stopped" in str(error):
            raise
        return None


def _shows_tools(template: ChatTemplate) -> tuple[bool, bool, bool]:
    """Whether tools are shown, whether only beside a system message, and whether as a text of its own."""
    question, system = {"role": "user", "content": QUESTION}, {"role": "system", "content": WORDS}
    extra: dict[str, Any] = {"tools": TOOLS, **fillers(template, TOOLS)}
    if FIRST in (attempt(template, [question], **extra) or ""):
        return True, False, False
    if FIRST in (attempt(template, [system, question], **extra) or ""):
        return True, True, False
    told = FIRST in (attempt(template, [{**system, "tools": json.dumps(TOOLS)}, question]) or "")
    return told, told, told


def fillers(template: ChatTemplate, tools: Any) -> dict[str, Any]:
    """Values that single publishers' templates ask for by names of their own: firefunction's and SmolLM 3's."""
    source = template.source_for(tools=bool(tools))
    found: dict[str, Any] = {}
    if re.search(r"\+\s*functions\b", source):
        found["functions"] = json.dumps(tools or [], indent=2, ensure_ascii=False)
    if tools and re.search(r"\bxml_tools\b", source):
        found["xml_tools"] = tools
    if re.search(r"\+\s*datetime\b", source):
        from datetime import UTC, datetime

        found["datetime"] = datetime.now(UTC).strftime("%Y-%m-%d")
    return found


def _renderings(template: ChatTemplate) -> Iterator[tuple[Part, bool, str, str | None, bool]]:
    """The call rendered in each way that a template may ask for: with what Part it leaves, whether arguments were an
    object, the first call's id, the content beside it, and whether words beside it would hide it."""
    question = {"role": "user", "content": QUESTION}
    for tools in (TOOLS, None):
        extra = {"tools": tools, **fillers(template, tools)}

        def answered(answer: dict[str, Any], extra: dict[str, Any] = extra) -> str:
            answer = {"role": "assistant", **answer}
            return _behind(attempt(template, [question, answer], add_generation_prompt=False, **extra) or "", QUESTION)

        asked = _behind(attempt(template, [question], **extra) or "", QUESTION)
        head, _, tail = answered({"content": WORDS}).partition(WORDS)
        for objects, content, id in product((True, False), ("", None), IDS):
            one = answered({"content": content, "tool_calls": calls_of(objects, id, FIRST)})
            if FIRST not in one or "zebra_key" not in one or r"\"zebra_key" in one:
                continue
            before = one[: one.index(FIRST)]
            start = next((h for h in (head, asked) if h and before.startswith(h)), None)
            if start is None:  # what both share, back to where a mark begins
                start = commonprefix([before, head or asked])
                start = start[: start.rfind("<")] if "<" in start else start
            two = answered({"content": content, "tool_calls": calls_of(objects, id, FIRST, SECOND)})
            both = SECOND in two and two.startswith(start)
            worded = answered({"content": WORDS, "tool_calls": calls_of(objects, id, FIRST)})
            part = Part(one[len(start) :], two[len(start) :] if both else None, start, tail)
            yield part, objects, id, content, bool(worded) and FIRST not in worded


def calls_of(objects: bool, id: str, *names: str) -> list[dict[str, Any]]:
    """Calls of these tools; ids end in a number that counts from 0."""
    given: Any = ARGUMENTS if objects else json.dumps(ARGUMENTS)
    return [
        {
            "id": id.replace(FIRST, name)[:-1] + str(n),
            "type": "function",
            "function": {"name": name, "arguments": given},
        }
        for n, name in enumerate(names)
    ]


def _behind(text: str, what: str) -> str:
    return text[text.rfind(what) + len(what) :] if what in text else text


def _calls(part: Part, id: str) -> Calls | None:
    """The format of a rendered call."""
    body = part.one
    at = body.index(FIRST)
    for start in [m.start() for m in re.finditer(r"[\[{]", body[:at])][-NEAR:]:
        try:
            value, length = json.JSONDecoder().raw_decode(body[start:])
        except (ValueError, RecursionError):
            continue
        call = value[0] if isinstance(value, list) and value else value
        call = call.get("function", call) if isinstance(call, dict) else {}
        name = next((k for k, v in call.items() if v == FIRST), None)
        given = next((k for k, v in call.items() if v in (ARGUMENTS, json.dumps(ARGUMENTS))), None)
        if name and given:
            begin, end = body[:start], _end(part, body[start + length :])
            return JsonCalls(_mark(begin), end, name, given, isinstance(value, list))
    try:
        start = body.index("{", at)
        value, length = json.JSONDecoder().raw_decode(body[start:])
    except (ValueError, RecursionError):
        value = None
    if value == ARGUMENTS:
        return _named(part, at, start, start + length, id)
    return _tagged(part, at)


def _short(calls: Calls) -> bool:
    texts = [t for found in vars(calls).values() for t in (found if isinstance(found, tuple) else [found])]
    return all(len(text) <= LONG for text in texts if isinstance(text, str))


def _mark(begin: str) -> str:
    """What stands before a call: from its first mark on, without the thoughts that a template writes before it."""
    for opening, closing in PAIRS:
        if opening in begin and closing in begin:
            begin = begin.partition(closing)[2]
    return begin.lstrip()


def _end(part: Part, rest: str) -> str:
    """What ends a call, of what stands behind its last value: without what ends any answer."""
    marks = re.match(rf"(\s*({TAG.pattern}))*", rest)
    tags, last = TAG.findall(marks.group() if marks else ""), TAG.findall(part.tail)
    while tags and last and tags[-1] == last[-1]:
        tags, last = tags[:-1], last[:-1]
    stop = 0
    for tag in tags:
        if TURN.match(tag):
            break
        stop = rest.index(tag, stop) + len(tag)
    return rest[:stop]


def _shared_end(a: str, b: str) -> str:
    """The longest common end of two texts that begins with a mark."""
    common = commonprefix([a[::-1], b[::-1]])[::-1]
    tags = [m.start() for m in re.finditer(r"[<\[◁]|```|>>>", common)] if common else []
    return common[tags[0] :] if tags else ""


def _sections(part: Part, begin: str, rest: str, last: str) -> tuple[str, tuple[str, str], str]:
    """A call's own beginning, the marks around all calls, and its end; `rest` stands behind the last value."""
    end = _end(part, rest)
    if part.two is None:
        return begin, ("", ""), end
    between = part.two[: part.two.index(SECOND)]
    between = between[between.rindex(last) + len(last) :]
    own = begin if between.endswith(begin) else _shared_end(begin, between)
    if not own:
        return begin, ("", ""), end
    own_end = between.removesuffix(own).rstrip()
    whole = _end(part, part.two[part.two.rindex(last) + len(last) :])
    closing = whole[len(own_end) :] if whole.startswith(own_end) else ""
    return own, (begin.removesuffix(own).strip(), closing.strip()), own_end


def _named(part: Part, at: int, start: int, stop: int, id: str) -> NamedCalls:
    body = part.one
    last = json.dumps(ARGUMENTS)[-5:]
    begin, middle = body[:at], body[at + len(FIRST) : start]
    plain = "" if middle.strip() else "all"  # recipients: what is said to all is no call
    if plain:
        begin = begin or re.split(r"\s", part.head)[-1]
    begin, section, end = _sections(part, begin.lstrip(), body[stop:], last)
    numbered = begin.endswith("functions.") and middle.startswith(":0")
    if numbered:
        begin, middle = begin.removesuffix("functions."), middle[2:]
    identity = ""
    if id in middle:
        identity, _, middle = middle.partition(id)
    return NamedCalls(begin, middle, end, section, (), plain, identity, numbered)


def _tagged(part: Part, at: int) -> TaggedCalls | None:
    body, keys, values = part.one, list(ARGUMENTS), list(ARGUMENTS.values())
    places = [body.find(text, at) for pair in zip(keys, values, strict=True) for text in pair]
    if -1 in places or places != sorted(places):
        return None
    first, value, second, rest = places
    before_key = body[at + len(FIRST) : first]
    between = body[first + len(keys[0]) : value]
    after_value = body[value + len(values[0]) : second]
    key = _shared_end(before_key, after_value)
    if not key or not between.strip():
        return None
    value_end = after_value.removesuffix(key)
    tag = TAG.search(value_end)
    behind = body[rest + len(values[1]) :]
    value_end = value_end[: tag.end()] if tag else value_end
    begin, section, end = _sections(part, body[:at].lstrip(), behind, values[1])
    end = end.removeprefix(value_end)
    also = tuple(t for t in re.findall(r"<[^<>\s]+$", begin) if t != begin)
    return TaggedCalls(begin, before_key.removesuffix(key), key, between, value_end, end, section, also)


def _with_others(calls: Calls, source: str, names: Collection[str]) -> Calls:
    """A JSON format with the other marks that the model knows to begin one."""
    tag = "<|python_tag|>"
    if isinstance(calls, JsonCalls) and calls.bare and (tag in source or tag in names):
        return replace(calls, also=(tag,))
    return calls


def _thoughts(template: ChatTemplate, source: str, names: Collection[str]) -> tuple[str, str] | None:
    """The marks around thoughts: known ones that the template or a token names, or those that the template writes."""
    for pair in PAIRS:
        if any(mark in source or mark in names for mark in pair):
            return pair
    answer = {"role": "assistant", "content": WORDS, "reasoning_content": THOUGHTS, "thinking": THOUGHTS}
    messages = [{"role": "user", "content": QUESTION}, answer]
    text = attempt(template, messages, add_generation_prompt=False, **fillers(template, None)) or ""
    before, found, behind = _behind(text, QUESTION).partition(THOUGHTS)
    opening, closing = TAG.findall(before), TAG.match(behind.lstrip())
    if found and opening and closing and before.rstrip().endswith(opening[-1]):
        return opening[-1], closing.group()
    return None
