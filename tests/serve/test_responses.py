"""OpenAI's responses, asked for by its own client: whole, streamed, stored, continued, in the background."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly.engine.job import Job
from brolly.errors import Busy
from brolly.serve.settings import Settings
from brolly.serve.wire.responses import ItemList, ResponseBody
from brolly.verbs import Piece, ToolDelta, Usage
from tests.serve.conftest import Running
from tests.serve.scripted import asked_and_left, eventually, scripted, words

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


def client_of(running: Running) -> Any:
    return openai.OpenAI(base_url=running.v1, api_key="none", max_retries=0)


@lru_cache
def typed_events() -> Any:
    from openai.types.responses import ResponseStreamEvent

    return pydantic.TypeAdapter(ResponseStreamEvent)


def events_of(running: Running, method: str = "POST", path: str = "/responses", **body: Any) -> list[dict[str, Any]]:
    """The raw events, each held against the types of OpenAI's client."""
    asked = {"json": {**body, "stream": True}} if method == "POST" else {"params": body}
    said = httpx.request(method, f"{running.v1}{path}", timeout=60, **asked)
    assert said.status_code == 200, said.text
    found = []
    for block in said.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        typed_events().validate_python(event)
        found.append(event)
    return found


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_streamed_is_not_streamed(brolly: Running, openai_client: Any) -> None:
    asked = {"model": "mini-llm", "input": "Tell me a story.", "max_output_tokens": 8, "temperature": 0}
    whole = openai_client.responses.create(**asked)
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.output_tokens == 8
    events = events_of(brolly, **asked)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    shape = [kind for kind in kinds(events) if kind != "output_text.delta"]
    assert shape == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.done", "content_part.done",
        "output_item.done", "incomplete",
    ]  # fmt: skip
    assert "".join(e["delta"] for e in events if e["type"].endswith(".delta")) == whole.output_text != ""
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == whole.output_text
    ResponseBody.model_validate(events[-1]["response"])


def test_a_stored_response_is_found_continued_listed_and_deleted(openai_client: Any) -> None:
    responses = openai_client.responses
    first = responses.create(model="mini-llm", input="Tell me a story.", max_output_tokens=4, metadata={"a": "b"})
    found = responses.retrieve(first.id)
    assert found == first
    second = responses.create(model="mini-llm", input="And then?", max_output_tokens=4, previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens + 4
    (item,) = responses.input_items.list(second.id).data
    assert item.content[0].text == "And then?"
    responses.delete(first.id)
    for call in (responses.retrieve, responses.delete, responses.cancel, responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            call(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        responses.create(model="mini-llm", input="x", previous_response_id=second.id)
    assert caught.value.code == "previous_response_not_found"


def test_what_is_not_to_be_stored_is_not(openai_client: Any) -> None:
    response = openai_client.responses.create(model="mini-llm", input="x", max_output_tokens=2, store=False)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(response.id)


def test_a_stream_is_told_again_from_any_event(brolly: Running) -> None:
    events = events_of(brolly, model="mini-llm", input="x", max_output_tokens=3)
    path = f"/responses/{events[0]['response']['id']}"
    assert events_of(brolly, "GET", path, stream=True) == events
    assert events_of(brolly, "GET", path, stream=True, starting_after=3) == events[4:]


def test_input_items_come_page_by_page(brolly: Running, openai_client: Any) -> None:
    items = [{"role": "user", "content": f"Line {n}."} for n in range(5)]
    id = openai_client.responses.create(model="mini-llm", input=items, max_output_tokens=1).id
    listed = [item.content[0].text for item in openai_client.responses.input_items.list(id, limit=2, order="asc")]
    assert listed == [f"Line {n}." for n in range(5)]
    page = httpx.get(f"{brolly.v1}/responses/{id}/input_items", params={"limit": 2}).json()
    ItemList.model_validate(page)
    assert (page["has_more"], page["data"][0]["content"][0]["text"]) == (True, "Line 4.")


def test_tokens_are_counted_as_they_are_read(openai_client: Any) -> None:
    asked = {"model": "mini-llm", "input": "Tell me a story.", "instructions": "Be kind."}
    counted = openai_client.responses.input_tokens.count(**asked).input_tokens
    assert counted == openai_client.responses.create(**asked, max_output_tokens=1).usage.input_tokens


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"previous_response_id": "resp_absent"}, "previous_response_id"),
        ({"input": []}, "input"),
        ({"input": [{"type": "computer_call"}]}, "input[0]"),
        ({"input": [{"type": "message", "role": "narrator", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, None),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "function", "name": "absent"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"background": True, "store": False}, "store"),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"colour": "red"}, "colour"),
        ({"input": [{"type": "reasoning", "summary": [3]}]}, None),
        ({"input": [{"role": "user", "content": [{"x": 1}]}]}, None),
        ({"tool_choice": {"type": "allowed_tools", "tools": 3}}, None),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_granted_is_refused(brolly: Running, change: dict[str, Any], param: str | None) -> None:
    body = {"model": "mini-llm", "input": "x", "max_output_tokens": 1, **change}
    said = httpx.post(f"{brolly.v1}/responses", json=body, timeout=60)
    assert said.status_code == 400, said.text
    assert param is None or said.json()["error"]["param"] == param, said.text


