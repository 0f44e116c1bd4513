"""Vector stores and file_search, by OpenAI's own client."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly.adapt.retrieve.store import Hit
from brolly.serve.app import create
from brolly.serve.scribe import Scribe
from brolly.serve.searching import Searched
from brolly.serve.settings import Settings
from brolly.serve.shelves import Passage
from brolly.serve.wire.responses import ResponseBody
from brolly.serve.wire.vector_stores import Comparison, Compound, SearchPage, StoreBody, StoredFileList
from brolly.serve.words.vector_stores import allowing
from brolly.verbs import Piece, Usage
from tests.serve.conftest import Running, serving

openai = pytest.importorskip("openai")

TEXTS = {
    "kiln.md": "# The kiln\n\nThe kiln of the pottery reaches 1,240 degrees and is fired on Tuesdays.\n",
    "goats.txt": "Our goats are called Elsa and Bruno. Elsa gives four litres of milk a day.\n",
    "boat.html": "<h1>The boat</h1><p>The ferry Aurora leaves the northern pier at seven in the morning.</p>",
}


@pytest.fixture(scope="module")
def running(server: Callable[[Settings], Running], tmp_path_factory: pytest.TempPathFactory) -> Running:
    return server(Settings(models=("mini-llm", "mini-embed"), store=tmp_path_factory.mktemp("shelves"), port=0))


@pytest.fixture(scope="module")
def client(running: Running) -> Any:
    return openai.OpenAI(base_url=running.v1, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def files(client: Any) -> dict[str, str]:
    made = {n: client.files.create(file=(n, t.encode()), purpose="assistants").id for n, t in TEXTS.items()}
    broken = client.files.create(file=("broken.pdf", b"%PDF-1.4 no more"), purpose="assistants").id
    return made | {"broken.pdf": broken}


@pytest.fixture(scope="module")
def store(client: Any, files: dict[str, str]) -> Any:
    made = client.vector_stores.create(name="farm", file_ids=list(files.values()), metadata={"a": "b"})
    client.vector_stores.files.update(
        files["goats.txt"], vector_store_id=made.id, attributes={"year": 2024, "kind": "x"}
    )
    return ready(client, made.id)


def ready(client: Any, id: str) -> Any:
    limit = time.monotonic() + 120
    while (store := client.vector_stores.retrieve(id)).status == "in_progress":
        assert time.monotonic() < limit
        time.sleep(0.2)
    return store


def test_files_are_indexed_and_those_that_cannot_be_read_are_told(
    client: Any, store: Any, files: dict[str, str]
) -> None:
    assert (store.name, store.file_counts.completed, store.file_counts.failed) == ("farm", 3, 1)
    (failed,) = client.vector_stores.files.list(store.id, filter="failed")
    assert failed.id == files["broken.pdf"] and failed.last_error.code == "invalid_file"
    assert store.id in [one.id for one in client.vector_stores.list()]


def test_a_passage_is_found_by_words_and_narrowed_by_attributes(client: Any, store: Any, files: dict[str, str]) -> None:
    found = client.vector_stores.search(store.id, query="When does the ferry leave?", max_num_results=2).data
    assert found[0].file_id == files["boat.html"] and "Aurora" in found[0].content[0].text
    assert 0 <= found[0].score <= 1 and len(found) <= 2
    newer = {"type": "gte", "key": "year", "value": 2024}
    found = client.vector_stores.search(store.id, query="When does the ferry leave?", filters=newer).data
    assert {one.file_id for one in found} == {files["goats.txt"]}
    none = {"type": "eq", "key": "year", "value": 1}
    assert not client.vector_stores.search(store.id, query="ferry", filters=none).data


def test_the_text_of_a_file_is_told(client: Any, store: Any, files: dict[str, str]) -> None:
    said = client.vector_stores.files.content(files["boat.html"], vector_store_id=store.id).data
    assert "northern pier" in said[0].text and "<p>" not in said[0].text


def test_a_batch_comes_and_a_file_goes(client: Any, files: dict[str, str]) -> None:
    empty = client.vector_stores.create()
    assert empty.status == "completed" and not client.vector_stores.search(empty.id, query="goats").data
    ids = [files["goats.txt"], files["kiln.md"]]
    batch = client.vector_stores.file_batches.create(empty.id, file_ids=ids)
    ready(client, empty.id)
    batch = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=empty.id)
    assert (batch.status, batch.file_counts.completed) == ("completed", 2)
    client.vector_stores.files.delete(files["goats.txt"], vector_store_id=empty.id)
    found = client.vector_stores.search(empty.id, query="What are the goats called?").data
    assert {one.file_id for one in found} <= {files["kiln.md"]}
    assert client.vector_stores.delete(empty.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(empty.id)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_searches_files_and_tells_what_it_found(client: Any, store: Any, stream: bool, files: Any) -> None:
    asked = {
        "model": "mini-llm", "input": "What are the goats called?", "max_output_tokens": 8, "stream": stream,
        "tools": [{"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 2}],
        "include": ["file_search_call.results"],
    }  # fmt: skip
    response = client.responses.create(**asked)
    if stream:
        events = list(response)
        kinds = [event.type for event in events]
        assert [k for k in kinds if "file_search" in k] == [
            f"response.file_search_call.{what}" for what in ("in_progress", "searching", "completed")
        ]
        response = events[-1].response
    call, message = response.output
    assert call.type == "file_search_call" and call.queries == ["What are the goats called?"]
    assert call.results[0].file_id == files["goats.txt"] and message.type == "message"


def test_the_answers_have_the_served_schema(running: Running, store: Any) -> None:
    v1 = running.v1
    StoreBody.model_validate(httpx.get(f"{v1}/vector_stores/{store.id}", timeout=60).json())
    StoredFileList.model_validate(httpx.get(f"{v1}/vector_stores/{store.id}/files", timeout=60).json())
    asked = {"query": "goats"}
    SearchPage.model_validate(httpx.post(f"{v1}/vector_stores/{store.id}/search", json=asked, timeout=60).json())
    tool = {"type": "file_search", "vector_store_ids": [store.id]}
    body = {"model": "mini-llm", "input": "goats?", "max_output_tokens": 4, "tools": [tool]}
    ResponseBody.model_validate(httpx.post(f"{v1}/responses", json=body, timeout=60).json())


def test_only_sources_that_were_given_are_cited() -> None:
    passages = [Passage(f"file-{n}", f"{n}.md", "text", 0.5, {}, Hit(f"{n}.md", "text", 1.0)) for n in (1, 2)]
    searched = Searched("q", passages, told=False)
    response: dict[str, Any] = {"status": "in_progress", "output": []}
    scribe = Scribe(response)
    scribe.search(searched)
    for text in ("Goats ", "[1", "] and boats [7], kilns [1, 2]", "."):
        scribe.push(Piece(text))
    scribe.end("stop", Usage(1, 1))
    part = response["output"][1]["content"][0]
    assert part["text"] == "Goats [1] and boats, kilns [1][2]."
    assert [(a["file_id"], part["text"][: a["index"]][-3:]) for a in part["annotations"]] == [
        ("file-1", "[1]"), ("file-1", "[1]"), ("file-2", "[2]"),
    ]  # fmt: skip


def test_filters_compare_and_combine() -> None:
    def passes(filter: Any, **attributes: Any) -> bool:
        allows = allowing(filter)
        assert allows is not None
        return allows(attributes)

    year = Comparison(type="gt", key="year", value=2000)
    kind = Comparison(type="in", key="kind", value=["a", "b"])
    assert passes(year, year=2001) and not passes(year, year=2000) and not passes(year)
    assert passes(kind, kind="b") and not passes(kind, kind="c")
    assert passes(Compound(type="or", filters=[year, kind]), kind="a")
    assert not passes(Compound(type="and", filters=[year, kind]), kind="a")
    assert passes(Comparison(type="nin", key="kind", value=["a"]), kind="z")


def test_stores_belong_to_their_owner_and_outlive_the_server(tmp_path: Path) -> None:
    keys = (("user-key-0123456789", "user"), ("other-key-012345678", "user"))
    settings = Settings(models=("mini-llm", "mini-embed"), store=tmp_path, port=0, api_keys=keys)
    with serving(create(settings)) as running:
        own, other = (openai.OpenAI(base_url=running.v1, api_key=key, max_retries=0) for key, _ in keys)
        id = own.vector_stores.create(name="mine").id
        with pytest.raises(openai.NotFoundError):
            other.vector_stores.retrieve(id)
        file = own.files.create(file=("a.txt", b"a"), purpose="assistants").id
        theirs = other.vector_stores.create().id
        with pytest.raises(openai.NotFoundError):
            other.vector_stores.files.create(theirs, file_id=file)
    with serving(create(settings)) as running:
        again = openai.OpenAI(base_url=running.v1, api_key=keys[0][0], max_retries=0)
        assert again.vector_stores.retrieve(id).name == "mine"
