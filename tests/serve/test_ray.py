"""Ray Serve: two replicas on this machine, one of them killed under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
serve = pytest.importorskip("ray.serve", reason="the extra [ray] is not installed")


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    from brolly.serve.ray import app

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    root = str(Path(__file__).parents[2])
    ray.init(
        num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}}, object_store_memory=100 << 20,
    )  # fmt: skip
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"models": "mini-llm,mini-embed", "replicas": "2", "cpus": "0.5", "alias": "gpt-4o=mini-llm"}))
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def ask(base: str, **more: object) -> httpx.Response:
    body = {"model": "mini-llm", "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, **more}
    return httpx.post(f"{base}/v1/completions", json=body, timeout=120)


def test_replicas_answer_as_one_server(base: str) -> None:
    names = {m["id"] for m in httpx.get(f"{base}/v1/models", timeout=60).json()["data"]}
    assert names == {"mini-llm", "mini-embed"}
    texts = {ask(base).json()["choices"][0]["text"] for _ in range(6)}
    assert len(texts) == 1 and all(texts)
    assert ask(base, model="gpt-4o").json()["choices"][0]["text"] in texts
    vectors = httpx.post(f"{base}/v1/embeddings", json={"model": "mini-embed", "input": ["a", "b"]}, timeout=60).json()
    assert len(vectors["data"]) == 2
    assert ask(base, model="nobody").status_code == 404
    assert httpx.post(f"{base}/v1/completions", content=b"{", timeout=60).status_code == 400


def test_streams_pass_through_as_they_come(base: str) -> None:
    whole = ask(base).json()["choices"][0]["text"]
    body = {"model": "mini-llm", "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{base}/v1/completions", json=body, timeout=60) as answer:
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1]) == whole


def replicas() -> set[int]:
    """Process ids of mini-llm's replicas, by the titles that Ray gives them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            title = path.read_bytes()
            if title.startswith(b"ray::ServeReplica:") and b"mini-llm" in title:
                found.add(int(path.parent.name))
    return found


def test_a_replica_killed_under_load_loses_no_answer(base: str) -> None:
    before = replicas()
    assert len(before) == 2
    victim = next(iter(before))

    async def load() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(timeout=180, limits=limits) as client:
            body = {"model": "mini-llm", "prompt": "Once upon a time", "max_tokens": 120, "temperature": 0}
            tasks = [asyncio.create_task(client.post(f"{base}/v1/completions", json=body)) for _ in range(40)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            os.kill(victim, signal.SIGKILL)
            return list(await asyncio.gather(*tasks))

    answers = asyncio.run(load())
    assert [a.status_code for a in answers] == [200] * 40
    assert len({a.json()["choices"][0]["text"] for a in answers}) == 1
    for _ in range(60):
        if len(now := replicas()) == 2:
            break
        asyncio.run(asyncio.sleep(0.5))
    assert victim not in now and len(now) == 2, "Ray has put another in its place"
