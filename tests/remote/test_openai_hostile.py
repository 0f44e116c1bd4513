"""Answers and conversations with anything anywhere: they give pieces or an error of ours, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from brolly.errors import BrollyError
from brolly.remote.dialects.openai import chat, responses
from tests.remote.test_openai_chat import ASKED, OPENAI, USAGE, chunk, picture, sound
from tests.remote.test_openai_responses import CALLED, RAW, TEXT, THOUGHT, ended, event
from tests.remote.wire import WEATHER, ask_of, mutants, read, target_of


def survives(dialect: Any, ask: Any, events: list[Any] | None, body: Any = None) -> None:
    """Pieces, or an error of ours: nothing else, and every piece can be written as UTF-8."""
    try:
        if events is None:
            pieces = dialect.whole(body, ask, OPENAI)
        else:
            pieces = read(dialect, ask, OPENAI, [(name, data) for name, data in events])
        for piece in pieces:
            (piece.text + piece.reasoning + str(piece.finish_reason)).encode()
            for one in piece.calls:
                (one.arguments + (one.id or "") + (one.name or "")).encode()
            for row in piece.logprobs:
                json.dumps([row.text, row.logprob], allow_nan=False)
            assert piece.usage is None or 0 <= piece.usage.total_tokens < 1 << 42
    except BrollyError as error:
        assert len(str(error)) < 2000
        str(error).encode()


def test_no_conversation_breaks_what_is_sent() -> None:
    """An ask that cannot be said is refused as such."""
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": ["b", picture(), sound("wav"), {"type": "file", "file": {"file_data": "c"}}]},
        {
            "role": "assistant", "content": [{"type": "text", "text": "d"}], "reasoning_content": "e",
            "tool_calls": [{"id": "f", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
            "opaque": [
                {"vendor": "openai", "item": {"type": "reasoning"}}, {"vendor": "openai", "said": "d", "phase": "h"},
                {"vendor": "openai", "call": "f"}, {"vendor": "openai", "thoughts": "i"},
            ],
        },
        {"role": "tool", "tool_call_id": "f", "content": "j", "is_error": True},
    ]  # fmt: skip
    taker = target_of(takes=("reasoning_content",))
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WEATHER]}}
    for place, given in enumerate([conversation, [WEATHER], choice]):
        for mutant in mutants(given, place, 4000):
            several: list[Any] = [conversation, [WEATHER], choice]
            several[place] = mutant
            for dialect in (chat, responses):
                try:
                    ask = ask_of(several[0], tools=several[1], tool_choice=several[2])
                    dialect.lacks(ask, taker)
                    dialect.hints(ask, taker)
                    dialect.call(ask, taker)
                except BrollyError as error:
                    str(error).encode("utf-8", "replace")


def test_no_answer_breaks_the_reader() -> None:
    ask = ask_of("Hi", logprobs=1, stream=True)
    rows = [{"token": "a", "bytes": [97], "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}]
    details = {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}
    full = [
        chunk({"content": "a", "reasoning": "b", "refusal": "c"}, logprobs={"content": rows, "refusal": rows}),
        *ASKED, chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}]}),
        chunk({"function_call": {"name": "f", "arguments": "{}"}}), chunk(finish="stop", stop_reason="x"),
        ("", {"choices": [], "usage": USAGE | details}),
    ]  # fmt: skip
    for at in range(len(full)):
        for mutant in mutants(full[at][1], at, 1200):
            survives(chat, ask, [*full[:at], (full[at][0], mutant), *full[at + 1 :]])
    message = {"role": "assistant", "content": "a", "reasoning_content": "b", "refusal": "c"}
    message |= ASKED[0][1]["choices"][0]["delta"]
    choice = {"index": 0, "message": message, "logprobs": {"content": rows}, "finish_reason": "stop"}
    for mutant in mutants({"choices": [choice], "usage": USAGE}, 7, 2000):
        survives(chat, ask, None, mutant)


def test_no_response_breaks_the_reader() -> None:
    ask = ask_of("Hi", logprobs=1, stream=True)
    rows = [{"token": "a", "bytes": [97], "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}]
    part = {"type": "output_text", "text": "a", "logprobs": rows, "annotations": []}
    text = {**TEXT, "phase": "commentary", "content": [part, {"type": "refusal", "refusal": "no"}]}
    full = [
        event("reasoning_summary_text.delta", 0, summary_index=0, delta="Hm"),
        event("output_item.done", 0, item=THOUGHT),
        event("output_item.added", 1, item={**CALLED, "arguments": ""}),
        event("function_call_arguments.delta", 1, delta='{"a": 1}'), event("output_item.done", 1, item=CALLED),
        event("output_text.delta", 2, content_index=0, delta="a", logprobs=rows),
        event("output_item.done", 2, item=text),
        ended(THOUGHT, CALLED, text, RAW, error=None, incomplete_details={"reason": "max_output_tokens"}),
    ]  # fmt: skip
    for at in range(len(full)):
        for mutant in mutants(full[at][1], at, 1200):
            survives(responses, ask, [*full[:at], (full[at][0], mutant), *full[at + 1 :]])
    for mutant in mutants(full[-1][1]["response"], 7, 3000):
        survives(responses, ask, None, mutant)
