"""Requests of our own in the form of coding agents': a long system prompt, many tools, long histories, every option."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .conftest import CHAT

GUIDE = (
    "You are an agent that works on a user's code.\n\n# Rules\n"
    + "- Read before you write, and test what you wrote.\n" * 100
)


def schema(**properties: Any) -> dict[str, Any]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": properties,
        "required": list(properties)[:1], "additionalProperties": False,
    }  # fmt: skip


TEXT = {"type": "string", "description": "a text"}
SCHEMAS: dict[str, Any] = {
    "Bash": schema(command=TEXT, timeout={"type": "number", "maximum": 600000}, run_in_background={"type": "boolean"}),
    "Edit": schema(file_path=TEXT, old_string=TEXT, new_string=TEXT, replace_all={"type": "boolean", "default": False}),
    "Glob": schema(pattern=TEXT, path=TEXT),
    "Grep": schema(pattern=TEXT, output_mode={"enum": ["content", "files"]}, **{"-A": {"type": "number"}}),
    "Read": schema(file_path=TEXT, offset={"type": "number"}, limit={"type": "number"}),
    "Task": schema(description={"type": "string", "minLength": 3}, model={"anyOf": [{"enum": [1]}, {"type": "null"}]}),
    "Todo": schema(todos={
        "type": "array", "minItems": 1, "items": {
            "type": "object", "properties": {
                "content": {"type": "string", "minLength": 1}, "status": {"enum": ["pending", "done"]},
            }, "required": ["content", "status"], "additionalProperties": False,
        },
    }),
    "WebFetch": schema(url={"type": "string", "format": "uri"}, prompt=TEXT),
    "Open": {"type": "object", "properties": {"map": {"type": "object", "additionalProperties": {"type": "string"}}}},
    "Nothing": {"type": "object", "properties": {}},
    **{f"mcp__server__tool_{n}": schema(argument=TEXT, count={"type": "integer", "minimum": 0}) for n in range(30)},
}  # fmt: skip


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream"), response.read()
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


# As Claude Code speaks to /v1/messages

CACHED = {"type": "ephemeral", "ttl": "1h"}


def turn(**more: Any) -> dict[str, Any]:
    return {
        "model": CHAT,
        "max_tokens": 400,
        "stream": True,
        "temperature": 1,
        "metadata": {"user_id": "user_0_account__session_1"},
        "system": [
            {"type": "text", "text": "You are an agent.", "cache_control": CACHED},
            {"type": "text", "text": GUIDE, "cache_control": CACHED},
        ],
        "tools": [{"name": n, "description": f"{n}: does it.", "input_schema": s} for n, s in SCHEMAS.items()],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>\nThe date is known.\n</system-reminder>"},
                    {"type": "text", "text": "Fix the test.", "cache_control": {"type": "ephemeral"}},
                ],
            }
        ],
    } | more


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator[httpx.Client]:
    headers = {
        "x-api-key": "none", "anthropic-version": "2023-06-01", "user-agent": "agent/1.0 (external, cli)",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14",
    }  # fmt: skip
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=300, params={"beta": "true"}) as client:
        yield client


def message(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The message that a stream's events amount to."""
    told: dict[str, Any] = {}
    with client.stream("POST", "/messages", json=body) as response:
        for event in events(response):
            match event["type"]:
                case "message_start":
                    told = event["message"]
                case "content_block_start":
                    told["content"].append(event["content_block"] | {"json": ""})
                case "content_block_delta":
                    block, delta = told["content"][event["index"]], event["delta"]
                    kind = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}.get(
                        delta["type"]
                    )
                    if kind:
                        block[kind] += delta["partial_json" if kind == "json" else kind]
                    else:
                        block["signature"] = delta["signature"]
                case "message_delta":
                    told |= event["delta"]
                case "error":
                    pytest.fail(str(event))
    return told


def test_claude_a_first_turn(claude: httpx.Client) -> None:
    assert message(claude, turn())["stop_reason"] in ("end_turn", "max_tokens", "tool_use")


def test_claude_thinking(claude: httpx.Client) -> None:
    told = message(claude, turn(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024}))
    assert told["stop_reason"]
    assert message(claude, turn(thinking={"type": "adaptive"}, output_config={"effort": "high"}))["stop_reason"]


