"""Plain completions, and scoring by echo as lm-evaluation-harness does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly import load
from brolly.engine.job import Job
from brolly.errors import UnsupportedTask
from brolly.media.text.infill import infill
from brolly.serve.wire.completions import Completion
from brolly.verbs import Piece, Usage
from tests.serve.conftest import Running
from tests.serve.scripted import asked_and_left, eventually, scripted, words

openai = pytest.importorskip("openai")
TEXT = "Once upon a time there was a little dog."


def completion(running: Running, **body: Any) -> dict[str, Any]:
    said = httpx.post(f"{running.v1}/completions", json={"model": "mini-llm", **body}, timeout=60)
    assert said.status_code == 200, said.text
    Completion.model_validate(said.json())
    return dict(said.json())


def tokens_of(running: Running, text: str) -> list[int]:
    said = httpx.post(f"{running.url}/tokenize", json={"model": "mini-llm", "prompt": text}, timeout=60)
    return list(said.json()["tokens"])


def test_streamed_is_not_streamed(openai_client: Any) -> None:
    asked = {"model": "mini-llm", "prompt": ["Once upon", "A dog"], "max_tokens": 6, "temperature": 0, "n": 2}
    whole = openai_client.completions.create(**asked)
    seen, reasons = [""] * 4, [None] * 4
    options = {"include_usage": True}
    for chunk in openai_client.completions.create(**asked, stream=True, stream_options=options):
        for choice in chunk.choices:
            seen[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert seen == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert chunk.usage.completion_tokens == whole.usage.completion_tokens == 24
    assert chunk.usage.prompt_tokens == whole.usage.prompt_tokens


def test_a_prompt_may_be_tokens(brolly: Running) -> None:
    ids = tokens_of(brolly, "Once upon")
    asked: dict[str, Any] = {"max_tokens": 5, "temperature": 0}
    by_text = completion(brolly, prompt="Once upon", **asked)["choices"][0]["text"]
    assert completion(brolly, prompt=ids, **asked)["choices"][0]["text"] == by_text
    assert [c["text"] for c in completion(brolly, prompt=[ids, ids], **asked)["choices"]] == [by_text] * 2


def test_echo_without_writing_scores_as_the_model_does(brolly: Running) -> None:
    import brolly as library

    expected = library.load("mini-llm").score(TEXT, top=2)
    found = completion(brolly, prompt=TEXT, echo=True, logprobs=2, max_tokens=0)["choices"][0]
    told = found["logprobs"]
    assert found["text"] == TEXT == "".join(told["tokens"])
    assert told["token_logprobs"][0] is None
    assert told["token_logprobs"][1:] == pytest.approx(expected.logprobs[1:], abs=1e-6)
    assert told["top_logprobs"][0] is None
    for place, row in enumerate(told["top_logprobs"][1:], 1):
        likeliest = max(expected.top[place].values())
        assert max(row.values()) == pytest.approx(likeliest, abs=1e-6)
        assert len(row) in (2, 3), "two, and the token itself where it is none of them"


def test_a_harness_that_writes_one_token_finds_the_same_likelihoods(brolly: Running) -> None:
    """lm-evaluation-harness: tokens, echo, one token that it drops, greedy where every token is the likeliest."""
    import brolly as library

    model = library.load("mini-llm")
    context, continuation = tokens_of(brolly, "Once upon a"), tokens_of(brolly, " time there was")
    ids = context + continuation
    body = {"prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}
    told = completion(brolly, **body)["choices"][0]["logprobs"]
    found = sum(told["token_logprobs"][len(context) : -1])
    greedy = all(
        token == max(row, key=row.get)
        for token, row in zip(told["tokens"][len(context) : -1], told["top_logprobs"][len(context) : -1], strict=True)
    )
    expected = model.score(ids, top=1)
    assert found == pytest.approx(sum(p for p in expected.logprobs[len(context) :] if p is not None), abs=1e-5)
    rows = zip(ids[len(context) :], expected.top[len(context) :], strict=True)
    assert greedy == all(token in top for token, top in rows)


def test_offsets_say_where_each_token_begins(brolly: Running) -> None:
    choice = completion(brolly, prompt=TEXT, echo=True, logprobs=0, max_tokens=3, temperature=0)["choices"][0]
    told = choice["logprobs"]
    ends = [*told["text_offset"][1:], len(choice["text"])]
    assert [choice["text"][a:b] for a, b in zip(told["text_offset"], ends, strict=True)] == told["tokens"]
    assert told["top_logprobs"] is None


def test_an_echo_is_streamed_first(openai_client: Any) -> None:
    asked = {"model": "mini-llm", "prompt": TEXT, "echo": True, "logprobs": 1, "temperature": 0}
    for most in (0, 3):
        whole = openai_client.completions.create(**asked, max_tokens=most).choices[0]
        chunks = [c.choices[0] for c in openai_client.completions.create(**asked, max_tokens=most, stream=True)]
        assert "".join(chunk.text for chunk in chunks) == whole.text
        for name in ("tokens", "text_offset"):
            streamed = [row for chunk in chunks if chunk.logprobs for row in getattr(chunk.logprobs, name)]
            assert streamed == getattr(whole.logprobs, name)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "end"}, None),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, None),
        ({"prompt": [-1]}, None),
        ({"prompt": [4096]}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_granted_is_refused(brolly: Running, change: dict[str, Any], param: str | None) -> None:
    body = {"model": "mini-llm", "prompt": "Once", "max_tokens": 2, **change}
    said = httpx.post(f"{brolly.v1}/completions", json=body, timeout=60)
    assert said.status_code == 400, said.text
    assert param is None or said.json()["error"]["param"] == param, said.text


def test_what_stands_between_is_asked_for_by_the_tokenizers_own_marks() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from brolly.media.text import Tokenizer

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    with pytest.raises(UnsupportedTask, match="suffix"):
        infill(Tokenizer(backend, source="x"), "a", "b")
    backend.add_special_tokens(["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"])
    assert infill(Tokenizer(backend, source="x"), "a", "b") == [3, 0, 4, 1, 5]


def test_an_error_of_one_prompt_ends_the_others(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Piece | BaseException]:
        if len(job.prompt) == 1:
            yield UnsupportedTask("not this one")
        else:
            yield from words(10_000)(job)

    with scripted(script, tmp_path, pause=0.01) as (running, model):
        for stream in (False, True):
            body = {"model": "scripted", "prompt": [[1], [1, 2]], "stream": stream}
            assert "not this one" in httpx.post(f"{running.v1}/completions", json=body).text
            assert eventually(lambda: all(ticket.cancelled.is_set() for ticket in model.tickets))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_all_its_jobs(tmp_path: Path, stream: bool) -> None:
    with scripted(words(10_000), tmp_path, pause=0.01) as (running, model):
        body = {"model": "scripted", "prompt": ["a", "b"], "stream": stream}
        asked_and_left(running, "/v1/completions", body, lambda: len(model.tickets) == 2)
        assert eventually(lambda: all(ticket.cancelled.is_set() for ticket in model.tickets))


def test_usage_counts_each_prompt_once(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Piece]:
        for index in range(job.n):
            yield Piece("x", (1,), finish_reason="stop", index=index, usage=Usage(len(job.prompt), 1))

    with scripted(script, tmp_path) as (running, _):
        usage = completion(running, prompt=[[1, 2], [1, 2, 3]], n=3)["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 6)


@pytest.mark.parametrize("stream", [False, True])
def test_the_token_that_ends_an_answer_has_its_probability_told(openai_client: Any, stream: bool) -> None:
    """lm-evaluation-harness asks for one token behind what it scores and leaves the last row out, whatever it is."""
    end = load("mini-llm").tokenizer.eos_id
    asked: dict[str, Any] = dict(model="mini-llm", prompt="Once upon a time", max_tokens=1, echo=True, logprobs=1)
    asked |= {"temperature": 0, "stream": stream}
    rows = []
    for bias in ({}, {str(end): 100}):
        found = openai_client.completions.create(**asked, logit_bias=bias)
        parts = [c.choices[0] for c in found] if stream else [found.choices[0]]
        assert parts[-1].finish_reason == ("stop" if bias else "length")
        rows.append([p for part in parts if part.logprobs for p in part.logprobs.token_logprobs])
    assert len(rows[0]) == len(rows[1]) and rows[0][:-1] == rows[1][:-1] and rows[0][-1] > rows[1][-1]
