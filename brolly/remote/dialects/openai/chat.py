"""OpenAI's /chat/completions, which most servers of language models speak, each with words of its own.

What differs between vendors is in data/vendors.json: `takes`, `lacks` and `words` of options, and beside them

    takes   any_schema (holds every schema), cache_control, chat_template_kwargs, reasoning_content (wants thoughts
            back), reasoning_details (and sealed ones), tool_images, flac, ogg
    words   effort_tokens (where a number of tokens may be said)
    lacks   n, developer (the role), strict (of tools), stream_options, parallel_tool_calls, tools

A refusal is text, and ends with "content_filter". An answer that calls ends with "tool_calls", also where the vendor
says "stop" since the call was forced. Of several answers' usage only the sum is told; the first one's has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from brolly.errors import BadAnswer
from brolly.remote.ask import Ask, Message, Part, beside
from brolly.remote.dialect import DONE, Call
from brolly.remote.dialects.openai import words
from brolly.remote.dialects.openai.envelope import broken, tokens
from brolly.remote.dialects.openai.envelope import told as told
from brolly.remote.dialects.openai.words import hints as hints
from brolly.remote.dialects.openai.words import text
from brolly.remote.target import Target
from brolly.remote.traits import traits_of
from brolly.verbs import GenerateOptions, Piece, TokenLogprob, ToolDelta, Usage

OPTIONS = frozenset({
    "max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "seed", "stop",
    "logprobs", "json_schema", "effort",
})  # fmt: skip
STOPS = 4  # texts
NAMES = True  # of who speaks
FAMILY = "openai"  # whose `opaque` these are
SOUNDS = frozenset({"wav", "mp3"})
# vLLM's names of what others have none for; a vendor's `words` come first
WORDS = {
    "max_tokens": "max_completion_tokens", "effort": "reasoning_effort", "regex": "structured_outputs.regex",
    "choice": "structured_outputs.choice", "grammar": "structured_outputs.grammar",
}  # fmt: skip
FINISHES = {
    "stop": "stop", "eos": "stop", "end_turn": "stop", "stop_sequence": "stop",
    "length": "length", "max_tokens": "length", "model_length": "length", "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls", "function_call": "tool_calls", "tool_use": "tool_calls",
    "content_filter": "content_filter", "refusal": "content_filter", "sensitive": "content_filter",
}  # fmt: skip
DEFAULTS = GenerateOptions()


def lacks(ask: Ask, target: Target) -> list[str]:
    vendor, traits, options = target.vendor, traits_of(target), ask.options
    without = {*vendor.lacks, *traits.lacks}
    found = []
    if ask.n > 1 and "n" in without:
        found.append(f"{target} gives one answer at a time, not {ask.n}")
    if ask.tools and "tools" in without:
        found.append(f"{target} takes no tools")
    if ask.tools and "chat_tools" in without and options.effort != "none":
        found.append(f"{target} thinks, and then takes no tools by chat completions")
    if ask.tools and not ask.parallel and "parallel_tool_calls" in without:
        found.append(f"{target} cannot be held to one call at a time")
    if (options.logprobs or 0) > words.TOP:
        found.append(f"{target} tells {words.TOP} log-probabilities a token at most, not {options.logprobs}")
    if ask.template and "chat_template_kwargs" not in vendor.takes:
        found.append(f"{target} takes no values for a chat template")
    for message in ask.messages:
        kinds = {part.get("type") for part in _parts(message)}
        if message["role"] == "tool" and not kinds <= {"text"} and "tool_images" not in vendor.takes:
            found.append(f"{target} takes text alone from a tool by chat completions")
        sounds = {_inner(part, "input_audio").get("format") for part in _parts(message)} - {None}
        if other := sounds - SOUNDS - set(vendor.takes):
            found.append(f"{target} hears WAV and MP3, not {', '.join(sorted(map(str, other)))}")
    return list(dict.fromkeys(found))


def call(ask: Ask, target: Target) -> Call:
    """Raises OptionError."""
    vendor, options = target.vendor, ask.options
    body: dict[str, Any] = {"model": target.model, "messages": [_message(one, target) for one in ask.messages]}
    for name in (*OPTIONS, *sorted(set(vendor.takes) & DEFAULTS.__dict__.keys())):
        value = getattr(options, name)
        if value != getattr(DEFAULTS, name):
            for word, said in _said(name, value, ask, target):
                words.put(body, vendor.words.get(word, WORDS.get(word, word)), said)
    if ask.tools:
        body["tools"] = [_tool(one, target) for one in ask.tools]
        if ask.choice != "auto":
            body["tool_choice"] = ask.choice
        if not ask.parallel:
            body["parallel_tool_calls"] = False
    if ask.n > 1:
        body["n"] = ask.n
    if ask.template:
        body["chat_template_kwargs"] = dict(ask.template)
    if ask.stream:
        body["stream"] = True
        if "stream_options" not in vendor.lacks:
            body["stream_options"] = {"include_usage": True}
    return Call("/chat/completions", beside(body, ask.extra))


def _said(name: str, value: Any, ask: Ask, target: Target) -> list[tuple[str, Any]]:
    """An option's words and their values."""
    if name == "json_schema":
        shape = words.shape_of(ask, target)
        form = {"type": "json_object"} if shape is None else {"type": "json_schema", "json_schema": shape}
        return [("response_format", form)]
    if name == "logprobs":
        return [("logprobs", True), *([("top_logprobs", value)] if value else [])]
    if name == "logit_bias":
        return [(name, {str(token): bias for token, bias in value.items()})]
    if name == "effort":
        if value.isdecimal():
            return [("effort_tokens", int(value[:9]))] if "effort_tokens" in target.vendor.words else []
        return [(name, words.effort_of(ask, target)[0])]
    if name == "thoughts" and name not in target.vendor.words:
        return []  # told in any case
    return [(name, list(value) if isinstance(value, tuple) else value)]


