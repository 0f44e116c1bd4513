"""Chat completions, asked for by OpenAI's own client over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly.engine.job import Job
from brolly.errors import Busy
from brolly.serve.wire.chat import ChatCompletion
from brolly.verbs import Piece, ToolDelta, Usage
from tests.serve.conftest import Running
from tests.serve.scripted import asked_and_left, eventually, scripted, words

openai = pytest.importorskip("openai")
ASK: dict[str, Any] = {"model": "mini-llm", "messages": [{"role": "user", "content": "Tell me a story."}]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def joined(chunks: Any) -> tuple[str, str | None]:
    """What a stream's chunks say, and why they end."""
    text, reason = "", None
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason


def client_of(running: Running) -> Any:
    return openai.OpenAI(base_url=running.v1, api_key="none", max_retries=0)


def test_streamed_is_not_streamed(openai_client: Any) -> None:
    asked = {**ASK, "max_tokens": 12, "temperature": 0}
    whole = openai_client.chat.completions.create(**asked)
    text, reason = joined(openai_client.chat.completions.create(**asked, stream=True))
    assert whole.choices[0].message.content == text != ""
    assert whole.choices[0].finish_reason == reason == "length"
    assert whole.usage.completion_tokens == 12
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 12
    assert whole.system_fingerprint.startswith("fp_")


def test_a_seed_gives_the_same_text_again(openai_client: Any) -> None:
    said = [
        openai_client.chat.completions.create(**ASK, max_tokens=8, temperature=1, seed=5).choices[0].message.content
        for _ in range(2)
    ]
    assert said[0] == said[1]


def test_the_usage_comes_last_where_a_stream_is_asked_for_it(openai_client: Any) -> None:
    asked = {**ASK, "max_tokens": 3, "stream": True}
    chunks = list(openai_client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert all("usage" not in chunk.model_fields_set for chunk in openai_client.chat.completions.create(**asked))


def test_several_answers_are_told_apart(openai_client: Any) -> None:
    asked = {**ASK, "max_tokens": 4, "n": 2, "temperature": 0}
    whole = openai_client.chat.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage.completion_tokens == 8
    seen = ["", ""]
    for chunk in openai_client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            seen[choice.index] += choice.delta.content or ""
    assert seen == [choice.message.content for choice in whole.choices]


def test_log_probabilities_tell_each_token_its_bytes_and_the_likeliest_others(openai_client: Any) -> None:
    asked = {**ASK, "max_tokens": 5, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    choice = openai_client.chat.completions.create(**asked).choices[0]
    rows = choice.logprobs.content
    assert b"".join(bytes(row.bytes) for row in rows).decode() == choice.message.content
    for row in rows:
        assert len(row.top_logprobs) == 3
        assert row.logprob == max(top.logprob for top in row.top_logprobs) <= 0
    streamed = [
        row.model_dump()
        for chunk in openai_client.chat.completions.create(**asked, stream=True)
        for one in chunk.choices
        for row in (one.logprobs.content if one.logprobs else [])
    ]
    assert [row["token"] for row in streamed] == [row.token for row in rows]
    assert [row["logprob"] for row in streamed] == pytest.approx([row.logprob for row in rows], abs=1e-4)


def test_a_stop_ends_the_answer_before_it(openai_client: Any) -> None:
    asked = {**ASK, "max_tokens": 12, "temperature": 0}
    text = openai_client.chat.completions.create(**asked).choices[0].message.content
    stop = text.split()[2]
    cut = openai_client.chat.completions.create(**asked, stop=[stop]).choices[0]
    assert cut.message.content == text[: text.index(stop)]
    assert cut.finish_reason == "stop"


def test_a_bias_by_the_tokens_id_as_a_string_decides(openai_client: Any, brolly: Running) -> None:
    said = httpx.post(
        f"{brolly.url}/tokenize", json={"model": "mini-llm", "prompt": " dog", "add_special_tokens": False}
    )
    (token,) = said.json()["tokens"]
    answer = openai_client.chat.completions.create(
        **ASK, max_tokens=3, temperature=0, logit_bias={str(token): 100}, extra_body={"min_tokens": 3}
    )
    assert answer.choices[0].message.content.count("dog") == 3


def test_the_answer_has_the_served_schema_and_tells_where_it_comes_from(brolly: Running) -> None:
    said = httpx.post(f"{brolly.v1}/chat/completions", json={**ASK, "max_tokens": 2, "logprobs": True}, timeout=60)
    ChatCompletion.model_validate(said.json())
    told = dict(row.split("=", 1) for row in said.headers["x-brolly-provenance"].split("; "))
    assert told["model"] == "mini-llm"
    assert told["licence"] == "apache-2.0"
    assert said.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "absent"}, 404, None),
        ({"model": "mini-clip"}, 400, None),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400, None),
        ({"temperature": 3}, 400, "temperature"),
        ({"n": 0}, 400, "n"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"logit_bias": {"dog": 1}}, 400, "logit_bias"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"tools": [{"type": "web"}]}, 400, "tools"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format.json_schema"),
        ({"regex": "a", "grammar": "b"}, 400, "response_format"),
        ({"colour": "red"}, 400, "colour"),
        ({"chat_template_kwargs": {"messages": []}}, 400, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"documents": 3}}, 400, "chat_template_kwargs"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": 3}}, 400, None),
        ({"tool_choice": {"function": "x"}}, 400, None),
        ({"continue_final_message": True}, 400, "messages"),
        ({"modalities": ["audio"]}, 400, "modalities"),
    ],
)
def test_what_cannot_be_granted_is_refused_in_openais_envelope(
    brolly: Running, change: dict[str, Any], status: int, param: str | None
) -> None:
    said = httpx.post(f"{brolly.v1}/chat/completions", json={**ASK, "max_tokens": 2, **change}, timeout=60)
    error = said.json()["error"]
    assert (said.status_code, error["type"]) == (status, "invalid_request_error"), error
    assert param is None or error["param"] == param, error
    assert "brolly/" not in error["message"], "an answer tells no path of this machine"


