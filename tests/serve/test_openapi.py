"""What schemathesis found that /openapi.json and answers did not agree about (`make test-clients` asks all)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.serve.conftest import Running

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def document(brolly: Running) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{brolly.url}/openapi.json").json()
    return found


def test_a_refused_method_is_told_all_that_the_path_takes(brolly: Running, document: dict[str, Any]) -> None:
    seen = 0
    for path, methods in document["paths"].items():
        reply = httpx.request("TRACE", brolly.url + path.replace("{", "").replace("}", ""))
        if reply.status_code == 405:
            allowed = set(reply.headers["allow"].split(", "))
            assert {method.upper() for method in methods} <= allowed, path
            assert reply.headers["allow"] in reply.text
            seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    "path", ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/load_lora_adapter", "/api/pull", "/v1/embeddings"]
)
def test_an_empty_body_is_refused_in_the_envelope_that_is_told(
    brolly: Running, document: dict[str, Any], path: str
) -> None:
    reply = httpx.post(brolly.url + path)
    told = document["paths"][path]["post"]["responses"]["4XX"]["content"][reply.headers["content-type"]]["schema"]
    jsonschema.validate(reply.json(), told | {"components": document["components"]})


def test_what_a_pull_answers_is_told(brolly: Running, document: dict[str, Any]) -> None:
    reply = httpx.post(f"{brolly.url}/api/pull", json={"model": "mini-llm"})
    assert reply.headers["content-type"] in document["paths"]["/api/pull"]["post"]["responses"]["200"]["content"]