def _tool(tool: Any, target: Target) -> dict[str, Any]:
    function = words.function_of(tool)
    if "strict" not in function and "strict" not in target.vendor.lacks and words.strict(function):
        function = {**function, "strict": True}
    return {"type": "function", "function": dict(function)}


def _message(message: Message, target: Target) -> dict[str, Any]:
    takes, role = target.vendor.takes, message["role"]
    row = {key: value for key, value in message.items() if key not in OURS}
    if role == "developer" and "developer" in target.vendor.lacks:
        row["role"] = "system"
    if role == "tool":
        row.pop("name", None)  # its call has it; templates know it, the wire does not
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        row["content"] = content = [_part(part, takes) for part in content]
    if role == "tool" and message.get("is_error"):
        row["content"] = content = _failed(message, content)
    if "tool_calls" in row:
        row["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name, arguments in map(words.arguments_of, message["tool_calls"] or ())
        ]
        if not row["tool_calls"]:
            del row["tool_calls"]
    thoughts = message.get("reasoning_content") or _own(message, "thoughts", str)
    if thoughts and "reasoning_content" in takes:
        row[target.vendor.words.get("reasoning_content", "reasoning_content")] = thoughts
    if details := _own(message, "details", list):
        row["reasoning_details"] = details
    if content is None:
        row["content"] = None if row.get("tool_calls") else ""
    return row


def _own(message: Message, name: str, kind: type) -> Any:
    """What a turn has for such servers alone; None where it has nothing."""
    several = (one.get(name) for one in message.get("opaque") or () if one.get("vendor") == FAMILY)
    return next((one for one in several if isinstance(one, kind)), None)


# what a message has for us alone
OURS = frozenset({"opaque", "is_error", "reasoning_content", "reasoning", "cache_control"})


def _failed(message: Message, content: Any) -> Any:
    if not isinstance(content, list):
        return words.failed(message, content or "")
    parts = [*content]
    first = next((at for at, part in enumerate(parts) if part.get("type") == "text"), None)
    if first is None:
        return [{"type": "text", "text": words.failed(message, "")}, *parts]
    parts[first] = {**parts[first], "text": words.failed(message, parts[first].get("text") or "")}
    return parts


def _part(part: Part, takes: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "cache_control" or key in takes}


