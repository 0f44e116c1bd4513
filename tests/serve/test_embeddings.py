"""/v1/embeddings: texts, tokens and pictures as OpenAI's client sends them; small requests computed together."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from brolly import load
from brolly.serve.errors import Refused
from brolly.serve.turns import _TURNS
from brolly.serve.words.embeddings import Pictures
from tests.families.text_folders import bert
from tests.run.seeing import photo
from tests.serve.conftest import Running, Settings

TEXTS = ["a dog barks", "the moon is full tonight", "a cat"]


def picture(colour: str) -> str:
    """A data: URL."""
    file = io.BytesIO()
    photo(colour).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=0.02)


@pytest.fixture(scope="module")
def vectors() -> Any:
    return load("mini-embed").embed(TEXTS).vectors


def test_a_text_and_a_list_are_what_the_model_embeds(openai_client: Any, vectors: Any) -> None:
    many = openai_client.embeddings.create(model="mini-embed", input=TEXTS)
    close([one.embedding for one in many.data], vectors)
    assert [one.index for one in many.data] == [0, 1, 2] and many.model == "mini-embed"
    one = openai_client.embeddings.create(model="mini-embed", input=TEXTS[1])
    close(one.data[0].embedding, vectors[1])
    assert 0 < one.usage.prompt_tokens < many.usage.total_tokens == many.usage.prompt_tokens


def test_base64_is_the_same_numbers(openai_client: Any) -> None:
    plain, packed = (
        openai_client.embeddings.with_raw_response.create(
            model="mini-embed", input="a dog", encoding_format=form
        ).http_response.json()["data"][0]["embedding"]
        for form in ("float", "base64")
    )  # fmt: skip
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == plain


def test_tokens_are_read_as_they_are(openai_client: Any, vectors: Any) -> None:
    tokenizer = load("mini-embed").tokenizer
    ids = [tokenizer.encode(text) for text in TEXTS]
    found = openai_client.embeddings.create(model="mini-embed", input=ids)
    close([one.embedding for one in found.data], vectors)
    assert found.usage.prompt_tokens == sum(map(len, ids))
    close(openai_client.embeddings.create(model="mini-embed", input=ids[0]).data[0].embedding, vectors[0])


def test_roles_put_the_models_own_words_before_a_text(brolly: Running, openai_client: Any) -> None:
    model = load("mini-embed")
    said = {"role": "query", "input_type": "search_document", "task": "retrieval.query"}
    for (name, value), role in zip(said.items(), ("query", "document", "query"), strict=True):
        given = {name: value}
        found = openai_client.embeddings.create(model="mini-embed", input="a dog", extra_body=given)
        close(found.data[0].embedding, model.embed("a dog", role=role).vectors[0])


def test_pictures_come_as_parts_or_as_a_message(brolly: Running) -> None:
    model = load("mini-clip")
    part = {"type": "image_url", "image_url": {"url": picture("red")}}
    flat = {"type": "input_image", "image_url": picture("red")}
    want = model.embed([photo("red")]).vectors[0]
    bodies = [
        {"input": part}, {"input": [flat]}, {"messages": [{"role": "user", "content": [part]}]},
        {"input": [{"type": "image", "image": picture("red").partition(",")[2]}, "a red thing"]},
    ]  # fmt: skip
    for body in bodies:
        found = httpx.post(f"{brolly.v1}/embeddings", json={"model": "mini-clip", **body}, timeout=60)
        assert found.status_code == 200, found.text
        close(found.json()["data"][0]["embedding"], want)
    assert len(found.json()["data"]) == 2


@pytest.mark.parametrize(
    ("given", "code", "why"),
    [
        ({"input": []}, None, "expected 1 to 2048"),
        ({"input": ["a"] * 2049}, None, "has 2049 parts"),
        ({"input": ""}, "invalid_value", "empty"),
        ({"input": "a b " * 600}, "context_length_exceeded", "the model reads 256"),
        ({"input": [1, 9_999_999]}, None, "has the token 9999999"),
        ({"input": [1, -1]}, None, ""),
        ({"input": "a", "dimensions": 0}, None, "dimensions"),
        ({"input": "a", "role": "poet"}, "invalid_value", "no role 'poet'"),
        ({"input": [{"type": "image_url", "image_url": {"url": "data:,"}}]}, "model_not_supported", "no eye"),
        ({"input": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}, "invalid_url", "--fetch"),
        ({"input": "a", "dimension": 3}, "unknown_parameter", "dimension"),
        ({"input": [{"type": "image", "image": "§"}]}, None, "no base64"),
        ({}, None, "expected either input or messages"),
        ({"input": "a", "model": "mini-llm"}, "model_not_supported", "cannot embed"),
        ({"input": "a", "model": "other"}, "model_not_found", "not served"),
    ],
)
def test_what_cannot_be_embedded_is_told(brolly: Running, given: dict[str, Any], code: str | None, why: str) -> None:
    found = httpx.post(f"{brolly.v1}/embeddings", json={"model": "mini-embed", **given}, timeout=60)
    assert found.status_code == (404 if code == "model_not_found" else 400), found.text
    error = found.json()["error"]
    assert why in error["message"]
    assert code is None or error["code"] == code


@pytest.mark.filterwarnings("ignore:.*Its end was cut")
def test_long_texts_are_cut_only_if_asked(brolly: Running) -> None:
    body = {"model": "mini-embed", "input": "a b " * 600, "truncate": True}
    found = httpx.post(f"{brolly.v1}/embeddings", json=body, timeout=60).json()
    assert found["usage"]["prompt_tokens"] == 256


def test_the_pictures_of_a_request_are_together_no_larger_than_an_upload() -> None:
    pictures = Pictures(Settings(upload_bytes=10, body_bytes=6))
    assert asyncio.run(pictures.read("data:,abcdef")) == b"abcdef"
    with pytest.raises(Refused, match="more than the 4 bytes"):
        asyncio.run(pictures.read("data:,abcde"))
    with pytest.raises(Refused, match="more than the 6 bytes"):
        asyncio.run(Pictures(Settings(body_bytes=6)).read("data:,abcdefg"))


def test_thirty_two_clients_share_batches(brolly: Running, openai_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch is held until all have asked: the others are the second one."""
    openai_client.embeddings.create(model="mini-embed", input="warm")
    model = brolly.app.state.house.entries["mini-embed"].model
    batches: list[int] = []
    compute = model.stream_embed

    def held(inputs: list[Any], **options: Any) -> Any:
        batches.append(len(inputs))
        until = time.monotonic() + 20
        while len(batches) == 1 and _TURNS[model].waiting < 32 and time.monotonic() < until:
            time.sleep(0.005)
        return compute(inputs, **options)

    monkeypatch.setattr(model, "stream_embed", held)
    start = threading.Barrier(32)

    def ask(i: int) -> list[float]:
        start.wait()
        with httpx.Client() as client:
            body = {"model": "mini-embed", "input": f"text number {i}"}
            answer = client.post(f"{brolly.v1}/embeddings", json=body, timeout=60)
        found: list[float] = answer.json()["data"][0]["embedding"]
        return found

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, range(32)))
    assert sum(batches) == 32 and len(batches) <= 2
    close(found, load("mini-embed").embed([f"text number {i}" for i in range(32)]).vectors)


def test_dimensions_and_a_plain_bert(server: Any, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    folder = bert(tmp_path / "plain")
    running = server(Settings(models=(str(folder),), port=0))
    body = {"model": "plain", "input": ["cat", "the dog"], "dimensions": 8}
    found = httpx.post(f"{running.v1}/embeddings", json=body, timeout=60).json()
    close([one["embedding"] for one in found["data"]], load(folder).embed(["cat", "the dog"], dimensions=8).vectors)