def test_extensions_of_other_servers_pass(openai_client: Any) -> None:
    extra = {
        "top_k": -1,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "cache_prompt": True,
        "ignore_eos": True,
        "min_tokens": 2,
    }
    assert openai_client.chat.completions.create(**ASK, max_tokens=2, extra_body=extra).usage.completion_tokens == 2


def test_a_final_message_is_continued_where_it_was_left(openai_client: Any) -> None:
    messages = [*ASK["messages"], {"role": "assistant", "content": "Once upon a"}]
    answer = openai_client.chat.completions.create(
        model="mini-llm", messages=messages, max_tokens=2, temperature=0, extra_body={"continue_final_message": True}
    )
    assert answer.choices[0].message.content.startswith(" time")


# what no bundled model writes of itself: thoughts, tool calls, errors, and a long time


def thinking_and_calling(job: Job) -> Iterator[Piece]:
    yield Piece("", (1,), reasoning="They want ")
    yield Piece("", (2,), reasoning="weather.")
    yield Piece("Let me see.", (3,))
    yield Piece("", (4,), calls=(ToolDelta(0, id="call_a", name="weather"),))
    yield Piece("", (5,), calls=(ToolDelta(0, arguments='{"city":'),))
    yield Piece("", (6,), calls=(ToolDelta(0, arguments='"Ulm"}'), ToolDelta(1, id="call_b", name="weather")))
    yield Piece("", (7,), calls=(ToolDelta(1, arguments="{}"),))
    yield Piece("", finish_reason="tool_calls", usage=Usage(len(job.prompt), 7, 3, 2))


def test_thoughts_and_calls_are_the_same_streamed_and_whole(tmp_path: Path) -> None:
    with scripted(thinking_and_calling, tmp_path) as (running, model), client_of(running) as client:
        asked = {**ASK, "tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
        whole = client.chat.completions.create(**asked, reasoning_effort="low")
        message = whole.choices[0].message
        assert message.reasoning_content == "They want weather."
        assert message.content == "Let me see."
        assert [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls] == [
            ("call_a", "weather", '{"city":"Ulm"}'),
            ("call_b", "weather", "{}"),
        ]
        assert whole.choices[0].finish_reason == "tool_calls"
        assert whole.usage.prompt_tokens_details.cached_tokens == 3
        assert whole.usage.completion_tokens_details.reasoning_tokens == 2
        with client.chat.completions.stream(**asked) as stream:
            final = stream.get_final_completion().choices[0]
        assert [(c.id, c.function.name, c.function.arguments) for c in final.message.tool_calls] == [
            (c.id, c.function.name, c.function.arguments) for c in message.tool_calls
        ]
        assert final.message.content == message.content
        assert final.message.reasoning_content == message.reasoning_content
        quiet = {"include_reasoning": False}
        answer = client.chat.completions.create(**asked, extra_body=quiet)
        assert not hasattr(answer.choices[0].message, "reasoning_content")
        chunks = client.chat.completions.create(**asked, stream=True, extra_body=quiet)
        assert not any(hasattr(choice.delta, "reasoning_content") for chunk in chunks for choice in chunk.choices)
        assert model.asked[0]["tool_choice"] == asked["tool_choice"]
        assert model.asked[0]["effort"] == "low"
        assert model.asked[0]["tools"] == [WEATHER]


def test_the_history_reaches_the_template_as_it_was_said(tmp_path: Path) -> None:
    call = {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": "no json"}}
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Rain "}, {"type": "text", "text": "in Ulm?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "call_a", "content": "yes"},
    ]
    with scripted(words(1), tmp_path) as (running, model), client_of(running) as client:
        client.chat.completions.create(model="scripted", messages=messages, tools=[WEATHER])
        assert model.asked[0]["messages"] == [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Rain in Ulm?"},
            {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "Hm."},
            {"role": "tool", "tool_call_id": "call_a", "content": "yes"},
        ]


