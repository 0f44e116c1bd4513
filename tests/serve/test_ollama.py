"""/api by Ollama's client: chat, generate and embed, by lines and whole; lists of models; loading and unloading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from brolly import load
from brolly.engine.job import Job
from brolly.errors import Busy, OptionError
from brolly.serve.words.ollama import seconds
from brolly.verbs import Piece, ToolDelta, Usage
from tests.serve.conftest import MINIS, Running, Settings
from tests.serve.scripted import eventually, scripted, words

ollama = pytest.importorskip("ollama")

STORY = [{"role": "user", "content": "Tell me a story."}]
GREEDY = {"temperature": 0, "num_predict": 20, "repeat_penalty": 1.0}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}},
}


@pytest.fixture(scope="module")
def client(brolly: Running) -> Any:
    return ollama.Client(host=brolly.url, timeout=60)


def refusal(running: Running, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{running.url}{path}", json=body, timeout=60)


def test_a_chat_is_what_the_model_says_by_lines_and_whole(client: Any) -> None:
    want = load("mini-llm").chat(STORY, temperature=0, max_tokens=20, repetition_penalty=1.0)
    whole = client.chat("mini-llm", STORY, options=GREEDY)
    assert whole.message.content == want.text and whole.done and whole.done_reason == "length"
    assert (whole.prompt_eval_count, whole.eval_count) == (want.usage.prompt_tokens, 20)
    assert 0 < whole.eval_duration < whole.total_duration and 0 <= whole.load_duration < whole.total_duration
    lines = list(client.chat("mini-llm", STORY, options=GREEDY, stream=True))
    assert "".join(line.message.content for line in lines) == want.text
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True] and len(lines) > 5
    assert lines[-1].eval_count == 20 and lines[0].eval_count is None
    assert datetime.fromisoformat(lines[0].created_at) <= datetime.now(UTC)


def test_a_stream_is_the_default_as_lines_of_json(brolly: Running) -> None:
    found = refusal(brolly, "/api/chat", model="mini-llm:latest", messages=STORY, options=GREEDY)
    assert found.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in found.text.splitlines()]
    assert rows[-1]["done"] and {row["model"] for row in rows} == {"mini-llm:latest"}


def test_a_prompt_is_answered_as_a_chat_and_raw_as_it_stands(client: Any) -> None:
    model = load("mini-llm")
    plain = {"temperature": 0, "max_tokens": 20, "repetition_penalty": 1.0}
    rows = [{"role": "system", "content": "Be kind."}, *STORY]
    found = client.generate("mini-llm", STORY[0]["content"], system="Be kind.", options=GREEDY)
    assert found.response == model.chat(rows, **plain).text
    raw = client.generate("mini-llm", "Once upon a", raw=True, options=GREEDY)
    assert raw.response == model.generate("Once upon a", **plain).text and raw.context is None
    lines = list(client.generate("mini-llm", "Once upon a", raw=True, options=GREEDY, stream=True))
    assert "".join(line.response for line in lines) == raw.response


def test_a_context_goes_on_from_an_earlier_answer(client: Any) -> None:
    first = client.generate("mini-llm", "Hello!", options=GREEDY)
    prompt = load("mini-llm").prepare_chat([{"role": "user", "content": "Hello!"}]).prompt
    assert list(first.context[: len(prompt)]) == list(prompt)
    assert len(first.context) == len(prompt) + first.eval_count
    second = client.generate("mini-llm", "And now?", context=first.context, options=GREEDY)
    assert second.prompt_eval_count > len(first.context)


def test_logprobs_come_with_their_tokens(client: Any) -> None:
    options = {**GREEDY, "num_predict": 4}
    found = client.generate("mini-llm", "Once upon a", raw=True, options=options, logprobs=True, top_logprobs=2)
    assert "".join(one.token for one in found.logprobs) == found.response
    assert all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in found.logprobs)


def test_a_format_is_kept(client: Any) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    options = {**GREEDY, "num_predict": 60}
    found = client.chat("mini-llm", STORY, format=schema, options=options)
    assert json.loads(found.message.content)["n"] in (1, 2)


def test_vectors_are_what_the_model_embeds(client: Any) -> None:
    texts, model = ["a dog", "the moon"], load("mini-embed")
    found = client.embed("mini-embed", texts, dimensions=16)
    np.testing.assert_allclose(found.embeddings, model.embed(texts, dimensions=16).vectors, atol=0.02)
    assert found.prompt_eval_count > 4 and found.total_duration > 0
    older = client.embeddings("mini-embed", "a dog")
    np.testing.assert_allclose(older.embedding, model.embed("a dog").vectors[0], atol=0.02)
    assert client.embed("mini-embed", "").embeddings == []


@pytest.mark.filterwarnings("ignore:.*Its end was cut")
def test_long_texts_are_cut_unless_that_is_refused(brolly: Running, client: Any) -> None:
    assert client.embed("mini-embed", "a b " * 600).prompt_eval_count == 256
    found = refusal(brolly, "/api/embed", model="mini-embed", input="a b " * 600, truncate=False)
    assert found.status_code == 400 and "the model reads 256" in found.json()["error"]


def test_lists_name_what_is_here_and_what_it_can_do(client: Any) -> None:
    models = {one.model: one for one in client.list().models}
    assert set(models) == {f"{name}:latest" for name in MINIS}
    llm = models["mini-llm:latest"]
    assert llm.size > 10_000_000 and len(llm.digest) == 64
    assert (llm.details.family, llm.details.parameter_size, llm.details.format) == ("llama", "5.4M", "safetensors")
    shown = client.show("mini-llm")
    assert shown.capabilities == ["completion"] and "message" in shown.template and "temperature" in shown.parameters
    assert shown.modelinfo["llama.context_length"] == 512 and shown.license.startswith("Apache")
    assert client.show("mini-embed").capabilities == ["embedding"]
    with pytest.raises(ollama.ResponseError) as caught:
        client.show("other")
    assert caught.value.status_code == 404


def test_an_empty_prompt_loads_and_unloads_and_ps_tells(server: Any) -> None:
    running = server(Settings(models=("mini-llm", "mini-embed"), port=0))
    client = ollama.Client(host=running.url, timeout=60)
    assert client.ps().models == []
    assert client.generate("mini-llm", keep_alive="10m").done_reason == "load"
    [one] = client.ps().models
    assert (one.name, one.context_length, one.size_vram) == ("mini-llm:latest", 512, 0) and one.size > 10_000_000
    left = (one.expires_at - datetime.now(UTC)).total_seconds()
    assert 500 < left <= 600
    assert client.chat("mini-llm", STORY, options=GREEDY, keep_alive=-1).message.content
    assert client.ps().models[0].expires_at.year > 2300
    assert client.chat("mini-llm", [], keep_alive=0).done_reason == "unload"
    assert client.ps().models == []
    assert client.embed("mini-embed", "a", keep_alive=30).embeddings
    assert 0 < (client.ps().models[0].expires_at - datetime.now(UTC)).total_seconds() <= 30


def test_unloading_wants_an_admins_key(server: Any) -> None:
    keys = (("user-key-of-sixteen", "user"), ("admin-key-of-sixteen", "admin"))
    running = server(Settings(models=("mini-llm",), port=0, api_keys=keys))
    found = {}
    for key, scope in keys:
        said = {"authorization": f"Bearer {key}"}
        body = {"model": "mini-llm", "keep_alive": 0, "stream": False}
        found[scope] = httpx.post(f"{running.url}/api/generate", json=body, headers=said, timeout=60).status_code
    assert found == {"user": 403, "admin": 200}


def test_somebody_is_there(brolly: Running) -> None:
    assert httpx.head(brolly.url).status_code == 200
    told = httpx.get(f"{brolly.url}/api/version").json()
    assert [part.isdigit() for part in told["version"].split(".")] == [True] * 3 and told["brolly"]
    assert httpx.head(f"{brolly.url}/api/tags").status_code == 200


def test_which_models_there_are_is_said_at_the_start(client: Any) -> None:
    assert client.pull("mini-llm").status == "success"
    assert [one.status for one in client.pull("mini-llm", stream=True)] == ["success"]
    for ask in (
        lambda: client.pull("org/other"), lambda: client.delete("mini-llm"), lambda: client.copy("mini-llm", "b"),
        lambda: client.create("b", from_="mini-llm"), lambda: client.push("mini-llm"),
    ):  # fmt: skip
        with pytest.raises(ollama.ResponseError, match="start") as caught:
            ask()
        assert caught.value.status_code == 501


@pytest.mark.parametrize(
    ("path", "given", "status", "why"),
    [
        ("chat", {"model": "other", "messages": STORY}, 404, "not served"),
        ("chat", {"model": "mini-embed", "messages": STORY}, 400, "cannot generate"),
        ("chat", {"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}, 400, "reads text alone"),
        ("chat", {"messages": STORY, "options": {"num_ctx": 5}}, 400, "num_ctx is 5"),
        ("chat", {"messages": STORY, "options": {"temperature": -1}}, 400, "temperature"),
        ("chat", {"messages": STORY, "options": {"mirostat": 2}}, 400, "mirostat"),
        ("chat", {"messages": STORY, "format": "xml"}, 400, "format is 'xml'"),
        ("chat", {"messages": STORY, "keep_alive": "soon"}, 400, "keep_alive is 'soon'"),
        ("chat", {"messages": [{"role": "user", "content": "a " * 2000}]}, 400, "holds 512"),
        ("chat", {"messages": 3}, 400, "messages"),
        ("generate", {"prompt": "a", "images": ["aGk="]}, 400, "reads text alone"),
        ("generate", {"prompt": "a", "suffix": "b"}, 400, "fill in the middle"),
        ("generate", {"prompt": "a", "template": "{{ .Prompt }}"}, 400, "Go"),
        ("generate", {"prompt": "a", "context": [1, 999_999]}, 400, "context holds ids"),
        ("embed", {"input": ["a", ""], "model": "mini-embed"}, 400, "is empty"),
        ("show", {"model": ""}, 400, "no model is named"),
    ],
)
def test_what_cannot_be_granted_is_one_error(
    brolly: Running, path: str, given: dict[str, Any], status: int, why: str
) -> None:  # fmt: skip
    for stream in (True, False):
        found = refusal(brolly, f"/api/{path}", **{"model": "mini-llm", "stream": stream, **given})
        assert found.status_code == status and why in found.json()["error"], found.text


def thinking_and_calling(job: Job) -> Iterator[Piece]:
    yield Piece("", (1,), reasoning="Let me ")
    yield Piece("I look ", (2,), reasoning="see.")
    yield Piece("it up.", (3,), calls=(ToolDelta(0, '{"city":', "call_1", "weather"),))
    yield Piece("", (4,), calls=(ToolDelta(0, ' "Bonn"}'), ToolDelta(1, "{}", "call_2", "clock")))
    yield Piece("", (5,), finish_reason="tool_calls", usage=Usage(len(job.prompt), 9))


def test_thoughts_and_whole_calls_are_the_same_by_lines(tmp_path: Path) -> None:
    with scripted(thinking_and_calling, tmp_path) as (running, model):
        client = ollama.Client(host=running.url, timeout=60)
        whole = client.chat("scripted", STORY, tools=[WEATHER], think=True).message
        lines = [one.message for one in client.chat("scripted", STORY, tools=[WEATHER], think="low", stream=True)]
        prompted = client.generate("scripted", "a", think=False)
    calls = [(one.function.name, dict(one.function.arguments)) for one in whole.tool_calls]
    assert calls == [("weather", {"city": "Bonn"}), ("clock", {})]
    assert (whole.content, whole.thinking) == ("I look it up.", "Let me see.")
    assert "".join(one.content for one in lines) == whole.content
    assert "".join(one.thinking or "" for one in lines) == whole.thinking
    assert [c for one in lines for c in one.tool_calls or ()] == list(whole.tool_calls)
    assert (prompted.response, prompted.thinking) == ("I look it up.", "Let me see.")
    assert model.asked[0]["tools"] == [WEATHER] and model.asked[0]["tool_choice"] == "auto"
    assert [one["template"].get("enable_thinking") for one in model.asked] == [True, None, False]
    assert model.asked[1]["effort"] == "low"


def test_history_and_options_reach_the_model(tmp_path: Path) -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Bonn"}}}
    messages = [
        *STORY, {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call, call]},
        {"role": "tool", "content": "rain", "tool_name": "weather"}, {"role": "tool", "content": "sun"},
    ]  # fmt: skip
    options = {
        "num_predict": -1, "num_ctx": 300, "seed": 7, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.5,
        "presence_penalty": 0.5, "frequency_penalty": 0.25, "stop": ["a", "b"], "temperature": 0.5, "num_gpu": 99,
    }  # fmt: skip
    with scripted(words(1), tmp_path) as (running, model):
        ollama.Client(host=running.url, timeout=60).chat("scripted", messages, options=options)
    rows = model.asked[0]["messages"]
    ids = [one["id"] for one in rows[1]["tool_calls"]]
    assert len(set(ids)) == 2 and [row["tool_call_id"] for row in rows[2:]] == ids
    assert rows[1]["reasoning_content"] == "hm" and rows[2]["name"] == "weather"
    assert json.loads(rows[1]["tool_calls"][0]["function"]["arguments"]) == {"city": "Bonn"}
    asked = model.jobs[0].options
    assert asked.max_tokens == 300 - len(model.jobs[0].prompt)
    assert (asked.seed, asked.top_k, asked.top_p, asked.min_p, asked.temperature) == (7, 5, 0.5, 0.1, 0.5)
    assert (asked.repetition_penalty, asked.presence_penalty, asked.frequency_penalty) == (1.5, 0.5, 0.25)
    assert asked.stop == ("a", "b")


def test_an_error_in_the_middle_of_a_stream_is_its_last_line(tmp_path: Path) -> None:
    def broken(job: Job) -> Iterator[Piece | BaseException]:
        yield Piece("one", (1,))
        yield Busy("no room any more", 2)

    with scripted(broken, tmp_path, pause=0.05) as (running, _):
        client = ollama.Client(host=running.url, timeout=60)
        with pytest.raises(ollama.ResponseError, match="no room any more"):
            list(client.chat("scripted", STORY, stream=True))
        with pytest.raises(ollama.ResponseError) as caught:
            client.chat("scripted", STORY)
    assert caught.value.status_code == 429


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_job(tmp_path: Path, stream: bool) -> None:
    body = {"model": "scripted", "messages": STORY, "stream": stream}
    with scripted(words(10_000), tmp_path, pause=0.01) as (running, model):
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.3) as client:
            if stream:
                with client.stream("POST", f"{running.url}/api/chat", json=body) as answer:
                    next(answer.iter_lines())
                    raise httpx.ReadTimeout("enough")
            client.post(f"{running.url}/api/chat", json=body)
        assert eventually(lambda: bool(model.tickets) and model.tickets[0].cancelled.is_set())


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (None, None), (5, 5.0), ("5", 5.0), ("10m", 600.0), ("1h30m", 5400.0), ("500ms", 0.5), ("-1", -1.0),
        ("-1m", -60.0), ("1.5h", 5400.0), ("0", 0.0), ("999999h", -1.0),
        (1e300, -1.0),
    ],
)  # fmt: skip
def test_durations_are_read_as_go_writes_them(said: Any, found: float | None) -> None:
    assert seconds(said) == found


@pytest.mark.parametrize("said", ["", "m", "5 m", "10x", "1h 2", "NaN", "--1", float("nan")])
def test_what_is_no_duration_is_told(said: Any) -> None:
    with pytest.raises(OptionError, match="keep_alive"):
        seconds(said)
