"""LoRA adapters over HTTP: "base:adapter", beside others in one batch; what is not served; coming and going."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly.loader import load
from brolly.serve.settings import Settings
from tests.engine.test_adapters import write_adapter
from tests.run import checkpoints
from tests.serve.conftest import Running

PROMPT = "Once upon a time a fox met a hen"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base that writes, and three adapters of it."""
    pytest.importorskip("peft")
    root = tmp_path_factory.mktemp("adapters")
    checkpoints.write_llama(root / "base")
    for i, name in enumerate(("polite", "rude", "late")):
        write_adapter(root / "base", root / name, i, r=2 + i, lora_alpha=9, target_modules=["q_proj", "up_proj"])
    return {name: root / name for name in ("base", "polite", "rude", "late")}


@pytest.fixture(scope="module")
def running(
    server: Callable[[Settings], Running], folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Running:
    adapters = {"base:polite": str(folders["polite"]), "rude": str(folders["rude"])}
    models = (str(folders["base"]), "mini-embed")
    store = tmp_path_factory.mktemp("store")
    return server(Settings(models=models, adapters=adapters, store=store, port=0, device="cpu", dtype="float32"))


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=60) as found:
        yield found


def complete(client: httpx.Client, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0} | more
    return client.post("/v1/completions", json=body)


def text(client: httpx.Client, model: str) -> str:
    return complete(client, model).raise_for_status().json()["choices"][0]["text"]


def test_each_adapter_answers_as_it_does_in_python(client: httpx.Client, folders: dict[str, Path]) -> None:
    ours = load(folders["base"], device="cpu", dtype="float32")
    names = ["base", "base:polite", "base:rude", "rude"]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda name: text(client, name), names * 3))
    expected = [
        ours.generate(PROMPT, max_tokens=12, temperature=0, adapter=adapter).text
        for adapter in (None, folders["polite"], folders["rude"], folders["rude"])
    ]
    assert found == expected * 3 and len(set(expected)) == 3


def test_conversations_and_streams_take_adapters_too(client: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
    said = {}
    for model in ("base", "base:polite"):
        whole = client.post("/v1/chat/completions", json=body | {"model": model}).raise_for_status().json()
        said[model] = whole["choices"][0]["message"]["content"]
        assert whole["model"] == model
        given = client.post("/v1/messages", json=body | {"model": model}).raise_for_status().json()
        assert "".join(block["text"] for block in given["content"]) == said[model]
    assert said["base"] != said["base:polite"]


def test_a_prompt_is_scored_by_its_adapter(client: httpx.Client, folders: dict[str, Path]) -> None:
    ours = load(folders["base"], device="cpu", dtype="float32")
    found = {}
    for name, adapter in (("base", None), ("base:polite", folders["polite"])):
        choice = complete(client, name, echo=True, logprobs=0, max_tokens=0).raise_for_status().json()["choices"][0]
        found[name] = choice["logprobs"]["token_logprobs"][1:]
        assert found[name] == pytest.approx(ours.score(PROMPT, adapter=adapter).logprobs[1:], abs=1e-4)
    assert found["base"] != pytest.approx(found["base:polite"], abs=0.01)


def test_an_unknown_adapter_is_not_found_and_the_near_names_are_told(client: httpx.Client) -> None:
    answer = complete(client, "base:polit")
    assert answer.status_code == 404
    assert "'base:polit' is not served here; did you mean base:polite" in answer.json()["error"]["message"]


def test_adapters_are_listed_counted_and_told_in_the_provenance(client: httpx.Client, running: Running) -> None:
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert ids == ["base", "base:polite", "base:rude", "mini-embed"]
    assert client.get("/v1/models/base:rude").json()["id"] == "base:rude"
    answers = {name: complete(client, name) for name in ("base", "base:polite", "rude")}
    prints = {answer.json()["system_fingerprint"] for answer in answers.values()}
    assert len(prints) == 3
    assert "adapter=polite@" in answers["base:polite"].headers["x-brolly-provenance"]
    entry = running.app.state.house.entries["base"]
    assert entry.adapted == {name: entry.model.adapter(name).n_bytes for name in ("polite", "rude")}
    with_both = entry.share.n_bytes
    assert running.app.state.house.ledger.used >= with_both > sum(entry.adapted.values()) > 0


def test_adapters_come_and_go_by_vllms_routes(client: httpx.Client, running: Running, folders: dict[str, Path]) -> None:
    entry = running.app.state.house.entries["base"]
    text(client, "base")
    before = entry.share.n_bytes
    given = {"lora_name": "late", "lora_path": str(folders["late"])}
    answer = client.post("/v1/load_lora_adapter", json=given)
    assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'late' added successfully.")
    assert text(client, "late") == text(client, "base:late") != text(client, "base")
    assert entry.share.n_bytes == before + entry.adapted["late"]
    assert client.post("/v1/load_lora_adapter", json=given).status_code == 400  # there is one of that name
    answer = client.post("/v1/unload_lora_adapter", json={"lora_name": "late"})
    assert answer.status_code == 200 and entry.share.n_bytes == before
    assert complete(client, "late").status_code == 404
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "late"}).status_code == 404
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "base"}).status_code == 404


@pytest.mark.parametrize(
    ("given", "status"),
    [({"lora_path": "/nowhere"}, 400), ({"lora_name": "mini-embed:x"}, 400), ({"lora_name": "nobody:x"}, 404),
     ({"lora_name": ""}, 400), ({"lora_name": "base:polite"}, 400), ({"lora_path": "\0"}, 400),
     ({"lora_path": "x" * 4000}, 400), ({"lora_path": "~nobody-of-that-name/x"}, 400), ({"lora_path": "/\ud800"}, 400),
     ({"lora_path": 5}, 400), ({"more": "x"}, 400)],
)  # fmt: skip
def test_a_wrong_load_of_an_adapter_changes_nothing(
    given: dict[str, str], status: int, client: httpx.Client, running: Running, folders: dict[str, Path]
) -> None:
    entry = running.app.state.house.entries["base"]
    before = dict(entry.adapters)
    body = json.dumps({"lora_name": "x", "lora_path": str(folders["late"])} | given)
    answer = client.post("/v1/load_lora_adapter", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert entry.adapters == before


def test_an_adapter_of_another_base_is_refused_and_not_served(
    client: httpx.Client, running: Running, tmp_path: Path
) -> None:
    checkpoints.write_llama(tmp_path / "other", hidden_size=96)
    write_adapter(tmp_path / "other", tmp_path / "lora", r=2, target_modules=["q_proj"])
    answer = client.post("/v1/load_lora_adapter", json={"lora_name": "base:alien", "lora_path": str(tmp_path / "lora")})
    assert answer.status_code == 400, answer.text
    assert "lora_A [2, 96]" in answer.json()["error"]["message"]
    assert complete(client, "base:alien").status_code == 404
    assert "alien" not in running.app.state.house.entries["base"].adapters


def test_an_unloaded_model_has_no_adapter_in_memory(client: httpx.Client, running: Running) -> None:
    entry = running.app.state.house.entries["base"]
    first = text(client, "base:polite")
    client.post("/v1/brolly/unload", json={"model": "base"}).raise_for_status()
    assert entry.model is None and not entry.adapted and not entry.share.n_bytes
    assert text(client, "base:polite") == first


def test_only_admins_load_adapters() -> None:
    from brolly.serve.keys import needs_admin

    assert needs_admin("POST", "/v1/load_lora_adapter") and needs_admin("POST", "/v1/unload_lora_adapter")
