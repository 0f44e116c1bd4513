"""Adapters of an embedder over HTTP: "base:adapter" embeds by it, and one with a classifier labels texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from brolly.loader import load
from brolly.serve.settings import Settings
from brolly.train.tuning import tune
from brolly.verbs import Lora
from tests.serve.conftest import Running

ROWS = [{"text": "what a day", "label": "glad"}, {"text": "oh no", "label": "sad"}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of mini-embed: one that embeds, one that labels."""
    root = tmp_path_factory.mktemp("kinds")
    pairs = [{"anchor": "a blip", "positive": "a red pump"}, {"anchor": "a blop", "positive": "a green valve"}]
    for name, rows in (("near", pairs), ("mood", ROWS)):
        quick: dict[str, Any] = dict(steps=3, batch=2, lr=0.03, held_out=0.0)
        tune("mini-embed", rows, out=root / name, lora=Lora(rank=2), **quick)
    return {name: root / name for name in ("near", "mood")}


@pytest.fixture(scope="module")
def client(
    server: Callable[[Settings], Running], folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    adapters = {f"mini-embed:{name}": str(folder) for name, folder in folders.items()}
    store = tmp_path_factory.mktemp("store")
    running = server(Settings(models=("mini-embed",), adapters=adapters, store=store, port=0, device="cpu"))
    with httpx.Client(base_url=running.url, timeout=60) as found:
        yield found


def vector(client: httpx.Client, model: str) -> Any:
    answer = client.post("/v1/embeddings", json={"model": model, "input": "a blip"}).raise_for_status()
    return np.array(answer.json()["data"][0]["embedding"])


def test_an_embedder_embeds_by_the_adapter_that_is_named(client: httpx.Client, folders: dict[str, Path]) -> None:
    base = load("mini-embed", device="cpu")
    told = {"mini-embed": base, "mini-embed:near": base.with_adapter(folders["near"])}
    found = {name: vector(client, name) for name in (*told, *told)}
    for name, model in told.items():
        assert np.abs(found[name] - model.embed("a blip").vectors[0]).max() < 1e-3
    assert np.abs(found["mini-embed"] - found["mini-embed:near"]).max() > 5e-3
    listed = {row["id"] for row in client.get("/v1/models").json()["data"]}
    assert {"mini-embed:near", "mini-embed:mood"} <= listed


def test_an_adapter_with_a_classifier_labels_texts_and_embeds_none(client: httpx.Client) -> None:
    body = {"model": "mini-embed:mood", "input": ["what a day", "oh no"]}
    rows = client.post("/v1/classify", json=body).raise_for_status().json()["data"]
    assert [{label["label"] for label in row["labels"]} for row in rows] == [{"glad", "sad"}] * 2
    assert abs(sum(label["probability"] for label in rows[0]["labels"]) - 1) < 1e-5
    for name, route, message in (
        ("mini-embed", "classify", "cannot classify"),
        ("mini-embed:mood", "embeddings", "cannot embed"),
    ):
        refused = client.post(f"/v1/{route}", json=body | {"model": name})
        assert refused.status_code == 400 and message in json.dumps(refused.json())
