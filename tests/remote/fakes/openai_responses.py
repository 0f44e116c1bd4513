"""OpenAI's /responses and /responses/input_tokens, of which nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming as ResponseParams

from tests.remote.fakes.openai import NOW, FakeOpenAI, Refused, cached, checked, held, thinks, token_rows, within
from tests.remote.fakes.script import Says, Talk, Tool, Turn, words
from tests.remote.fakes.server import Chunk, Reply, Request, sse

SEALED = "gAAAAABsealed-"  # how encrypted thoughts begin
LOGPROBS = "message.output_text.logprobs"


def count(fake: FakeOpenAI, request: Request) -> Reply:
    talk = _talk(checked(InputTokenCountParams, request))
    n = sum(len(words(turn.text)) for turn in talk.messages) + 10 * talk.pictures
    return Reply(body={"object": "response.input_tokens", "input_tokens": n})


def respond(fake: FakeOpenAI, request: Request) -> Reply:
    body = checked(ResponseParams, request)
    for name, low, high in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("top_logprobs", 0, 20),
        ("max_output_tokens", 16, 1 << 40),
    ):
        within(body, name, low, high)  # fmt: skip
    if "reasoning.encrypted_content" in body.get("include", ()) and not thinks(body["model"]):
        raise Refused("Encrypted content is not supported with this model.", None, "include")
    said = fake.says(_talk(body))
    response = _response(fake, body, said)
    if not body["stream"]:
        return Reply(body=response)
    return Reply(200, {"content-type": "text/event-stream; charset=utf-8"}, chunks=list(_stream(response)))


def _talk(body: dict[str, Any]) -> Talk:
    """Raises Refused."""
    given = body.get("input") or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    turns = [Turn("system", body["instructions"])] if body.get("instructions") else []
    kinds: list[str] = []
    open_: set[str] = set()
    for at, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "message":
            content = item["content"]
            parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
            kinds += [part["type"] for part in parts]
            role = "system" if item["role"] == "developer" else item["role"]
            turns.append(Turn(role, "".join(part.get("text", "") for part in parts)))
        elif kind == "reasoning":
            if not (item.get("encrypted_content") or "").startswith(SEALED):
                raise Refused(
                    f"Item '{item['id']}' not found. Items are not persisted when `store` is false.", status=404
                )
            following = items[at + 1].get("type", "message") if at + 1 < len(items) else None
            if following not in ("message", "function_call") or items[at + 1].get("role", "assistant") != "assistant":
                raise Refused(
                    f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
                )
        elif kind == "function_call":
            json.loads(item["arguments"])
            open_.add(item["call_id"])
            turns.append(Turn("assistant", ""))
        elif kind == "function_call_output":
            if item["call_id"] not in open_:
                raise Refused(
                    f"No tool call found for function call output with call_id {item['call_id']}.", None, "input"
                )
            open_.discard(item["call_id"])
            output = item["output"]
            parts = [{"type": "input_text", "text": output}] if isinstance(output, str) else output
            kinds += [part["type"] for part in parts]
            turns.append(Turn("tool", " ".join(part.get("text", "[picture]") for part in parts)))
        else:
            raise Refused(f"Invalid value: '{kind}'.", "invalid_value", f"input[{at}]")
    if open_:
        raise Refused(f"No tool output found for function call {min(open_)}.", None, "input")
    form, schema = (body.get("text") or {}).get("format"), None
    if form and form["type"] == "json_object":
        schema = {}
        if "json" not in json.dumps(items).lower():
            raise Refused("Response input messages must contain the word 'json' in some form.", None, "input")
    elif form and form["type"] == "json_schema":
        schema = form["schema"]
        held(schema, form["name"], "text.format", form.get("strict"))
    for one in body.get("tools", ()):
        held(one.get("parameters") or {}, one["name"], "tools", one.get("strict"))
    choice = body.get("tool_choice", "auto")
    return Talk(
        messages=turns, tools=[Tool(one["name"], one.get("parameters") or {}) for one in body.get("tools", ())],
        choice=choice if isinstance(choice, str) else choice["name"], parallel=body.get("parallel_tool_calls", True),
        schema=schema, max_tokens=body.get("max_output_tokens"), pictures=kinds.count("input_image"),
        files=kinds.count("input_file"),
        thinking=thinks(body["model"]) and (body.get("reasoning") or {}).get("effort") != "none",
    )  # fmt: skip


def _response(fake: FakeOpenAI, body: dict[str, Any], said: Says) -> dict[str, Any]:
    cut = said.finish == "length"
    status = "incomplete" if cut else "completed"
    reasoning, output = body.get("reasoning") or {}, []
    if said.thoughts:
        summary = [{"type": "summary_text", "text": said.thoughts}] if reasoning.get("summary") else []
        id = fake.id("rs_")
        output.append({"id": id, "type": "reasoning", "summary": summary, "encrypted_content": f"{SEALED}{id}"})
    for call in said.calls:
        output.append({
            "id": fake.id("fc_"), "type": "function_call", "status": "completed", "arguments": call.json,
            "call_id": fake.id("call_"), "name": call.name,
        })  # fmt: skip
    if not said.calls:
        logprobs = token_rows(said.text, body.get("top_logprobs") or 0) if LOGPROBS in body.get("include", ()) else []
        part: dict[str, Any] = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": logprobs}
        if said.refusal:
            part = {"type": "refusal", "refusal": said.refusal}
        output.append(
            {"id": fake.id("msg_"), "type": "message", "status": status, "role": "assistant", "content": [part]}
        )
    return {
        "id": fake.id("resp_"), "object": "response", "created_at": NOW, "status": status, "background": False,
        "error": None, "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": body.get("instructions"), "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"], "output": output, "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None, "reasoning": {"effort": None, "summary": None, **reasoning},
        "store": body.get("store", True), "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}}, "tool_choice": body.get("tool_choice", "auto"),
        "tools": list(body.get("tools", ())), "top_p": body.get("top_p", 1.0), "truncation": "disabled",
        "usage": {
            "input_tokens": said.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached(fake.asked[-1], said), "cache_write_tokens": 0},
            "output_tokens": said.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
            "total_tokens": said.prompt_tokens + said.completion_tokens,
        },
        "user": None, "metadata": {},
    }  # fmt: skip


def _stream(response: dict[str, Any]) -> Iterator[Chunk]:
    for number, (kind, row) in enumerate(_events(response)):
        yield sse({"type": kind, "sequence_number": number, **row}, kind)


def _events(response: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for at, item in enumerate(response["output"]):
        here = {"item_id": item["id"], "output_index": at}
        if item["type"] == "reasoning":
            yield "response.output_item.added", {"output_index": at, "item": {**item, "summary": []}}
            for place, part in enumerate(item["summary"]):
                there = {**here, "summary_index": place}
                yield "response.reasoning_summary_part.added", {**there, "part": {**part, "text": ""}}
                for word in words(part["text"]):
                    yield "response.reasoning_summary_text.delta", {**there, "delta": word, "obfuscation": "x"}
                yield "response.reasoning_summary_text.done", {**there, "text": part["text"]}
                yield "response.reasoning_summary_part.done", {**there, "part": part}
        elif item["type"] == "function_call":
            begun = {**item, "status": "in_progress", "arguments": ""}
            yield "response.output_item.added", {"output_index": at, "item": begun}
            for start in range(0, len(item["arguments"]), 5):
                delta = item["arguments"][start : start + 5]
                yield "response.function_call_arguments.delta", {**here, "delta": delta, "obfuscation": "xyz"}
            done = {**here, "arguments": item["arguments"], "name": item["name"]}
            yield "response.function_call_arguments.done", done
        else:
            yield "response.output_item.added", {
                "output_index": at, "item": {**item, "status": "in_progress", "content": []},
            }  # fmt: skip
            (part,), there = item["content"], {**here, "content_index": 0}
            kind = "text" if part["type"] == "output_text" else "refusal"
            empty = {**part, kind: "", **({"logprobs": []} if kind == "text" else {})}
            yield "response.content_part.added", {**there, "part": empty}
            name = "output_text" if kind == "text" else "refusal"
            for place, word in enumerate(words(part[kind])):
                rows = part.get("logprobs", [])[place : place + 1]
                more = {"logprobs": rows} if kind == "text" else {}
                yield f"response.{name}.delta", {**there, "delta": word, **more, "obfuscation": "x"}
            more = {"logprobs": part.get("logprobs", [])} if kind == "text" else {}
            yield f"response.{name}.done", {**there, kind: part[kind], **more}
            yield "response.content_part.done", {**there, "part": part}
        yield "response.output_item.done", {"output_index": at, "item": item}
    yield f"response.{response['status']}", {"response": response}
