"""The admin routes, as the web page and the command line call them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient  # noqa: E402

from brolly.serve.app import create  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402

MODEL = "mini-embed"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(models=(MODEL, "mini-llm"), store=tmp_path_factory.mktemp("store"), memory=10**9)
    with TestClient(create(settings), client=("127.0.0.1", 1), base_url="http://127.0.0.1") as found:
        yield found


def state_of(client: TestClient, name: str) -> dict[str, Any] | None:
    found = client.get("/v1/brolly/ps").json()
    assert found["memory"] == 10**9 and found["used"] == sum(m["bytes"] for m in found["models"])
    return next((m for m in found["models"] if m["name"] == name), None)


def test_a_model_comes_and_goes(client: TestClient) -> None:
    assert state_of(client, MODEL) is None
    held = client.post("/v1/brolly/load", json={"model": MODEL, "keep_alive": -1}).json()
    assert held["state"] == "loaded" and held["until"] is None and held["bytes"] > 5_000_000
    assert state_of(client, MODEL) == held
    assert client.post("/v1/brolly/load", json={"model": MODEL, "pin": True}).json()["pinned"]
    gone = client.post("/v1/brolly/unload", json={"model": MODEL}).json()
    assert (gone["state"], gone["bytes"], gone["pinned"]) == ("away", 0, False)
    assert state_of(client, MODEL) is None


def test_a_streamed_load_ends_with_what_is_held(client: TestClient) -> None:
    with client.stream("POST", "/v1/brolly/load", json={"model": "mini-llm", "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[0]["state"] in ("waiting", "loading") and events[-1]["state"] == "loaded"
    assert all(0 <= e["completed"] <= e["total"] for e in events[:-1])
    assert 0 < events[-1]["cache_bytes"] <= 10**9 // 4


def test_errors_come_in_the_envelope_streamed_or_not(client: TestClient) -> None:
    whole = client.post("/v1/brolly/load", json={"model": "nobody"})
    streamed = client.post("/v1/brolly/load", json={"model": "nobody", "stream": True})
    assert whole.status_code == streamed.status_code == 404
    assert whole.json()["error"]["code"] == "model_not_found"
    for body in ({}, {"model": 5}, {"model": MODEL, "extra": 1}, {"model": MODEL, "keep_alive": "x"}):
        assert client.post("/v1/brolly/load", json=body).status_code == 400
    assert client.post("/v1/brolly/unload", json={"model": "nobody"}).status_code == 404


def test_every_models_card_is_told_and_where_it_lies_is_not(client: TestClient) -> None:
    answer = client.get("/v1/brolly/models")
    found = {m["name"]: m for m in answer.json()["models"]}
    assert found[MODEL]["card"]["verbs"] == ["embed"] and found["mini-llm"]["card"]["is_llm"]
    assert "site-packages" not in answer.text and "/minis/" not in answer.text