@pytest.mark.parametrize("name", ["Bash", "Edit", "Grep", "Task", "Todo", "Nothing", "mcp__server__tool_7"])
def test_claude_each_tool_can_be_called_and_answered(claude: httpx.Client, name: str) -> None:
    choice = {"type": "tool", "name": name, "disable_parallel_tool_use": True}
    told = message(claude, turn(tool_choice=choice, max_tokens=3000))
    call = next(block for block in told["content"] if block["type"] == "tool_use")
    assert call["name"] == name and set(SCHEMAS[name].get("required", [])) <= set(json.loads(call["json"] or "{}"))
    said = [
        {"type": "thinking", "thinking": "I should look.", "signature": "c2lnbmVk"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": call["id"], "name": name, "input": json.loads(call["json"] or "{}")},
        {"type": "tool_use", "id": "toolu_2", "name": "Read", "input": {"file_path": "/a"}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": call["id"], "content": "done", "is_error": False},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_2",
            "is_error": True,
            "content": [{"type": "text", "text": "none"}],
        },
        {"type": "text", "text": "<system-reminder>Go on.</system-reminder>", "cache_control": {"type": "ephemeral"}},
    ]
    history = [*turn()["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": results}]
    assert message(claude, turn(messages=history))["stop_reason"]


def test_claude_what_is_asked_beside_turns(claude: httpx.Client) -> None:
    quota = {
        "model": CHAT,
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "quota"}],
        "metadata": {"user_id": "u"},
    }
    assert claude.post("/messages", json=quota).json()["usage"]["output_tokens"] == 1
    counted = {name: turn()[name] for name in ("model", "system", "tools", "messages")}
    assert claude.post("/messages/count_tokens", json=counted).json()["input_tokens"] > 1000
    title = turn(stream=False, tools=[], temperature=0, messages=[
        {"role": "user", "content": "Write a title."}, {"role": "assistant", "content": "{"},
    ])  # fmt: skip
    assert claude.post("/messages", json=title).status_code == 200


def test_claude_a_long_history_is_remembered_by_the_server(claude: httpx.Client) -> None:
    first = claude.post("/messages", json=turn(stream=False, max_tokens=5)).json()["usage"]
    again = claude.post("/messages", json=turn(stream=False, max_tokens=5)).json()["usage"]
    assert again["cache_read_input_tokens"] > 0.9 * (first["input_tokens"] + first["cache_read_input_tokens"])


# As Codex speaks to /v1/responses


def codex(**more: Any) -> dict[str, Any]:
    return {
        "model": CHAT,
        "instructions": GUIDE,
        "input": [
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "Sandbox: read-only."}],
            },
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<cwd>/home</cwd>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix the test."}]},
        ],
        "tools": [
            {"type": "function", "name": n, "description": f"{n}: does it.", "strict": False, "parameters": s}
            for n, s in SCHEMAS.items()
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "019a0000-0000-7000-8000-000000000000",
        "text": {"verbosity": "medium"},
        "max_output_tokens": 400,
    } | more


@pytest.fixture(scope="module")
def openai(v1: str) -> Iterator[httpx.Client]:
    headers = {
        "authorization": "Bearer none",
        "originator": "an_agent",
        "session_id": "1",
        "accept": "text/event-stream",
    }
    with httpx.Client(base_url=v1, headers=headers, timeout=300) as client:
        yield client


def response(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The response with which a stream ends; its items have come by themselves before."""
    items, last = [], {}
    with client.stream("POST", "/responses", json=body) as stream:
        for event in events(stream):
            if event["type"] == "response.output_item.done":
                items.append(event["item"])
            last = event
    assert last["type"] in ("response.completed", "response.incomplete"), last
    assert last["response"]["output"] == items
    found: dict[str, Any] = last["response"]
    return found


def test_codex_a_first_turn(openai: httpx.Client) -> None:
    assert response(openai, codex())["usage"]["input_tokens"] > 1000


def test_codex_calls_and_their_results_as_history(openai: httpx.Client) -> None:
    told = response(openai, codex(tool_choice={"type": "function", "name": "Bash"}, max_output_tokens=3000))
    call = next(item for item in told["output"] if item["type"] == "function_call")
    reasoning = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "I look."}],
        "content": None,
    }
    history = [
        *codex()["input"],
        reasoning | {"encrypted_content": "b3BhcXVl"},
        *told["output"],
        {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": '{"output":"ok","metadata":{"exit_code":0}}',
        },
        {"type": "function_call", "name": "Read", "arguments": "{not json", "call_id": "call_2"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "failed"}]},
    ]
    assert response(openai, codex(input=history))["status"] in ("completed", "incomplete")


def test_codex_a_patch_by_grammar(openai: httpx.Client) -> None:
    grammar = 'start: "*** Begin Patch" NEWLINE /[a-z]{1,8}/ NEWLINE "*** End Patch"\nNEWLINE: /\\n/\n'
    patch = {
        "type": "custom", "name": "apply_patch", "description": "Edits files.",
        "format": {"type": "grammar", "syntax": "lark", "definition": grammar},
    }  # fmt: skip
    told = response(openai, codex(tools=[patch], tool_choice={"type": "custom", "name": "apply_patch"}))
    call = next(item for item in told["output"] if item["type"] == "custom_tool_call")
    assert call["input"].startswith("*** Begin Patch")


def test_codex_structured_answer(openai: httpx.Client) -> None:
    form = {
        "type": "json_schema",
        "name": "review",
        "strict": True,
        "schema": schema(verdict={"enum": ["good", "bad"]}),
    }
    told = response(openai, codex(tools=[], text={"format": form}, max_output_tokens=600))
    assert json.loads(told["output"][-1]["content"][0]["text"])["verdict"] in ("good", "bad")
