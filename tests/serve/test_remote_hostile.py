"""Parts and items of every shape, to models that run elsewhere: refused or passed on, and never a failure of ours."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

for package in ("openai", "anthropic", "google.genai"):
    pytest.importorskip(package)

from tests.serve.vendors import World, world_of  # noqa: E402

MODELS = (
    "openai:gpt-4.1", "openai-responses:gpt-5.6-sol", "anthropic:claude-haiku-4-5", "gemini:gemini-2.5-flash",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 10**12, "", "x", "data:image/png;base64,AAAA", "data:,x", "https://a/b.png", "file:///etc/passwd",
    [], [1], {}, {"url": "x"}, {"url": 5}, {"data": "AA", "format": 5}, {"file_data": []},
    {"type": "base64", "data": "AA", "media_type": 5}, {"type": "url", "url": []},
    {"type": "content", "content": [{"type": "image", "source": 5}]},
)  # fmt: skip
KINDS = (
    "text", "input_text", "image_url", "input_image", "input_audio", "file", "input_file", "image", "document",
    "tool_result", "tool_use", "thinking", "redacted_thinking", "refusal", "x",
)  # fmt: skip
FIELDS = (
    "text", "image_url", "input_audio", "file", "file_data", "filename", "detail", "source", "content", "tool_use_id",
    "id", "name", "input", "thinking", "signature", "data", "cache_control", "is_error", "title", "refusal",
)  # fmt: skip
SEALS = ("brolly.x", "brolly.W10=", "abc", "brolly.W3sidmVuZG9yIjoib3BlbmFpIiwiaXRlbSI6NX1d")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(MODELS, tmp_path_factory.mktemp("store")) as found:
        yield found


def bodies(draw: random.Random, model: str) -> list[tuple[str, dict[str, Any]]]:
    """A request in each format."""

    def part() -> dict[str, Any]:
        return {"type": draw.choice(KINDS)} | {name: draw.choice(VALUES) for name in draw.sample(FIELDS, 3)}

    parts = [part() for _ in range(draw.randint(1, 3))]
    last = {"role": "user", "content": "Hi"}
    turn = {"role": draw.choice(("user", "assistant", "tool", "system")), "content": parts, "tool_call_id": "c"}
    items = [
        {"role": "user", "content": parts},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": draw.choice(SEALS)},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": draw.choice(("x", parts))},
    ]
    blocks = {"role": draw.choice(("user", "assistant")), "content": parts}
    images = {"role": "user", "content": "x", "images": [draw.choice(("AAAA", "!!", "iVBORw0KGgo=", ""))]}
    return [
        ("/v1/chat/completions", {"model": model, "messages": [turn, last]}),
        ("/v1/messages", {"model": model, "max_tokens": 50, "messages": [blocks, last]}),
        ("/v1/responses", {"model": model, "store": False, "input": items}),
        ("/api/chat", {"model": model, "stream": False, "messages": [images], "think": draw.choice((None, True, "x"))}),
    ]


@pytest.mark.parametrize("model", MODELS)
def test_no_shape_is_a_failure_of_ours(world: World, model: str) -> None:
    draw = random.Random(model)
    with httpx.Client(base_url=world.running.url, headers=world.headers, timeout=30) as client:
        for _ in range(60):
            for path, body in bodies(draw, model):
                answer = client.post(path, json=body)
                assert answer.status_code < 500, (answer.text, body)
