"""A conversation in OpenAI's shape as a model's own template takes it: one prompt.

A template that refuses is asked again, with the conversation changed a step further each time, in this order:

1. ids of calls of nine letters and digits;
2. all system messages as one at the beginning;
3. neighbours of one role joined;
4. the system message at the head of the first question;
5. calls and their results as text of the assistant and the user;
6. an empty question before an answer that comes first;
7. all of these with the tools told in a system text, and none, then an empty list of them, for the template.

If nothing helps, what the template said first is raised. Nothing in a conversation's calls is checked: one that is no
JSON, names no tool or has no id is shown to the model as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from brolly.errors import OptionError, TemplateError, UnsupportedTask
from brolly.media.text.answers.calls import NamedCalls, is_object
from brolly.media.text.answers.deduce import fillers
from brolly.media.text.answers.format import AnswerFormat, Tools, function_of
from brolly.media.text.answers.written import written
from brolly.media.text.template import ChatTemplate

Message = dict[str, Any]
TEXTS = ("text", "input_text", "output_text")
TELL = """You may call these functions, whose parameters are told by JSON Schemas:

{tools}

To call one, write exactly this:

{example}

Its result comes next. Where none helps, answer in words."""
BESIDE = "You are a helpful assistant with some tools."


def render_chat(
    template: ChatTemplate, format: AnswerFormat, messages: Sequence[Mapping[str, Any]], *, tools: Tools = (),
    extra: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """The prompt for a conversation; `extra` reaches the template by name.

    Raises OptionError, TemplateError, UnsupportedTask at an image or a sound.
    """
    said = plain(messages)
    tools = [{**t, "function": {k: v for k, v in function_of(t).items() if k != "strict"}} for t in tools]
    if isinstance(format.calls, NamedCalls) and format.calls.numbered:
        said = numbered(said)
    for message in said:
        shaped(message, format)
    if not format.rendered:
        said = as_text(said, format)
    if taken := {"messages", "tools"} & set(extra or ()):
        raise OptionError(f"{min(taken)!r} cannot be given to the template apart; it is an argument of its own.")
    first: TemplateError | None = None
    ways = [tools] if tools and format.shown else []
    for given in [*ways, None, []]:
        options = {**fillers(template, given), **(extra or {})}
        for form in forms(with_tools(said, tools, format, bool(given)), format):
            try:
                return template.render(form, tools=given, **options)
            except TemplateError as error:
                first = first or error
    assert first
    raise first


def with_tools(said: list[Message], tools: Tools, format: AnswerFormat, shown: bool) -> list[Message]:
    """The conversation with what the template needs beside tools that it shows, or with the tools told in words."""
    if tools and not shown:
        return told(said, TELL.format(tools="\n".join(_line(t) for t in tools), example=example(format)))
    if not tools or not format.beside:
        return said
    own = bool(said) and said[0]["role"] == "system"
    system = said[0] if own else {"role": "system", "content": BESIDE}
    more = {"tools": json.dumps([function_of(t) for t in tools], ensure_ascii=False)} if format.within else {}
    return [{**system, **more}, *(said[1:] if own else said)]


def numbered(said: list[Message]) -> list[Message]:
    """Ids of calls as a numbered format has them: functions.name:0, counted through the conversation."""
    names: dict[str, str] = {}
    for message in said:
        for call in message.get("tool_calls", ()):
            new = f"functions.{call['function']['name']}:{len(names)}"
            names[call["id"]] = call["id"] = call["id"] if call["id"].startswith("functions.") else new
        if message.get("tool_call_id") in names:
            message["tool_call_id"] = names[message["tool_call_id"]]
    return said


def plain(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages with a role that templates know, texts as content, and an id and a name for every call and result."""
    said: list[Message] = []
    waiting: dict[str, str] = {}  # names of calls without a result, by their ids
    for n, given in enumerate(messages):
        if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
            raise TemplateError(f"A message is {given!r:.200}; expected a list of objects with a role.")
        message: Message = dict(given)
        message["role"] = {"developer": "system", "function": "tool"}.get(given["role"], given["role"])
        message["content"] = text_of(given.get("content"))
        if isinstance(old := message.pop("function_call", None), Mapping):
            message["tool_calls"] = [{"function": old}]
        calls = message.pop("tool_calls", None)
        if isinstance(calls, list) and calls and message["role"] == "assistant":
            message["tool_calls"] = [call_of(call, f"call{n:03}{i:02}") for i, call in enumerate(calls)]
            waiting |= {call["id"]: call["function"]["name"] for call in message["tool_calls"]}
        elif message["role"] == "tool":
            id = message.get("tool_call_id")
            id = str(id) if id else next(iter(waiting), f"call{n:03}00")
            message["tool_call_id"] = id
            message.setdefault("name", waiting.pop(id, ""))
        if message["content"] is None and "tool_calls" not in message:
            message["content"] = ""
        said.append(message)
    return said