@pytest.mark.parametrize(
    ("extra", "name", "value"),
    [
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type": "object"}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}}},
            "json_schema",
            '{"type": "null"}',
        ),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "choice", ("yes", "no")),
        ({"structured_outputs": {"json": {"type": "null"}}}, "json_schema", '{"type": "null"}'),
        ({"guided_grammar": 'root ::= "x"'}, "grammar", 'root ::= "x"'),
        ({"frequency_penalty": 0.5}, "frequency_penalty", 0.5),
        ({"max_completion_tokens": 7, "max_tokens": 9}, "max_tokens", 7),
    ],
)
def test_options_reach_the_job_by_whichever_name(tmp_path: Path, extra: dict[str, Any], name: str, value: Any) -> None:
    with scripted(words(1), tmp_path) as (running, model):
        assert httpx.post(f"{running.v1}/chat/completions", json={**ASK, **extra}).status_code == 200
        assert getattr(model.jobs[0].options, name) == value


def test_an_error_in_the_middle_of_a_stream_is_told_as_an_event(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Piece | BaseException]:
        yield Piece("Once", (1,))
        yield Busy("no room is left", 3)

    with scripted(script, tmp_path, pause=0.05) as (running, _), client_of(running) as client:
        with pytest.raises(openai.APIError, match="no room is left"):
            list(client.chat.completions.create(**ASK, stream=True))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**ASK)
        assert caught.value.response.headers["retry-after"] == "3"


def test_our_own_fault_tells_nothing_of_the_inside(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Piece | BaseException]:
        yield ValueError("secret")

    with scripted(script, tmp_path) as (running, _):
        for stream in (False, True):
            said = httpx.post(f"{running.v1}/chat/completions", json={**ASK, "stream": stream})
            assert "server_error" in said.text
            assert "secret" not in said.text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_its_job(tmp_path: Path, stream: bool) -> None:
    with scripted(words(10_000), tmp_path, pause=0.01) as (running, model):
        asked_and_left(running, "/v1/chat/completions", {**ASK, "stream": stream}, lambda: bool(model.tickets))
        assert eventually(model.tickets[0].cancelled.is_set)


def test_pieces_that_wait_go_out_in_order_and_complete(tmp_path: Path) -> None:
    with scripted(words(500), tmp_path) as (running, _):
        said = httpx.post(f"{running.v1}/chat/completions", json={**ASK, "stream": True})
        rows = [line[6:] for line in said.text.split("\n") if line.startswith("data: ")]
        assert rows[-1] == "[DONE]"
        chunks = [json.loads(row)["choices"][0] for row in rows[:-1]]
        assert chunks[0]["delta"]["role"] == "assistant"
        assert "".join(c["delta"].get("content", "") for c in chunks) == "".join(f" word{n}" for n in range(500))
        assert said.headers["content-type"].startswith("text/event-stream")


SCHEMA = {
    "type": "object", "properties": {"rain": {"enum": ["yes", "no"]}}, "required": ["rain"],
    "additionalProperties": False,
}  # fmt: skip


def test_what_may_be_written_is_all_that_is_written(openai_client: Any) -> None:
    format = {
        "type": "json_schema",
        "json_schema": {"name": "rain", "schema": {**SCHEMA, "additionalProperties": False}},
    }
    asked = {**ASK, "max_tokens": 40, "temperature": 0}
    for stream in (False, True):
        found = openai_client.chat.completions.create(**asked, response_format=format, stream=stream)
        text = joined(found)[0] if stream else found.choices[0].message.content
        assert json.loads(text)["rain"] in ("yes", "no")
    answer = openai_client.chat.completions.create(**asked, extra_body={"guided_choice": ["rain", "snow"]})
    assert answer.choices[0].message.content in ("rain", "snow")


def test_a_tool_that_must_be_called_is_called(openai_client: Any) -> None:
    tool = {"type": "function", "function": {"name": "tell", "parameters": SCHEMA, "strict": True}}
    asked = {**ASK, "max_tokens": 100, "temperature": 0, "tools": [tool], "tool_choice": "required"}
    (call,) = openai_client.chat.completions.create(**asked, parallel_tool_calls=False).choices[0].message.tool_calls
    assert call.function.name == "tell"
    assert json.loads(call.function.arguments)["rain"] in ("yes", "no")
    with openai_client.chat.completions.stream(**asked, parallel_tool_calls=False) as stream:
        (again,) = stream.get_final_completion().choices[0].message.tool_calls
    assert again.function.arguments == call.function.arguments
