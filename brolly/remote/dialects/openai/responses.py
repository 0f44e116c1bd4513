"""OpenAI's /responses, without its memory: nothing is stored there, and its thoughts go back as they came (`opaque`).

A turn of the assistant's goes back in the order in which it was written, since thoughts belong to what follows them:
`opaque` has the items that mean nothing here, and marks of where texts and calls stood between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from brolly.errors import BadAnswer, OptionError
from brolly.remote.ask import Ask, Message, Part, beside
from brolly.remote.content import text_of
from brolly.remote.dialect import DONE, Call
from brolly.remote.dialects.openai import words
from brolly.remote.dialects.openai.envelope import broken, tokens
from brolly.remote.dialects.openai.envelope import told as told
from brolly.remote.dialects.openai.words import hints as hints
from brolly.remote.dialects.openai.words import text
from brolly.remote.target import Target
from brolly.remote.traits import traits_of
from brolly.verbs import Piece, TokenLogprob, ToolDelta

OPTIONS = frozenset({"max_tokens", "temperature", "top_p", "logprobs", "json_schema", "effort", "thoughts"})
FAMILY = "openai"  # whose `opaque` these are
LEAST = 16  # tokens that an answer may be held to, where a vendor lacks "short_answers"
ENCRYPTED, LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"
# items that are a client's to write, which have places of their own in a conversation, or none
GIVEN = frozenset({"message", "item_reference", "additional_tools", "mcp_approval_response", "function_call_output",
                   "computer_call_output", "custom_tool_call_output"})  # fmt: skip
PICTURED = frozenset({"image_url", "file"})
PARTS = PICTURED | {"text"}


def lacks(ask: Ask, target: Target) -> list[str]:
    options, found = ask.options, []
    if ask.n > 1:
        found.append(f"{target} gives one answer at a time by responses, not {ask.n}")
    if (options.logprobs or 0) > words.TOP:
        found.append(f"{target} tells {words.TOP} log-probabilities a token at most, not {options.logprobs}")
    if options.max_tokens is not None and options.max_tokens < LEAST and "short_answers" in target.vendor.lacks:
        found.append(f"{target} writes {LEAST} tokens or more by responses, not {options.max_tokens}")
    if ask.template:
        found.append(f"{target} takes no values for a chat template")
    kinds = {str(part.get("type")) for message in ask.messages for part in _parts(message)} - PARTS
    if any(part.get("type") in PICTURED for m in ask.messages if m["role"] == "assistant" for part in _parts(m)):
        found.append(f"{target} reads no pictures and files in a message of the role assistant")
    if "input_audio" in kinds:
        found.append(f"{target} hears nothing by responses")
    if other := sorted(kinds - {"input_audio", "refusal"}):
        found.append(f"{target} has no {', '.join(other)} in a message")
    return found


def call(ask: Ask, target: Target) -> Call:
    """Raises OptionError."""
    options = ask.options
    body = _said(ask, target) | {"store": False}
    for name, word in (("max_tokens", "max_output_tokens"), ("temperature", "temperature"), ("top_p", "top_p")):
        if getattr(options, name) is not None:
            body[word] = getattr(options, name)
    include = []
    if traits_of(target).thinking not in ("", "none") or options.effort not in (None, "none") or options.thoughts:
        include.append(ENCRYPTED)
    if options.logprobs is not None:
        include.append(LOGPROBS)
        body["top_logprobs"] = options.logprobs
    if include:
        body["include"] = include
    if ask.stream:
        body["stream"] = True
    return Call("/responses", beside(body, ask.extra))


def count(ask: Ask, target: Target) -> Call:
    return Call("/responses/input_tokens", _said(ask, target))


def counted(body: Any) -> int:
    found = body.get("input_tokens") if isinstance(body, Mapping) else None
    if type(found) is not int or found < 0:
        raise BadAnswer(f"the vendor counted {found!r:.40} tokens; expected a number.")
    return found


def _said(ask: Ask, target: Target) -> dict[str, Any]:
    """What is read before the answer, and what shapes it."""
    options, messages = ask.options, list(ask.messages)
    body: dict[str, Any] = {"model": target.model}
    first = messages[0]
    if first["role"] in ("system", "developer") and all(part.get("type") == "text" for part in _parts(first)):
        body["instructions"] = text_of(messages.pop(0).get("content"))
    body["input"] = [item for message in messages for item in _items(message)]
    if ask.tools:
        body["tools"] = [_tool(one) for one in ask.tools]
        if ask.choice != "auto":
            body["tool_choice"] = _choice(ask.choice)
        if not ask.parallel:
            body["parallel_tool_calls"] = False
    reasoning = {}
    effort, _ = words.effort_of(ask, target)
    if effort is not None:
        reasoning["effort"] = effort
    if options.thoughts:
        reasoning["summary"] = "auto"
    if reasoning:
        body["reasoning"] = reasoning
    if options.json_schema is not None:
        shape = words.shape_of(ask, target)
        body["text"] = {"format": {"type": "json_object"} if shape is None else {"type": "json_schema", **shape}}
    return body


def _tool(tool: Any) -> dict[str, Any]:
    function = words.function_of(tool)
    row = {"type": "function", **function, "strict": words.strict(function)}
    return {"parameters": {"type": "object", "properties": {}}, **row}


def _choice(choice: str | Mapping[str, Any]) -> Any:
    if isinstance(choice, str):
        return choice
    allowed = choice.get("allowed_tools")
    if isinstance(allowed, Mapping):
        given = allowed.get("tools")
        if not isinstance(given, (list, tuple)):
            raise OptionError(f"allowed_tools are {given!r:.60}; expected a list of functions.")
        tools = [{"type": "function", "name": words.function_of(one)["name"]} for one in given]
        return {"type": "allowed_tools", "mode": allowed.get("mode", "auto"), "tools": tools}
    return {"type": "function", "name": words.function_of(choice)["name"]}


def _items(message: Message) -> Iterator[dict[str, Any]]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        output = content or "" if isinstance(content, (str, type(None))) else [_part(part) for part in content]
        if message.get("is_error"):
            output = _failed(message, output)
        yield {"type": "function_call_output", "call_id": str(message.get("tool_call_id") or ""), "output": output}
    elif role == "assistant":
        turn = list(_turn(message))
        while turn and turn[-1].get("type") == "reasoning":
            turn.pop()  # thoughts that were cut before they led to anything are refused
        yield from turn or [{"role": "assistant", "content": ""}]
    else:
        yield {"role": role, "content": content or "" if not _parts(message) else [_part(p) for p in _parts(message)]}


def _turn(message: Message) -> Iterator[dict[str, Any]]:
    """A turn of the assistant's; what `opaque` marks, in its order there."""
    parts = [part.get("text") or part.get("refusal") for part in _parts(message)]
    left = "".join(part for part in parts if isinstance(part, str)) or text_of(message.get("content"))
    calls = {}
    for id, name, arguments in map(words.arguments_of, message.get("tool_calls") or ()):
        calls[id] = {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
    for own in message.get("opaque") or ():
        if own.get("vendor") != FAMILY:
            continue
        if isinstance(own.get("item"), Mapping):
            if _wrote(own["item"]):
                yield dict(own["item"])
        elif isinstance(own.get("call"), str) and own["call"] in calls:
            yield calls.pop(own["call"])
        elif isinstance(own.get("said"), str) and left:
            said = own["said"] if left.startswith(own["said"]) else left  # changed since: all of it here
            left = left[len(said) :]
            if said:
                phase = {"phase": own["phase"]} if isinstance(own.get("phase"), str) else {}
                yield {"role": "assistant", "content": said, **phase}
    if left:
        yield {"role": "assistant", "content": left}
    yield from calls.values()


def _wrote(item: Mapping[str, Any]) -> bool:
    """Whether a model could have written it: clients of a server have it in between, and could name files, tools and
    items of the account that are not theirs."""
    kind = item.get("type")
    return isinstance(kind, str) and kind not in GIVEN and "role" not in item


def _part(part: Part) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "input_text", "text": part.get("text") or ""}
    inner = part.get(str(kind))
    if not isinstance(inner, Mapping):
        raise OptionError(f"a part is {part!r:.80}; expected {{{kind!r}: {{…}}}} within it.")
    if kind == "image_url":
        return {"type": "input_image", "image_url": inner.get("url"), "detail": inner.get("detail") or "auto"}
    return {"type": "input_file", **{key: inner[key] for key in ("file_data", "file_id", "filename") if key in inner}}