def text_of(content: Any) -> str | None:
    """A message's text, of a text or a list of parts. Raises UnsupportedTask at what is no text."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False, default=str)
    found = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if kind == "refusal":
            text = part.get("refusal")
        elif kind not in TEXTS:
            raise UnsupportedTask(f"a message holds a part of type {kind!r:.60}; this model reads text alone.")
        if not isinstance(text, str):
            raise OptionError(f"a part of a message is {part!r:.120}; it must hold a text.")
        found.append(text)
    return "".join(found)


def call_of(call: Any, id: str) -> Message:
    """A call of the history with all that templates look for, whatever it lacks."""
    call = call if isinstance(call, Mapping) else {"function": {"name": "", "arguments": call}}
    function = call.get("function")
    function = function if isinstance(function, Mapping) else call
    given = function.get("arguments", "{}")
    return {
        "id": str(call.get("id") or id),
        "type": "function",
        "function": {"name": str(function.get("name") or ""), "arguments": given},
    }


def shaped(message: Message, format: AnswerFormat) -> None:
    """Arguments as the template takes them: an object or a JSON text; what is neither stays as it is."""
    for call in message.get("tool_calls", ()):
        function = call["function"]
        given = function["arguments"]
        if not format.rendered or not format.objects:
            function["arguments"] = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        elif is_object(given):
            function["arguments"] = json.loads(given)
        elif not str(given).strip():
            function["arguments"] = {}
    if "tool_calls" in message and not message["content"]:
        message["content"] = format.empty


def told(said: list[Message], text: str) -> list[Message]:
    """The conversation with this at the end of its system message."""
    if said and said[0]["role"] == "system":
        return [{**said[0], "content": f"{said[0]['content']}\n\n{text}".strip()}, *said[1:]]
    return [{"role": "system", "content": text}, *said]


def example(format: AnswerFormat) -> str:
    """A call as the model is to write it."""
    return written(format.calls, [("function_name", '{"argument": "value"}')])


def _line(tool: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in function_of(tool).items() if v}, ensure_ascii=False)


def forms(said: list[Message], format: AnswerFormat) -> Iterator[list[Message]]:
    """The conversation as it is, then changed step by step."""
    if format.alone:
        said = apart(said)
    if format.single:
        said = singly(said)
    yield said
    steps: list[Callable[[list[Message]], list[Message]]] = [
        short_ids, one_system, joined, within_question, lambda s: joined(as_text(s, format)), question_first,
    ]  # fmt: skip
    for step in steps:
        changed = step(said)
        if changed != said:
            said = changed
            yield said


def apart(said: list[Message]) -> list[Message]:
    """Words and calls of one message in two: some templates show only one of the two."""
    found: list[Message] = []
    for message in said:
        if message.get("tool_calls") and message["content"]:
            words = {k: v for k, v in message.items() if k != "tool_calls"}
            found += [words, {"role": "assistant", "content": None, "tool_calls": message["tool_calls"]}]
        else:
            found.append(message)
    return found


def short_ids(said: list[Message]) -> list[Message]:
    def short(id: Any) -> str:
        fine = re.fullmatch(r"[a-zA-Z0-9]{9}", str(id))
        return str(id) if fine else hashlib.sha256(str(id).encode(errors="replace")).hexdigest()[:9]

    found = []
    for message in said:
        if "tool_call_id" in message:
            message = {**message, "tool_call_id": short(message["tool_call_id"])}
        if "tool_calls" in message:
            message = {**message, "tool_calls": [{**c, "id": short(c["id"])} for c in message["tool_calls"]]}
        found.append(message)
    return found


def one_system(said: list[Message]) -> list[Message]:
    texts = [m["content"] for m in said if m["role"] == "system" and m["content"]]
    rest = [m for m in said if m["role"] != "system"]
    first = {**next((m for m in said if m["role"] == "system"), {}), "role": "system", "content": "\n\n".join(texts)}
    return [first, *rest] if texts else rest


def joined(said: list[Message]) -> list[Message]:
    groups: list[list[Message]] = []
    for message in said:
        last = groups[-1][-1] if groups else {"role": ""}
        same = last["role"] == message["role"] != "tool" and not last.get("tool_calls")
        if same and not message.get("tool_calls"):
            groups[-1].append(message)
        else:
            groups.append([message])
    texts = ("\n\n".join(str(m["content"]) for m in group).strip("\n") for group in groups)
    return [g[0] if len(g) == 1 else {**g[0], "content": text} for g, text in zip(groups, texts, strict=True)]


def within_question(said: list[Message]) -> list[Message]:
    if not said or said[0]["role"] != "system":
        return said
    system, rest = said[0]["content"], said[1:]
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{system}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system}, *rest]


def singly(said: list[Message]) -> list[Message]:
    """Each call in a message of its own, its results behind it."""
    found: list[list[Message]] = []
    callers: dict[str, list[Message]] = {}  # of the last message that calls
    for message in said:
        if message["role"] == "tool" and found:
            callers.get(message["tool_call_id"], found[-1]).append(message)
            continue
        callers, content = {}, message["content"]
        for n, call in enumerate(message.get("tool_calls", ())):
            found.append([{**message, "tool_calls": [call], "content": content if n == 0 else content and ""}])
            callers[call["id"]] = found[-1]
        if not callers:
            found.append([message])
    return [message for group in found for message in group]


def as_text(said: list[Message], format: AnswerFormat) -> list[Message]:
    """Calls as the assistant would have written them, results as the user's words."""
    found: list[Message] = []
    for results, group in groupby(said, lambda message: message["role"] == "tool"):
        if results:
            texts = [f"<tool_response>\n{message['content']}\n</tool_response>" for message in group]
            found.append({"role": "user", "content": "\n".join(texts)})
        else:
            found += [_spoken(message, format) for message in group]
    return found


def _spoken(message: Message, format: AnswerFormat) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    rows = [(c["function"]["name"], c["function"]["arguments"]) for c in calls]
    texts = [(name, a if isinstance(a, str) else json.dumps(a, ensure_ascii=False)) for name, a in rows]
    words = {k: v for k, v in message.items() if k != "tool_calls"}
    return {**words, "content": f"{message['content'] or ''}\n{written(format.calls, texts)}".lstrip("\n")}


def question_first(said: list[Message]) -> list[Message]:
    at = 1 if said and said[0]["role"] == "system" else 0
    if len(said) > at and said[at]["role"] == "assistant":
        return [*said[:at], {"role": "user", "content": ""}, *said[at:]]
    return said
