"""/v1/messages by Anthropic's client: whole answers, the order of events, blocks both ways, and its envelope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly import load
from brolly.engine.job import Job
from brolly.errors import Busy
from brolly.serve.words import anthropic as words_of
from brolly.verbs import Piece, ToolDelta, Usage
from tests.serve.conftest import Running
from tests.serve.scripted import eventually, scripted, words

anthropic = pytest.importorskip("anthropic")

STORY = [{"role": "user", "content": "Tell me a story."}]
GREEDY = {"extra_body": {"temperature": 0}}
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def client(brolly: Running) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=brolly.url, api_key="none", max_retries=0) as found:
        yield found


def client_of(running: Running) -> Any:
    return anthropic.Anthropic(base_url=running.url, api_key="none", max_retries=0)


def said(message: Any) -> list[dict[str, Any]]:
    """The content, without what the client adds."""
    kept = ("type", "text", "thinking", "signature", "id", "name", "input")
    return [{k: v for k, v in block.to_dict().items() if k in kept} for block in message.content]


def test_an_answer_is_what_the_model_says(client: Any) -> None:
    found = client.messages.create(model="mini-llm", max_tokens=20, messages=STORY, **GREEDY)
    want = load("mini-llm").chat(STORY, max_tokens=20, temperature=0)
    assert said(found) == [{"type": "text", "text": want.text}]
    assert (found.role, found.type, found.model, found.stop_reason) == (
        "assistant",
        "message",
        "mini-llm",
        "max_tokens",
    )
    assert found.id.startswith("msg_") and found.stop_sequence is None
    told = found.usage
    assert told.input_tokens + told.cache_read_input_tokens == want.usage.prompt_tokens and told.output_tokens == 20


def test_a_text_has_no_field_without_a_value(brolly: Running) -> None:
    body = {"model": "mini-llm", "max_tokens": 2, "messages": STORY}
    (text,) = httpx.post(f"{brolly.v1}/messages", json=body).json()["content"]
    assert set(text) == {"type", "text"}, "a null where Anthropic writes none breaks @ai-sdk/anthropic"


def test_streamed_is_not_streamed(client: Any) -> None:
    asked = {"model": "mini-llm", "max_tokens": 40, "messages": STORY, **GREEDY}
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert said(final) == said(whole) and text == whole.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_what_was_remembered_is_told(client: Any) -> None:
    """The second time a long prompt comes, its whole blocks are read from the cache."""
    told = [{"role": "user", "content": "Tell me a story about the fox and the hen. " * 12}]
    usages = [client.messages.create(model="mini-llm", max_tokens=2, messages=told).usage for _ in range(2)]
    assert usages[1].cache_read_input_tokens > 0
    assert len({u.input_tokens + u.cache_read_input_tokens for u in usages}) == 1


def test_the_stop_sequence_that_ended_it_is_named(client: Any) -> None:
    asked = {"model": "mini-llm", "max_tokens": 60, "messages": STORY, **GREEDY}
    text = client.messages.create(**asked).content[0].text
    first, second = [word for word in text.split() if len(word) > 4][:2]
    for stops in ([second, "zebra", first], [first, second]):
        found = client.messages.create(**asked, stop_sequences=stops)
        assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", first)
        assert found.content[0].text == text[: text.index(first)]
        with client.messages.stream(**asked, stop_sequences=stops) as stream:
            final = stream.get_final_message()
        assert (final.stop_sequence, said(final)) == (first, said(found))
    none = client.messages.create(**{**asked, "max_tokens": 5}, stop_sequences=["zebra"])
    assert (none.stop_reason, none.stop_sequence) == ("max_tokens", None)


def test_an_answer_that_fills_the_context_says_so(client: Any) -> None:
    asked = [{"role": "user", "content": "a story " * 240}]
    n_prompt = client.messages.count_tokens(model="mini-llm", messages=asked).input_tokens
    assert 470 < n_prompt < 512
    found = client.messages.create(model="mini-llm", max_tokens=400, messages=asked, stop_sequences=["zebra"])
    room = 512 - n_prompt
    assert found.stop_reason == ("model_context_window_exceeded" if found.usage.output_tokens == room else "end_turn")


def test_a_last_message_of_the_assistants_is_gone_on_with(client: Any) -> None:
    begun = [*STORY, {"role": "assistant", "content": "Once upon"}]
    found = client.messages.create(model="mini-llm", max_tokens=5, messages=begun, **GREEDY)
    assert found.content[0].text.startswith(" a time")


def test_tokens_are_counted_as_they_are_read(client: Any) -> None:
    counted = client.messages.count_tokens(model="mini-llm", messages=STORY, system="Be kind.")
    rows = [{"role": "system", "content": "Be kind."}, *STORY]
    assert counted.input_tokens == len(load("mini-llm").prepare_chat(rows).prompt)
    assert counted.input_tokens > client.messages.count_tokens(model="mini-llm", messages=STORY).input_tokens


@pytest.mark.parametrize(
    ("given", "status", "kind", "why"),
    [
        ({"model": "other"}, 404, "not_found_error", "not served"),
        ({"model": "mini-clip"}, 400, "invalid_request_error", "cannot chat"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"max_tokens": 0}, 400, "invalid_request_error", "max_tokens"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"temperature": 1.5}, 400, "invalid_request_error", "temperature"),
        ({"messages": [{"role": "poet", "content": "a"}]}, 400, "invalid_request_error", "messages[0].role"),
        ({"messages": [{"role": "user", "content": "a " * 2000}]}, 400, "invalid_request_error", "holds 512"),
        ({"stop_sequences": [""]}, 400, "invalid_request_error", "empty string"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web"}]},
            400,
            "invalid_request_error",
            "at Anthropic alone",
        ),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, 400, "invalid_request_error", "none of"),
    ],
)
def test_what_cannot_be_granted_is_refused_in_anthropics_envelope(
    brolly: Running, given: dict[str, Any], status: int, kind: str, why: str
) -> None:
    body = {"model": "mini-llm", "max_tokens": 5, "messages": STORY, **given}
    for stream in (False, True):
        found = httpx.post(f"{brolly.v1}/messages", json={**body, "stream": stream}, timeout=60)
        assert found.status_code == status, found.text
        told = found.json()
        assert (told["type"], told["error"]["type"]) == ("error", kind) and why in told["error"]["message"]
        assert told["request_id"]


@pytest.mark.parametrize("block", [
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}},
    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image", "source": {}}]},
])  # fmt: skip
def test_a_picture_is_refused_by_its_name_as_no_model_chats_with_pictures(client: Any, block: dict[str, Any]) -> None:
    with pytest.raises(anthropic.BadRequestError, match="reads text alone"):
        client.messages.create(model="mini-llm", max_tokens=5, messages=[{"role": "user", "content": [block]}])


def test_headers_and_fields_of_betas_pass(brolly: Running) -> None:
    body = {
        "model": "mini-llm", "max_tokens": 2, "messages": STORY, "metadata": {"user_id": "me"}, "container": None,
        "thinking": {"type": "disabled"}, "context_management": {"edits": []}, "service_tier": "auto",
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
    }  # fmt: skip
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "context-management-2025-06-27", "x-api-key": "k"}
    found = httpx.post(f"{brolly.v1}/messages?beta=true", json=body, headers=headers, timeout=60)
    assert found.status_code == 200 and found.json()["usage"]["output_tokens"] == 2
    assert "model=mini-llm" in found.headers["x-brolly-provenance"]


def thinking_and_calling(job: Job) -> Iterator[Piece]:
    yield Piece("", (1,), reasoning="Let me ")
    yield Piece("", (2,), reasoning="see.")
    yield Piece("I look ", (3,))
    yield Piece("it up.", (4,), calls=(ToolDelta(0, '{"city":', "call_1", "weather"),))
    yield Piece("", (5,), calls=(ToolDelta(0, ' "Bonn"}'), ToolDelta(1, "{}", "call_2", "clock")))
    usage = Usage(len(job.prompt), 9, cached_tokens=3, reasoning_tokens=2)
    yield Piece("", (6,), finish_reason="tool_calls", usage=usage)


def test_thoughts_text_and_calls_come_as_blocks_in_anthropics_order(tmp_path: Path) -> None:
    asked = {"model": "scripted", "max_tokens": 50, "messages": STORY, "tools": [WEATHER]}
    with scripted(thinking_and_calling, tmp_path) as (running, model), client_of(running) as client:
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            final = stream.get_final_message()
        raw = httpx.post(f"{running.v1}/messages", json={**asked, "stream": True}, timeout=60).text
        n_prompt = len(model.jobs[0].prompt)
    blocks = said(whole)
    assert [b["type"] for b in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert blocks[0]["thinking"] == "Let me see." and blocks[0]["signature"]
    assert blocks[1]["text"] == "I look it up."
    assert blocks[2] == {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Bonn"}}
    assert blocks[3] == {"type": "tool_use", "id": "call_2", "name": "clock", "input": {}}
    assert said(final) == blocks
    for one in (whole, final):
        assert one.stop_reason == "tool_use"
        assert (one.usage.input_tokens, one.usage.cache_read_input_tokens) == (n_prompt - 3, 3)
        assert one.usage.output_tokens == 9
    events = [block.split("\n") for block in raw.strip().split("\n\n")]
    rows = [json.loads(data.removeprefix("data: ")) for _, data in events]
    assert [name.removeprefix("event: ") for name, _ in events] == [row["type"] for row in rows]
    kinds = [row["delta"]["type"] if "delta" in row and "type" in row["delta"] else row["type"] for row in rows]
    assert kinds == [
        "message_start", "ping",
        "content_block_start", "thinking_delta", "thinking_delta", "signature_delta", "content_block_stop",
        "content_block_start", "text_delta", "text_delta", "content_block_stop",
        "content_block_start", "input_json_delta", "input_json_delta", "content_block_stop",
        "content_block_start", "input_json_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    indexes = [row["index"] for row in rows if "index" in row]
    assert indexes == sorted(indexes) and set(indexes) == {0, 1, 2, 3}
    assert rows[0]["message"]["content"] == [] and rows[0]["message"]["stop_reason"] is None


def test_the_history_reaches_the_template_in_its_own_words(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}, {"type": "text", "text": "In Bonn."}]},
        {"role": "user", "content": "Please."},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "redacted_thinking", "data": "y"},
            {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "a", "name": "weather", "input": {"b": 1}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "rain"}]},
            {"type": "tool_result", "tool_use_id": "b", "content": "late", "is_error": True},
            {"type": "text", "text": "And now?"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A note."}},
        ]},
    ]  # fmt: skip
    choices = {"auto": "auto", "any": "required", "none": "none"}
    with scripted(words(1), tmp_path) as (running, model), client_of(running) as client:
        for kind in choices:
            client.messages.create(
                model="scripted", max_tokens=5, messages=messages, system="Be kind.", tools=[WEATHER],
                tool_choice={"type": kind} | ({} if kind == "none" else {"disable_parallel_tool_use": True}),
                thinking={"type": "enabled", "budget_tokens": 1024},
            )  # fmt: skip
        httpx.post(f"{running.v1}/messages", timeout=60, json={
            "model": "scripted", "max_tokens": 5, "messages": STORY, "tools": [WEATHER], "stop_sequences": ["a"],
            "top_k": 3, "top_p": 0.5, "temperature": 0.25, "tool_choice": {"type": "tool", "name": "weather"},
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        })  # fmt: skip
    asked = model.asked
    assert asked[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?\nIn Bonn.\n\nPlease."},
        {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"b": 1}'}}
        ]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": "late"},
        {"role": "user", "content": "And now?\nA note."},
    ]  # fmt: skip
    assert [one["tool_choice"] for one in asked[:3]] == list(choices.values())
    assert [one["parallel_tool_calls"] for one in asked] == [False, False, True, True]
    assert asked[3]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    function = {"name": "weather", "description": "Tells it.", "parameters": WEATHER["input_schema"]}
    assert asked[0]["tools"] == [{"type": "function", "function": function}]
    assert [one["template"]["enable_thinking"] for one in asked] == [True, True, True, False]
    options = model.jobs[3].options
    assert (options.top_k, options.top_p, options.temperature, options.stop) == (3, 0.5, 0.25, ("a",))
    assert json.loads(options.json_schema or "") == {"type": "object"} and options.max_tokens == 5


def test_arguments_that_were_cut_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    def cut(job: Job) -> Iterator[Piece]:
        yield Piece("", (1,), calls=(ToolDelta(0, '{"city": "Bo', "c", "weather"),))
        yield Piece("", (2,), finish_reason="length", usage=Usage(3, 50))

    asked = {"model": "scripted", "max_tokens": 50, "messages": STORY, "tools": [WEATHER]}
    with scripted(cut, tmp_path) as (running, _), client_of(running) as client:
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            assert said(stream.get_final_message()) == said(whole)
    assert whole.content[0].input == {"city": "Bo"} or whole.content[0].input == {}
    assert whole.stop_reason == "max_tokens"


def test_an_error_in_the_middle_of_a_stream_is_told_as_an_event(tmp_path: Path) -> None:
    def broken(job: Job) -> Iterator[Piece | BaseException]:
        yield Piece("one", (1,))
        yield Busy("no room any more", 2)

    with scripted(broken, tmp_path, pause=0.05) as (running, _), client_of(running) as client:
        with pytest.raises(anthropic.APIStatusError, match="no room any more"):
            list(client.messages.create(model="scripted", max_tokens=5, messages=STORY, stream=True))
        with pytest.raises(anthropic.RateLimitError):
            client.messages.create(model="scripted", max_tokens=5, messages=STORY)


def test_a_long_silence_before_the_first_word_is_filled_with_pings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words_of, "PING", 0.05)
    body = {"model": "scripted", "max_tokens": 5, "messages": STORY, "stream": True}
    with scripted(words(1), tmp_path, pause=0.4) as (running, _):
        raw = httpx.post(f"{running.v1}/messages", json=body, timeout=60).text
    assert raw.count("event: ping") > 2 and raw.index("ping") < raw.index("text_delta") < raw.index("message_stop")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_job(tmp_path: Path, stream: bool) -> None:
    body = {"model": "scripted", "max_tokens": 5, "messages": STORY, "stream": stream}
    with scripted(words(10_000), tmp_path, pause=0.01) as (running, model):
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.3) as client:
            if stream:
                with client.stream("POST", f"{running.v1}/messages", json=body) as answer:
                    next(answer.iter_lines())
                    raise httpx.ReadTimeout("enough")
            client.post(f"{running.v1}/messages", json=body)
        assert eventually(lambda: bool(model.tickets) and model.tickets[0].cancelled.is_set())


def test_models_are_listed_as_anthropic_lists_them(client: Any, openai_client: Any) -> None:
    found = list(client.models.list(limit=2))
    assert [one.id for one in found] == [one.id for one in openai_client.models.list()]
    page = client.models.list(limit=1)
    assert page.has_more and page.first_id == page.last_id == found[0].id
    back = client.models.list(before_id=found[2].id, limit=1)
    assert [one.id for one in back.data] == [found[1].id]
    one = client.models.retrieve("mini-llm")
    assert (one.type, one.display_name, one.max_input_tokens) == ("model", "mini-llm", 512)
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("other")
