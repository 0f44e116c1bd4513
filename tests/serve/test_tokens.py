"""Text ↔ tokens over HTTP, in vLLM's shapes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from brolly.serve.wire.tokens import Detokenized, Tokenized
from tests.serve.conftest import Running


def posted(running: Running, path: str, **body: Any) -> Any:
    said = httpx.post(f"{running.url}{path}", json={"model": "mini-llm", **body}, timeout=60)
    assert said.status_code == 200, said.text
    return said.json()


@pytest.mark.parametrize("root", ["", "/v1"])
def test_a_text_comes_back_from_its_tokens(brolly: Running, root: str) -> None:
    text = "Grüße, a dog 🐕!"
    found = Tokenized.model_validate(posted(brolly, f"{root}/tokenize", prompt=text, return_token_strs=True))
    assert found.count == len(found.tokens) == len(found.token_strs or ())
    assert found.max_model_len == 512
    back = posted(brolly, f"{root}/detokenize", tokens=found.tokens)
    assert Detokenized.model_validate(back).prompt == text


def test_a_conversation_is_counted_as_it_will_be_read(brolly: Running, openai_client: Any) -> None:
    messages = [{"role": "user", "content": "Hello you."}]
    found = posted(brolly, "/tokenize", messages=messages)
    answer = openai_client.chat.completions.create(model="mini-llm", messages=messages, max_tokens=1)
    assert found["count"] == answer.usage.prompt_tokens
    assert posted(brolly, "/tokenize", messages=messages, add_generation_prompt=False)["count"] < found["count"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}),
        ("/detokenize", {"tokens": [4096]}),
        ("/detokenize", {"tokens": [-1]}),
        ("/tokenize", {"prompt": "\ud800"}),
    ],
)
def test_what_makes_no_sense_is_refused(brolly: Running, path: str, body: dict[str, Any]) -> None:
    import json

    content = json.dumps({"model": "mini-llm", **body})
    said = httpx.post(f"{brolly.url}{path}", content=content, headers={"content-type": "application/json"}, timeout=60)
    assert said.status_code == 400, said.text
    assert "error" in said.json()
