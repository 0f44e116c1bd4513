"""Items of OpenAI's responses ↔ messages, tools and formats as chats have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from brolly.serve.ask import ANY_OBJECT, Reads, choose
from brolly.serve.errors import Refused
from brolly.serve.seals import unsealed
from brolly.serve.wire.chat import Part, ToolChoice
from brolly.serve.wire.responses import Item, ResponseRequest, ResponseTool

PREFIX = {
    "message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs", "file_search_call": "fs",
}  # fmt: skip
ROLES = ("user", "assistant", "system", "developer")


def given_items(given: str | Sequence[Item], find: Callable[[str], dict[str, Any] | None]) -> list[dict[str, Any]]:
    """The input as items with ids, as they are stored; `find` looks up those only referred to. Raises Refused."""
    if isinstance(given, str):
        given = [Item(role="user", content=given)]
    found = []
    for at, one in enumerate(given):
        item = one.model_dump(exclude_none=True)
        kind = item.setdefault("type", "message" if one.role else "item_reference")
        where = f"input[{at}]"
        if kind == "item_reference":
            referred = find(one.id or "")
            if referred is None:
                raise Refused(f"{where} refers to the item {one.id!r:.80}, which is not stored here.", 404, param=where)
            item = referred
        elif kind not in PREFIX:
            raise Refused(f"{where} is of the type {kind!r:.40}, which is not served here.", param=where)
        elif kind == "message":
            item = _message(item, where)
        elif kind == "function_call" and not (one.name and one.call_id):
            raise Refused(f"{where} is a function_call without name or call_id.", param=where)
        elif kind == "function_call_output" and (one.output is None or not one.call_id):
            raise Refused(f"{where} is a function_call_output without output or call_id.", param=where)
        found.append({"id": f"{PREFIX[item['type']]}_{uuid4().hex}", **item})
    return found


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise Refused(f"{where}.role is {role!r:.40}; expected {', '.join(ROLES)}.", param=f"{where}.role")
    if isinstance(content, str):
        kind = "output_text" if role == "assistant" else "input_text"
        content = [{"type": kind, "text": content} | ({"annotations": []} if role == "assistant" else {})]
    return {"status": "completed", **item, "content": content or []}


def messages_of_items(items: Sequence[dict[str, Any]], reads: Reads) -> list[dict[str, Any]]:
    """Items in a row as the messages of a chat: thoughts and calls belong to the assistant's message beside them.

    Raises Refused at what the model cannot read.
    """
    found: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    thoughts = ""
    opaque: list[dict[str, Any]] = []
    for item in items:
        kind = item["type"]
        if kind == "file_search_call":  # what was found is shown anew, for the question that is asked now
            continue
        if kind == "reasoning":
            said = item.get("content") or item.get("summary") or []
            thoughts += said if isinstance(said, str) else "".join(part.get("text", "") for part in said)
            opaque += _opaque(item) if reads.parts else []
        elif kind == "function_call":
            names[item["call_id"]] = item["name"]
            function = {"name": item["name"], "arguments": item.get("arguments", "")}
            if thoughts or opaque or not found or found[-1]["role"] != "assistant":
                found.append({"role": "assistant", "content": ""})
            found[-1].setdefault("tool_calls", []).append(
                {"id": item["call_id"], "type": "function", "function": function}
            )
        elif kind == "function_call_output":
            content = _content(item["output"], "output", reads)
            row = {"role": "tool", "tool_call_id": item["call_id"], "content": content}
            found.append(row | ({"name": names[item["call_id"]]} if item["call_id"] in names else {}))
        else:
            role = "system" if item["role"] == "developer" and not reads.knows("developer") else item["role"]
            found.append({"role": role, "content": _content(item["content"], "input", reads)})
        if kind == "reasoning":
            continue
        written = [row for row in found[-2:] if row["role"] == "assistant"]
        if thoughts and found[-1]["role"] == "assistant":
            found[-1]["reasoning_content"], thoughts = thoughts, ""
        if opaque and written:  # what came behind the turn's last words is in an item behind them
            written[-1].setdefault("opaque", []).extend(opaque)
            opaque = []
    return found


def _opaque(item: dict[str, Any]) -> list[dict[str, Any]]:
    """What a vendor wants back: as it was sealed here, or OpenAI's own thoughts as it encrypts them."""
    seal = item.get("encrypted_content")
    if not isinstance(seal, str) or not seal:
        return []
    rows = unsealed(seal)
    return [{"vendor": "openai", "item": item}] if rows is None else rows


def _content(content: Any, where: str, reads: Reads) -> Any:
    if isinstance(content, str):
        return content
    return reads.content([Part.model_validate(part) for part in content], where)


def tools_of_response(
    given: Sequence[ResponseTool] | None, choice: str | ToolChoice | None
) -> tuple[list[dict[str, Any]], str | dict[str, Any]]:
    """Tools and the choice among them as chats have them. Raises Refused."""
    tools = []
    for at, tool in enumerate(given or ()):
        if tool.type == "file_search":
            if not tool.vector_store_ids:
                raise Refused(f"tools[{at}] is a file_search without vector_store_ids.", param="tools")
            continue
        if tool.type != "function" or not tool.name:
            raise Refused(
                f"tools[{at}] is a {tool.type!r:.40}; tools of the types 'function' and 'file_search' are served.",
                param="tools",
            )
        function = tool.model_dump(include={"name", "description", "parameters", "strict"})
        tools.append({"type": "function", "function": {k: v for k, v in function.items() if v is not None}})
    return choose(tools, choice)


def options_of(body: ResponseRequest) -> dict[str, Any]:
    """GenerateOptions' keyword arguments. Raises Refused."""
    logprobs = body.top_logprobs or 0 if wants_logprobs(body) else None
    found: dict[str, Any] = {
        "max_tokens": body.max_output_tokens, "temperature": body.temperature, "top_p": body.top_p,
        "top_k": 0 if body.top_k == -1 else body.top_k, "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty, "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty, "seed": body.seed, "logprobs": logprobs,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop,
    }  # fmt: skip
    format = body.text.format if body.text else None
    if format and format.type == "json_object":
        found["json_schema"] = json.dumps(ANY_OBJECT)
    elif format and format.type == "json_schema":
        if format.schema_ is None:
            raise Refused("text.format is a json_schema without a schema.", param="text.format.schema")
        found["json_schema"] = json.dumps(format.schema_)
    return {name: value for name, value in found.items() if value is not None}


def wants_logprobs(body: ResponseRequest) -> bool:
    """Whether each token's probability is to be told."""
    return bool(body.top_logprobs) or "message.output_text.logprobs" in (body.include or ())
