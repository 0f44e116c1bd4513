"""OpenAI's options → brolly's: sampling, shapes, thinking, tools, messages. Knows the wire, and no HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brolly.serve.errors import Refused
from brolly.serve.wire.chat import ChatRequest, Message, Part, Sampling, ToolChoice


def sampling(body: Sampling, max_tokens: int | None, logprobs: int | None) -> dict[str, Any]:
    """GenerateOptions' keyword arguments. Raises Refused."""
    found = {
        "max_tokens": max_tokens, "temperature": body.temperature, "top_p": body.top_p,
        "top_k": 0 if body.top_k == -1 else body.top_k, "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty or body.repeat_penalty,
        "presence_penalty": body.presence_penalty, "frequency_penalty": body.frequency_penalty, "seed": body.seed,
        "logit_bias": biases(body.logit_bias), "logprobs": logprobs, "min_tokens": body.min_tokens,
        "ignore_eos": body.ignore_eos, "stop": [body.stop] if isinstance(body.stop, str) else body.stop,
        **shape(body),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def biases(given: Mapping[str, float] | None) -> dict[int, float] | None:
    """logit_bias with the ids as numbers. Raises Refused."""
    if not given:
        return None
    wrong = next((token for token in given if not re.fullmatch("[0-9]{1,19}", token)), None)
    if wrong is not None:
        raise Refused(f"logit_bias has the key {wrong!r:.40}; expected a token's id.", param="logit_bias")
    beyond = next((bias for bias in given.values() if not -100 <= bias <= 100), None)
    if beyond is not None:
        raise Refused(f"logit_bias has {beyond}; expected numbers from -100 to 100.", param="logit_bias")
    return {int(token): bias for token, bias in given.items()}


def shape(body: Sampling) -> dict[str, Any]:
    """What may be written, by whichever of the names the client knows. Raises Refused."""
    outputs, format = body.structured_outputs, body.response_format
    found: list[tuple[str, Any]] = [
        ("json_schema", body.guided_json), ("json_schema", body.json_schema), ("regex", body.guided_regex),
        ("regex", body.regex), ("choice", body.guided_choice), ("choice", body.choice),
        ("grammar", body.guided_grammar), ("grammar", body.grammar),
    ]  # fmt: skip
    if outputs:
        found += [("json_schema", outputs.json_), ("regex", outputs.regex), ("choice", outputs.choice)]
        found += [("grammar", outputs.grammar), ("json_schema", ANY_OBJECT if outputs.json_object else None)]
    if format and format.type == "json_object":
        found.append(("json_schema", format.schema_ or ANY_OBJECT))
    elif format and format.type == "json_schema":
        if format.json_schema is None or format.json_schema.schema_ is None:
            raise Refused("response_format is a json_schema without a schema.", param="response_format.json_schema")
        found.append(("json_schema", format.json_schema.schema_))
    elif format and format.type in ("regex", "grammar"):
        found.append((format.type, (format.model_extra or {}).get(format.type)))
    given = [(name, value) for name, value in found if value is not None and value != []]
    if len(given) > 1:
        raise Refused("Several fields say what may be written; leave all but one out.", param="response_format")
    return {name: value if isinstance(value, (str, list)) else json.dumps(value) for name, value in given}


ANY_OBJECT = {"type": "object"}
OUR_NAMES = {"self", "messages", "tools", "documents"}  # of the template's values, those that no client may replace


def tools_of(body: ChatRequest) -> tuple[list[dict[str, Any]], str | dict[str, Any]]:
    """Tools and tool_choice as `prepare_chat` takes them. Raises Refused."""
    if body.functions or body.function_call:
        raise Refused(
            "functions and function_call are no longer served; give tools and tool_choice.", param="functions"
        )
    for at, tool in enumerate(body.tools or ()):
        if tool.type != "function" or tool.function is None:
            raise Refused(
                f"tools[{at}] is a {tool.type!r:.40}; only tools of the type 'function' are served.", param="tools"
            )
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    return choose(tools, body.tool_choice)


def choose(
    tools: list[dict[str, Any]], choice: str | ToolChoice | None
) -> tuple[list[dict[str, Any]], str | dict[str, Any]]:
    """Tools in OpenAI's chat form and the choice among them, each checked against the other. Raises Refused."""
    names = {tool["function"]["name"] for tool in tools}
    if choice is None:
        return tools, "auto" if tools else "none"
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise Refused(
                f"tool_choice is {choice!r:.40}; expected none, auto, required or an object.", param="tool_choice"
            )
        if choice == "required" and not tools:
            raise Refused("tool_choice is 'required', and there are no tools.", param="tool_choice")
        return tools, choice
    if choice.type == "allowed_tools":
        inner = choice.allowed_tools or choice
        allowed = {(tool.function or tool).name for tool in inner.tools or ()}
        return choose([tool for tool in tools if tool["function"]["name"] in allowed], inner.mode or "auto")
    wanted = (choice.function or choice).name if choice.type == "function" else None
    if wanted not in names:
        raise Refused(f"tool_choice names {wanted!r:.80}, which is none of the tools.", param="tool_choice")
    return tools, {"type": "function", "function": {"name": wanted}}


@dataclass(frozen=True)
class Reads:
    """What a model can be given: the roles that it knows, and what it reads beside text: image, audio, pdf."""

    knows: Callable[[str], bool]
    kinds: frozenset[str] = frozenset()
    parts: bool = False  # whether a content stays the list of parts that it is

    def content(self, content: str | Sequence[Part] | None, where: str) -> Any:
        """A content as `Ask` has it: a text, or parts. Raises Refused at a part that this model cannot read."""
        if content is None or isinstance(content, str):
            return content or ""
        return self.joined([self.part(part, where) for part in content])

    def joined(self, parts: Sequence[dict[str, Any]], between: str = "") -> Any:
        """Parts as one text, unless they are more than that and may stay apart."""
        if self.parts and (len(parts) > 1 or any(len(part) > 2 or part["type"] != "text" for part in parts)):
            return list(parts)
        return between.join(part["text"] for part in parts)

    def part(self, part: Part, where: str) -> dict[str, Any]:
        """One part of a message. Raises Refused."""
        more = part.model_extra or {}
        mark = {"cache_control": more["cache_control"]} if self.parts and more.get("cache_control") else {}
        match part.type:
            case "refusal":
                return {"type": "text", "text": part.refusal or ""} | mark
            case "text" | "input_text" | "output_text" if part.text is not None:
                return {"type": "text", "text": part.text} | mark
            case "image_url" | "input_image":
                return self.image(_inner(more, "image_url", "url"), where, part.type) | mark
            case "input_audio":
                return self.able("audio", where, part.type, {"input_audio": more.get("input_audio")}) | mark
            case "file" | "input_file":
                return self.file(_inner(more, "file", ""), where, part.type) | mark
        raise self.cannot(where, part.type)

    def image(self, given: Mapping[str, Any], where: str, kind: str) -> dict[str, Any]:
        """A picture by its address; one of https: is fetched by the vendor."""
        said = {name: given[name] for name in ("url", "detail") if given.get(name) is not None}
        travelling(said.get("url"), where)
        return self.able("image", where, kind, {"image_url": said if isinstance(said.get("url"), str) else None})

    def file(self, given: Mapping[str, Any], where: str, kind: str) -> dict[str, Any]:
        """A PDF by its data."""
        said = {name: given[name] for name in ("file_data", "filename") if given.get(name) is not None}
        travelling(said.get("file_data"), where)
        return self.able("pdf", where, kind, {"file": said if isinstance(said.get("file_data"), str) else None})

    def able(self, reads: str, where: str, kind: str, said: dict[str, Any]) -> dict[str, Any]:
        if reads not in self.kinds:
            raise self.cannot(where, kind)
        ((name, inner),) = said.items()
        if not isinstance(inner, Mapping):
            wanted = {"image_url": "a url", "file": "file_data, a data: URL"}.get(name, "data and format")
            raise Refused(f"{where} holds a part of the type {kind!r:.40} without {wanted}.", param=where)
        return {"type": name, name: dict(inner)}

    def cannot(self, where: str, kind: str) -> Refused:
        also = "".join(f" and {kind}" for kind in sorted(self.kinds))
        text = f"this model reads text{also}" if also else "this model reads text alone"
        return Refused(
            f"{where} holds a part of the type {kind!r:.40}; {text}.", param=where, code="unsupported_content"
        )


def travelling(url: Any, where: str) -> None:
    """Nothing is opened at a vendor's that a client only names: files of its machine, buckets. Raises Refused."""
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*):", url) if isinstance(url, str) else None
    if scheme and scheme[1].lower() not in ("data", "https", "http"):
        raise Refused(f"{where} holds an address of {scheme[1]!r:.40}; expected a data: or https: URL.", param=where)