def test_the_oldest_turns_give_way_where_truncation_is_allowed(openai_client: Any) -> None:
    items = [{"role": "system", "content": "Be kind."}]
    items += [{"role": "user", "content": f"{n} " + "word " * 100} for n in range(12)]
    asked = {"model": "mini-llm", "input": items, "max_output_tokens": 2}
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.responses.create(**asked)
    assert caught.value.code == "context_length_exceeded"
    cut = openai_client.responses.create(**asked, truncation="auto")
    assert 512 - 110 < cut.usage.input_tokens < 512, "as few give way as must"
    longer = [{"role": "user", "content": "word " * 1000}]
    with pytest.raises(openai.BadRequestError):
        openai_client.responses.create(**{**asked, "input": longer}, truncation="auto")


# what no bundled model writes of itself


def thinking_and_calling(job: Job) -> Iterator[Piece]:
    yield Piece("", (1,), reasoning="They want ")
    yield Piece("", (2,), reasoning="weather.")
    yield Piece("Let me see.", (3,))
    yield Piece("", (4,), calls=(ToolDelta(0, id="call_a", name="weather"),))
    yield Piece("", (5,), calls=(ToolDelta(0, arguments='{"city":"Ulm"}'), ToolDelta(1, id="call_b", name="weather")))
    yield Piece("", (6,), calls=(ToolDelta(1, arguments="{}"),))
    yield Piece("", finish_reason="tool_calls", usage=Usage(len(job.prompt), 6, 0, 2))


def test_thoughts_text_and_calls_are_items_and_come_back_as_history(tmp_path: Path) -> None:
    with scripted(thinking_and_calling, tmp_path) as (running, model), client_of(running) as client:
        asked = {"model": "scripted", "input": "Rain?", "tools": [WEATHER]}
        events = events_of(running, **asked)
        assert [kind for kind in kinds(events) if not kind.endswith(".delta")] == [
            "created", "in_progress",
            "output_item.added", "content_part.added", "reasoning_text.done", "content_part.done", "output_item.done",
            "output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done",
            "output_item.added", "function_call_arguments.done", "output_item.done",
            "output_item.added", "function_call_arguments.done", "output_item.done",
            "completed",
        ]  # fmt: skip
        whole = client.responses.create(**asked, reasoning={"effort": "low"})
        assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
        assert whole.output[0].content[0].text == "They want weather."
        assert [(i.call_id, i.name, i.arguments) for i in whole.output[2:]] == [
            ("call_a", "weather", '{"city":"Ulm"}'),
            ("call_b", "weather", "{}"),
        ]
        assert whole.usage.output_tokens_details.reasoning_tokens == 2
        with client.responses.stream(**asked) as stream:
            assert stream.get_final_response().output_text == "Let me see."

        outputs = [{"type": "function_call_output", "call_id": c, "output": "yes"} for c in ("call_a", "call_b")]
        client.responses.create(model="scripted", input=outputs, previous_response_id=whole.id, tools=[WEATHER])
        client.responses.create(model="scripted", input=[*asked_items(), *dumped(whole), *outputs], tools=[WEATHER])
        referred = [{"type": "item_reference", "id": item.id} for item in whole.output]
        client.responses.create(model="scripted", input=[*asked_items(), *referred, *outputs], tools=[WEATHER])
        stored, stateless, by_reference = (ask["messages"] for ask in model.asked[-3:])
        assert stored == stateless == by_reference
        calls = [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
        ]
        assert stored == [
            {"role": "user", "content": "Rain?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "reasoning_content": "They want weather.",
                "tool_calls": calls,
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "yes", "name": "weather"},
            {"role": "tool", "tool_call_id": "call_b", "content": "yes", "name": "weather"},
        ]
        assert model.asked[0]["tools"][0]["function"]["name"] == "weather"