def _failed(message: Message, output: Any) -> Any:
    if isinstance(output, str):
        return words.failed(message, output)
    return [{"type": "input_text", "text": "Error:"}, *output]


def _parts(message: Message) -> Sequence[Part]:
    content = message.get("content")
    return content if isinstance(content, (list, tuple)) else ()


# What comes back ------------------------------------------------------------------------------------------------------


def whole(body: Any, ask: Ask, target: Target) -> list[Piece]:
    made = Reader(ask, target)
    if not isinstance(body, Mapping):
        raise BadAnswer(f"{target.host} sent {body!r:.60}; expected a response.")
    return made.push("", {"type": f"response.{body.get('status')}", "response": body})


def reader(ask: Ask, target: Target) -> Reader:
    return Reader(ask, target)


class Reader:
    """Events → pieces. An item comes by deltas, whole at its end, or only with the response."""

    def __init__(self, ask: Ask, target: Target) -> None:
        self.target, self.with_logprobs = target, ask.options.logprobs is not None
        self.calls = words.Calls()
        self.places: dict[Any, int] = {}  # an item's place in the output → which call it is
        self.said: dict[Any, int] = {}  # and how many characters of its text are told
        self.thought: dict[Any, str] = {}  # and which kind of its thoughts
        self.part: Any = None  # whose thoughts were last told
        self.done: set[Any] = set()
        self.refused = self.over = False
        self.marks: list[dict[str, Any]] | None = []  # that wait for something that goes back; None: it came

    def push(self, event: str, data: Any) -> list[Piece]:
        if self.over or data == DONE:
            return []
        if not isinstance(data, Mapping):
            raise BadAnswer(f"{self.target.host} sent {data!r:.60} in a stream; expected an object.")
        kind = data.get("type") or event
        if not isinstance(kind, str):
            raise BadAnswer(f"{self.target.host} sent an event of type {kind!r:.40}; expected its name.")
        if kind == "error" or data.get("error"):
            raise broken(data, self.target)
        kind, at = kind.removeprefix("response."), _place(data)
        if kind in ("completed", "incomplete", "failed", "cancelled", "queued", "None"):
            return self._last(kind, data.get("response"))
        if kind in ("output_text.delta", "refusal.delta"):
            said = text(data.get("delta"), "delta")
            self.refused = self.refused or kind == "refusal.delta"
            self.said[at] = self.said.get(at, 0) + len(said)
            return _pieces(said, self._logprobs(data))
        if kind in ("reasoning_summary_text.delta", "reasoning_text.delta"):
            return self._thoughts(
                kind[:-11], at, data.get("summary_index", data.get("content_index")), data.get("delta")
            )
        if kind == "function_call_arguments.delta":
            if at not in self.places:
                raise BadAnswer(f"{self.target.host} sent arguments of a call that it had not begun.")
            return _pieces(calls=self.calls.push(self.places[at], arguments=text(data.get("delta"), "delta")))
        if kind == "output_item.added":
            return self._begin(at, _item(data.get("item")))
        if kind == "output_item.done":
            return self._item(at, _item(data.get("item")))
        return []

    def end(self) -> list[Piece]:
        if not self.over:
            raise BadAnswer(f"{self.target.host} ended its stream before the answer was whole; ask again.")
        return []

    def _begin(self, at: Any, item: Mapping[str, Any]) -> list[Piece]:
        if item.get("type") != "function_call" or at in self.places:
            return []
        self.places[at] = len(self.calls.rows)
        id, name = text(item.get("call_id"), "id of a call"), text(item.get("name"), "name of a tool")
        return _pieces(calls=self.calls.push(self.places[at], id, name))

    def _item(self, at: Any, item: Mapping[str, Any]) -> list[Piece]:
        """What of a whole item is not told yet."""
        if at in self.done:
            return []
        self.done.add(at)
        kind = item.get("type")
        if kind == "message":
            return self._message(at, item)
        if kind == "function_call":
            found = self._begin(at, item)
            row = self.calls.rows[self.places[at]]
            written = text(item.get("arguments"), "arguments of a call")
            if not "".join(row.parts):
                found += _pieces(calls=self.calls.push(self.places[at], arguments=written))
            return found + self._mark({"call": row.id})
        found = []
        if kind == "reasoning":
            if at not in self.thought:
                for name, key in (("reasoning_summary_text", "summary"), ("reasoning_text", "content")):
                    for place, part in enumerate(words.rows_of(item.get(key), "thoughts")):
                        found += self._thoughts(name, at, place, part.get("text"))
            if not item.get("encrypted_content") and not item.get("content"):
                return found  # a name that nothing is stored under
        return [*found, *self._mark({"item": dict(item)}, True)]

    def _message(self, at: Any, item: Mapping[str, Any]) -> list[Piece]:
        whole = ""
        logprobs: tuple[TokenLogprob, ...] = ()
        for part in words.rows_of(item.get("content"), "parts of a message"):
            whole += text(part.get("text"), "text") + text(part.get("refusal"), "refusal")
            self.refused = self.refused or part.get("type") == "refusal"
            logprobs += self._logprobs(part)
        found = [] if self.said.get(at) else _pieces(whole, logprobs)
        phase = item.get("phase")
        if isinstance(phase, str):
            return found + self._mark({"said": whole, "phase": phase[:64]}, True)
        return found + self._mark({"said": whole})

    def _mark(self, mark: dict[str, Any], goes_back: bool = False) -> list[Piece]:
        """Where something stands among what goes back; nothing where nothing does."""
        if self.marks is not None:
            self.marks.append(mark)
            if not goes_back:
                return []
        several, self.marks = self.marks or [mark], None
        return [Piece("", opaque=tuple({"vendor": FAMILY, **one} for one in several))]

    def _thoughts(self, kind: str, at: Any, part: Any, given: Any) -> list[Piece]:
        if self.thought.setdefault(at, kind) != kind:
            return []  # a summary beside the thoughts themselves
        said = text(given, "thoughts")
        here = at, part if isinstance(part, (int, type(None))) else 0
        between = "\n\n" if self.part not in (None, here) else ""
        self.part = here
        return [Piece("", reasoning=between + said)] if said else []

    def _logprobs(self, row: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
        return words.logprobs_of(row.get("logprobs")) if self.with_logprobs else ()

    def _last(self, kind: str, response: Any) -> list[Piece]:
        if not isinstance(response, Mapping):
            raise BadAnswer(f"{self.target.host} sent {response!r:.60}; expected a response.")
        if kind == "failed" or response.get("error"):
            raise broken(response, self.target)
        if kind not in ("completed", "incomplete"):
            raise BadAnswer(f"{self.target.host} sent a response that is {kind!r:.40}; expected one that is completed.")
        found = []
        for at, item in enumerate(words.rows_of(response.get("output"), "items")):
            found += self._item(at, item)
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        finish = "content_filter" if reason == "content_filter" else "length"
        calls: tuple[ToolDelta, ...] = ()
        if kind == "completed":
            calls = self.calls.closed()
            finish = "content_filter" if self.refused else "tool_calls" if self.calls.rows else "stop"
        self.over = True
        return [*found, Piece("", finish_reason=finish, calls=calls, usage=tokens(response))]


def _pieces(said: str = "", logprobs: tuple[TokenLogprob, ...] = (), calls: tuple[ToolDelta, ...] = ()) -> list[Piece]:
    return [Piece(said, logprobs=logprobs, calls=calls)] if said or logprobs or calls else []


def _place(data: Mapping[str, Any]) -> Any:
    """An item's place in the output, by which its events are told apart."""
    at = data.get("output_index", 0)
    if type(at) is not int or not 0 <= at < words.MOST_CALLS * 4:
        raise BadAnswer(f"the vendor's output_index is {at!r:.40}; expected a small number.")
    return at


def _item(item: Any) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise BadAnswer(f"the vendor's item is {item!r:.60}; expected an object.")
    return item