def _parts(message: Message) -> list[Part]:
    content = message.get("content")
    return list(content) if isinstance(content, (list, tuple)) else []


def _inner(part: Part, name: str) -> Mapping[str, Any]:
    found = part.get(name)
    return found if isinstance(found, Mapping) else {}


# What comes back ------------------------------------------------------------------------------------------------------


def whole(body: Any, ask: Ask, target: Target) -> list[Piece]:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    if not isinstance(choices, list) or not choices:
        if isinstance(body, Mapping) and body.get("error"):
            raise broken(body, target)
        raise BadAnswer(f"{target.host} sent an answer without choices; is it the address of an OpenAI-compatible API?")
    reader = Reader(ask, target)
    rows = [
        {"index": at, **one, "delta": one.get("message")} if isinstance(one, Mapping) else one
        for at, one in enumerate(choices)
    ]
    return [*reader.push("", {"choices": rows, "usage": body.get("usage")}), *reader.end()]


def reader(ask: Ask, target: Target) -> Reader:
    return Reader(ask, target)


class Reader:
    """Chunks → pieces. The last piece of each answer waits for the usage, which comes behind it, or never."""

    def __init__(self, ask: Ask, target: Target) -> None:
        self.ask, self.target = ask, target
        self.choices = [_Choice(index, ask.options.logprobs is not None, target.vendor.takes) for index in range(ask.n)]
        self.usage: Usage | None = None
        self.over = False

    def push(self, event: str, data: Any) -> list[Piece]:
        if self.over:
            return []
        if data == DONE:
            return self.end()
        if not isinstance(data, Mapping):
            raise BadAnswer(f"{self.target.host} sent {data!r:.60} in a stream; expected an object.")
        if data.get("error") or event == "error":
            raise broken(data, self.target)
        found: list[Piece] = []
        for row in words.rows_of(data.get("choices"), "choices"):
            index = row.get("index", 0)
            if type(index) is not int or not 0 <= index < len(self.choices):
                n = len(self.choices)
                raise BadAnswer(f"{self.target.host} sent answer {index!r:.20}, where {n} were asked for.")
            found += self.choices[index].push(row)
        usage = tokens(data)
        self.usage = usage or self.usage
        if usage and all(choice.finish for choice in self.choices):
            found += self.end()
        return found

    def end(self) -> list[Piece]:
        if self.over:
            return []
        if not all(choice.finish for choice in self.choices):
            raise BadAnswer(f"{self.target.host} ended its stream before the answer was whole; ask again.")
        self.over = True
        usage, found = self.usage, []
        for choice in self.choices:
            found.append(choice.last(usage))
            usage = usage and replace(usage, completion_tokens=0, reasoning_tokens=0)
        return found