def asked_items() -> list[dict[str, Any]]:
    return [{"role": "user", "content": "Rain?"}]


def dumped(response: Any) -> list[dict[str, Any]]:
    return [item.model_dump(exclude_none=True) for item in response.output]


def test_an_error_after_the_beginning_fails_the_response(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Piece | BaseException]:
        yield Piece("Once", (1,))
        yield Busy("no room is left")

    with scripted(script, tmp_path, pause=0.05) as (running, _), client_of(running) as client:
        last = events_of(running, model="scripted", input="x")[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["error"] == {"code": "rate_limit_exceeded", "message": "no room is left"}
        assert client.responses.retrieve(last["response"]["id"]).status == "failed"
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model="scripted", input="x")


def test_the_background_writes_on_without_a_client_and_can_be_followed(tmp_path: Path) -> None:
    with scripted(words(60), tmp_path, pause=0.01) as (running, model), client_of(running) as client:
        response = client.responses.create(model="scripted", input="x", background=True)
        assert response.status == "queued"
        followed = events_of(running, "GET", f"/responses/{response.id}", stream=True)
        assert kinds(followed)[:3] == ["created", "queued", "in_progress"]
        assert kinds(followed)[-1] == "completed"
        assert client.responses.retrieve(response.id).output_text == "".join(f" word{n}" for n in range(60))
        assert events_of(running, "GET", f"/responses/{response.id}", stream=True) == followed

        with client.responses.create(model="scripted", input="x", background=True, stream=True) as stream:
            id = next(stream).response.id  # and the client leaves
        assert eventually(lambda: client.responses.retrieve(id).status == "completed")
        assert len(model.tickets) == 2
        assert client.responses.retrieve(id).output_text.endswith(" word59")


def test_the_background_can_be_cancelled_and_deleted(tmp_path: Path) -> None:
    with scripted(words(10_000), tmp_path, pause=0.01) as (running, model), client_of(running) as client:
        for end in (client.responses.cancel, client.responses.delete):
            id = client.responses.create(model="scripted", input="x", background=True).id
            assert eventually(lambda id=id: client.responses.retrieve(id).output_text != "")
            end(id)
            assert eventually(model.tickets[-1].cancelled.is_set)
            if end is client.responses.cancel:
                assert client.responses.retrieve(id).status == "cancelled"
        at_once = client.responses.create(model="scripted", input="x", background=True).id
        assert client.responses.cancel(at_once).status == "cancelled"
        assert client.responses.cancel(at_once).status == "cancelled"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_its_job(tmp_path: Path, stream: bool) -> None:
    with scripted(words(10_000), tmp_path, pause=0.01) as (running, model):
        body = {"model": "scripted", "input": "x", "stream": stream}
        asked_and_left(running, "/v1/responses", body, lambda: bool(model.tickets))
        assert eventually(model.tickets[0].cancelled.is_set)


def test_a_server_that_stops_lets_the_background_end(tmp_path: Path) -> None:
    with scripted(words(60), tmp_path, pause=0.01) as (running, _), client_of(running) as client:
        id = client.responses.create(model="scripted", input="x", background=True).id
    with scripted(words(1), tmp_path) as (running, _), client_of(running) as client:
        found = client.responses.retrieve(id)
        assert found.status == "completed"
        assert found.output_text.endswith("word59")


def test_responses_belong_to_the_key_that_made_them(server: Callable[[Settings], Running], tmp_path: Path) -> None:
    keys = tuple((f"key-of-user-{n}-{'x' * 20}", "user") for n in (1, 2))
    running = server(Settings(models=("mini-llm",), store=tmp_path, api_keys=keys))
    mine, other = (openai.OpenAI(base_url=running.v1, api_key=key, max_retries=0) for key, _ in keys)
    id = mine.responses.create(model="mini-llm", input="x", max_output_tokens=1).id
    assert mine.responses.retrieve(id).id == id
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(id)
    with pytest.raises(openai.BadRequestError):
        other.responses.create(model="mini-llm", input="y", previous_response_id=id)
