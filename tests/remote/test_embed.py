"""Embeddings by a model that runs elsewhere: what is sent, what is read, what is refused."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brolly.cli import main
from brolly.errors import BadAnswer, BudgetSpent, ContextTooLong, KeyRefused, NotFound, OptionError, UnsupportedTask
from brolly.remote.dialects.openai import embeddings, models
from brolly.remote.target import parse
from brolly.verbs import EmbedOptions
from tests.remote import more
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import Reply
from tests.remote.more import alike, ours, theirs

fake = more.fake  # a fixture

MODEL = "text-embedding-3-small"
TEXTS = ["the sea", "a red kite", "Wien, Ötz & 東京"]


@pytest.mark.parametrize("options", [{}, {"dimensions": 4}])
def test_we_send_what_the_package_sends_and_read_the_same_numbers(fake: FakeOpenAI, options: dict[str, Any]) -> None:
    said = theirs(fake).embeddings.create(model=MODEL, input=TEXTS, **options)
    found = ours(MODEL).embed(TEXTS, **options)
    alike(fake.requests[-2], fake.requests[-1])
    assert fake.requests[-1].json["encoding_format"] == "base64"
    assert found.vectors.dtype == np.float32 and found.vectors.shape == (3, options.get("dimensions", 8))
    np.testing.assert_array_equal(found.vectors, np.array([row.embedding for row in said.data], np.float32))
    assert found.n_tokens == said.usage.prompt_tokens and found.kinds == ("text",) * 3


def test_many_inputs_go_in_parts_and_come_back_in_order(fake: FakeOpenAI) -> None:
    texts = [f"text {i}" for i in range(2 * 2048 + 5)]
    found = ours(MODEL).embed(texts)
    assert sorted(len(request.json["input"]) for request in fake.requests) == [5, 2048, 2048]
    assert len(found) == len(texts)
    for at in (0, 2047, 2048, 4100):
        np.testing.assert_array_equal(found.vectors[at], ours(MODEL).embed(texts[at]).vectors[0])


def test_a_request_holds_no_more_text_than_the_vendor_reads(fake: FakeOpenAI) -> None:
    ours(MODEL).embed(["word " * 50_000] * 5)
    assert [len(request.json["input"]) for request in fake.requests] != [5]
    assert all(len("".join(request.json["input"])) <= embeddings.most_bytes for request in fake.requests)


def test_numbers_are_read_by_their_index_from_base64_or_decimals() -> None:
    packed = base64.b64encode(struct.pack("<2f", 1, 2)).decode()
    body = {"data": [{"index": 1, "embedding": [3, 4.5]}, {"index": 0, "embedding": packed}], "usage": {}}
    found = embeddings.vectors(body, 2)
    assert found.vectors.tolist() == [[1, 2], [3, 4.5]] and found.n_tokens == 0


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"data": {}}, {"data": []}, {"data": [1, 2]}, {"data": [{"index": 0, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 7, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": True, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]},
        {"data": [{"index": 0, "embedding": "AAA"}, {"index": 1, "embedding": "AAAAAA=="}]},
        {"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]},
        {"data": [{"index": 0, "embedding": [float("nan")]}, {"index": 1, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [[1]]}, {"index": 1, "embedding": [[1]]}]},
        {"data": [{"index": 0, "embedding": "not base64!"}, {"index": 1, "embedding": None}]},
    ],
)  # fmt: skip
def test_what_is_no_vector_an_input_is_a_bad_answer(body: Any) -> None:
    with pytest.raises(BadAnswer):
        embeddings.vectors(body, 2)


def test_what_the_vendor_has_no_word_for_is_refused(fake: FakeOpenAI) -> None:
    with pytest.raises(OptionError, match="has no role"):
        ours(MODEL).embed(TEXTS, role="query")
    with pytest.raises(OptionError, match="has no dimensions"):
        ours("text-embedding-ada-002").embed(TEXTS, dimensions=4)
    with pytest.raises(UnsupportedTask, match="embeds texts"):
        ours(MODEL).embed([b"\x89PNG"])
    with pytest.raises(UnsupportedTask, match=r"input 0 is dog\.png; "):
        ours(MODEL).embed([Path("pictures/dog.png")])
    with pytest.raises(UnsupportedTask, match="openai:gpt-5 can chat; it cannot embed"):
        ours("gpt-5").embed(TEXTS)
    with pytest.raises(OptionError, match="is empty"):
        ours(MODEL).embed(["a", ""])
    assert not fake.requests


def test_a_role_goes_where_the_vendor_takes_one() -> None:
    from dataclasses import replace

    target = parse("openai:voyage-like")
    vendor = replace(target.vendor, takes=("role",), words={"role": "input_type"})
    call = embeddings.embed(["a"], EmbedOptions(role="query"), replace(target, vendor=vendor))
    assert call.body is not None and call.body["input_type"] == "query"


def test_errors_are_the_right_ones(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="missing"):
        ours("missing").embed("a")
    with pytest.raises(ContextTooLong):
        ours(MODEL).embed("toolong")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-wrong")
    with pytest.raises(KeyRefused) as refused:
        ours(MODEL).embed("a")
    assert "sk-test-wrong" not in str(refused.value)


def test_vectors_are_counted_and_cost(fake: FakeOpenAI) -> None:
    model = ours(MODEL, price="1000000,0", max_cost=1000)
    assert model.embed(TEXTS).n_tokens == 9 and model.budget.spent == pytest.approx(9)
    with pytest.raises(BudgetSpent, match="max_cost"):
        ours(MODEL, price="1000000,0", max_cost=3).embed(TEXTS)
    assert len(fake.requests) == 1
    first, *rest = ours(MODEL).stream_embed(TEXTS)
    assert first.index == 0 and first.n_tokens + sum(one.n_tokens for one in rest) == 9
    assert ours(MODEL).similarity(TEXTS, TEXTS[:1])[0, 0] == pytest.approx(1, abs=1e-6)


def test_brolly_embed(fake: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", f"openai:{MODEL}", "the sea", "a red kite", "--json"]) == 0
    out = capsys.readouterr().out
    assert "the sea" in out or "embedding" in out or "[" in out
    assert fake.key not in out


def test_lists_of_models_are_read_in_the_words_of_several_servers() -> None:
    body = {
        "object": "list",
        "data": [
            {"id": "gpt-6", "object": "model", "created": 1_790_000_000, "owned_by": "openai"},
            {"id": "local", "max_model_len": 4096}, {"id": "router", "name": "Router: One", "context_length": 200_000},
            {"id": 7}, "no row", {"id": "odd", "created": "yesterday", "context_window": True},
        ],
    }  # fmt: skip
    found, after = models.listed(body)
    assert [(one.id, one.title, one.created, one.context) for one in found] == [
        ("gpt-6", "", 1_790_000_000, None), ("local", "", None, 4096), ("router", "Router: One", None, 200_000),
        ("odd", "", None, None),
    ]  # fmt: skip
    assert after == ""
    assert models.listed([{"id": "together/one"}])[0][0].id == "together/one"
    assert models.listed({"data": [{"id": "a"}, {"id": "b"}], "has_more": True})[1] == "b"
    assert models.models(parse("openai:x"), "b").query == {"after": "b"}
    for bad in (None, {}, {"data": None}, "no"):
        with pytest.raises(BadAnswer):
            models.listed(bad)


def test_html_and_cut_json_are_bad_answers(fake: FakeOpenAI) -> None:
    for body in (b"<html>no</html>", b'{"data": [', json.dumps({"data": "x"}).encode()):
        fake.faults.append(lambda _, body=body: Reply(200, {"content-type": "application/json"}, body))
        with pytest.raises(BadAnswer):
            ours(MODEL).embed("a")