class _Choice:
    """One answer."""

    def __init__(self, index: int, with_logprobs: bool, takes: tuple[str, ...]) -> None:
        self.index, self.with_logprobs = index, with_logprobs
        # what goes back: thoughts, with calls; OpenRouter's details of them, some of which are sealed
        self.thoughts: list[str] | None = [] if "reasoning_content" in takes else None
        self.details: list[dict[str, Any]] | None = [] if "reasoning_details" in takes else None
        self.calls = words.Calls()
        self.places: dict[Any, int] = {}  # a call's index in the wire → which call is written there
        self.finish, self.refused = "", False
        self.stopped: str | None = None

    def push(self, row: Mapping[str, Any]) -> list[Piece]:
        delta = row.get("delta")
        if delta is None:
            delta = {}
        if not isinstance(delta, Mapping):
            raise BadAnswer(f"the vendor's delta is {delta!r:.60}; expected an object.")
        said, thoughts = _content(delta.get("content"))
        thoughts += text(delta.get("reasoning_content"), "reasoning") or text(delta.get("reasoning"), "reasoning")
        if self.thoughts is not None:
            self.thoughts.append(thoughts)
        if self.details is not None:
            for one in words.rows_of(delta.get("reasoning_details"), "reasoning_details"):
                _join(self.details, one)
        refusal = text(delta.get("refusal"), "refusal")
        self.refused = self.refused or bool(refusal)
        calls = self._calls(delta)
        found = row.get("logprobs") if self.with_logprobs else None
        logprobs: tuple[TokenLogprob, ...] = ()
        if isinstance(found, Mapping):
            logprobs = words.logprobs_of(found.get("content")) + words.logprobs_of(found.get("refusal"))
        if row.get("finish_reason"):
            self._finish(row)
        if not (said or thoughts or refusal or calls or logprobs):
            return []
        return [Piece(said + refusal, (), logprobs, None, thoughts, calls, self.index)]

    def last(self, usage: Usage | None) -> Piece:
        calls: tuple[ToolDelta, ...] = ()
        if self.finish in ("stop", "tool_calls"):
            calls = self.calls.closed()
            self.finish = "content_filter" if self.refused else "tool_calls" if self.calls.rows else "stop"
        thoughts = "".join(self.thoughts or ()) if self.calls.rows else ""
        kept = {"thoughts": thoughts, "details": self.details}
        opaque = tuple({"vendor": FAMILY, name: value} for name, value in kept.items() if value)
        return Piece("", (), (), self.finish, "", calls, self.index, usage, None, self.stopped, opaque)

    def _finish(self, row: Mapping[str, Any]) -> None:
        said = row["finish_reason"]
        if not isinstance(said, str) or said not in FINISHES:
            raise BadAnswer(f"the vendor ended its answer with {said!r:.60}; expected one of {', '.join(FINISHES)}.")
        self.finish = FINISHES[said]
        stopped = row.get("stop_reason")  # vLLM's
        self.stopped = text(stopped) if isinstance(stopped, str) else None

    def _calls(self, delta: Mapping[str, Any]) -> tuple[ToolDelta, ...]:
        rows = words.rows_of(delta.get("tool_calls"), "tool calls")
        old = delta.get("function_call")
        if isinstance(old, Mapping):
            rows = [*rows, {"function": old}]
        found: tuple[ToolDelta, ...] = ()
        for row in rows:
            function = row.get("function")
            if function is None:
                function = {}
            if not isinstance(function, Mapping):
                raise BadAnswer(f"the vendor's tool call is {row!r:.80}; expected one of a function.")
            id, name = text(row.get("id"), "id of a call"), text(function.get("name"), "name of a tool")
            found += self.calls.push(self._place(row.get("index"), id, name), id, name, _arguments(function))
        return found

    def _place(self, index: Any, id: str, name: str) -> int:
        """Which call it is: some servers send whole calls without an index, or all of them with the same one."""
        rows, key = self.calls.rows, index if type(index) is int else None
        at = self.places.get(key, len(rows))
        if at < len(rows):
            old = rows[at]
            if key is None and id and any(one.id == id for one in rows):
                return next(i for i, one in enumerate(rows) if one.id == id)
            if (id and old.id and id != old.id and name) or (key is None and name and old.name):
                at = len(rows)
        self.places[key] = at
        return at


def _join(details: list[dict[str, Any]], one: Mapping[str, Any]) -> None:
    """A detail, or more of the last one."""
    last = details[-1] if details else {}
    if type(one.get("index")) is not int or any(last.get(name) != one.get(name) for name in ("type", "index")):
        details.append(dict(one))
        return
    for name, value in one.items():
        old = last.get(name)
        more = name in ("text", "summary", "data") and isinstance(old, str) and isinstance(value, str)
        if more or value is not None:
            last[name] = old + value if more else value


def _arguments(function: Mapping[str, Any]) -> str:
    given = function.get("arguments")
    if isinstance(given, Mapping):
        return words.written(given)
    return text(given, "arguments of a call")


def _content(given: Any) -> tuple[str, str]:
    """The text and the thoughts of a content: a text, or Mistral's list of parts."""
    if not isinstance(given, list):
        return text(given, "content"), ""
    said = thoughts = ""
    for part in words.rows_of(given, "parts of a content"):
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            thoughts += _content(inner)[0] if not isinstance(inner, list) or _flat(inner) else ""
        else:
            said += text(part.get("text"), "content")
    return said, thoughts


def _flat(parts: list[Any]) -> bool:
    return not any(isinstance(part, Mapping) and part.get("type") == "thinking" for part in parts)