def _inner(more: Mapping[str, Any], name: str, text: str) -> dict[str, Any]:
    """The fields of a part, which chats put into an object of their own, and responses do not."""
    inner = more.get(name, more)
    return dict(inner) if isinstance(inner, Mapping) else {**more, text: inner}


def messages_of(messages: Sequence[Message], reads: Reads) -> list[dict[str, Any]]:
    """The conversation as `prepare_chat` takes it, of what the model can read. Raises Refused."""
    found = []
    for at, message in enumerate(messages):
        role = {"function": "tool"}.get(message.role, message.role)
        if role == "developer" and not reads.knows(role):
            role = "system"
        row: dict[str, Any] = {"role": role, "content": reads.content(message.content, f"messages[{at}].content")}
        if message.refusal and not row["content"]:
            row["content"] = message.refusal
        for name in ("name", "tool_call_id"):
            if getattr(message, name) is not None:
                row[name] = getattr(message, name)
        if message.tool_calls:
            row["tool_calls"] = [call.model_dump(exclude_none=True) for call in message.tool_calls]
        thoughts = message.reasoning_content if message.reasoning_content is not None else message.reasoning
        if thoughts is not None:
            row["reasoning_content"] = thoughts
        found.append(row)
    return found


@dataclass(frozen=True)
class Thinking:
    """How hard to think: in a word or by a number of tokens; whether at all; and whether thoughts are to be told.

    None: the client does not say.
    """

    effort: str | None = None
    wanted: bool | None = None
    told: bool = False
    idle: bool = False  # a model here does not think, one elsewhere does as it does by itself

    def words(self) -> dict[str, Any]:
        """The same by the names that families' templates read, which know no numbers, but on and off."""
        wanted, effort = False if self.idle else self.wanted, self.effort
        if effort is not None and effort.isdecimal():
            wanted, effort = effort != "0", None
        if effort is not None:
            return {"reasoning_effort": effort, "enable_thinking": effort != "none", "thinking": effort != "none"}
        return {} if wanted is None else {"enable_thinking": wanted, "thinking": wanted}


def template_of(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the client tells the chat template by name. Raises Refused."""
    where = "chat_template_kwargs"
    if own := OUR_NAMES & (given or {}).keys():
        raise Refused(f"{where} holds {min(own)!r}, which has a field of its own.", param=where)
    return dict(given or {})


def speaks(tokenizer: Any) -> Callable[[str], bool]:
    """Whether a tokenizer's chat template names a role."""
    template = tokenizer.template
    source = str(template.source).replace("'", '"') if template is not None else ""
    return lambda role: f'"{role}"' in source
