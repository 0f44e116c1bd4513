"""The list of models, as OpenAI's client reads it and with brolly's card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly.serve.settings import Settings
from brolly.serve.wire.models import ModelBody, ModelList
from tests.serve.conftest import MINIS, Running

openai = pytest.importorskip("openai")


def test_every_model_is_listed_with_its_card(openai_client: Any) -> None:
    found = {model.id: model for model in openai_client.models.list()}
    assert set(found) == set(MINIS)
    card = found["mini-llm"].brolly
    assert card["kind"] == "llm"
    assert card["parameters"] == {"total": 5_401_856, "activated": 5_401_856}
    assert card["context_length"] == found["mini-llm"].max_model_len == 512
    assert card["licence"]["id"] == "apache-2.0"
    assert "chat" in card["verbs"]
    assert "eu-gpai" in {rule["id"] for rule in card["rules"]}
    assert found["mini-whisper"].brolly["verbs"] == ["transcribe"]


def test_the_answers_have_the_served_schemas(brolly: Running) -> None:
    ModelList.model_validate(httpx.get(f"{brolly.v1}/models", timeout=60).json())
    ModelBody.model_validate(httpx.get(f"{brolly.v1}/models/mini-clip", timeout=60).json())


def test_a_model_that_is_used_is_told_to_be_loaded(openai_client: Any) -> None:
    openai_client.completions.create(model="mini-llm", prompt="x", max_tokens=1)
    assert openai_client.models.retrieve("mini-llm").brolly["loaded"] is True


def test_an_unknown_model_is_not_found(openai_client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.models.retrieve("org/absent")
    assert caught.value.code == "model_not_found"


def test_aliases_are_told_and_found(server: Callable[[Settings], Running], tmp_path: Path) -> None:
    running = server(Settings(models=("mini-llm",), alias={"gpt-4o": "mini-llm"}, store=tmp_path))
    (model,) = httpx.get(f"{running.v1}/models", timeout=60).json()["data"]
    assert "gpt-4o" in model["brolly"]["aliases"]
    assert httpx.get(f"{running.v1}/models/gpt-4o", timeout=60).json()["id"] == "gpt-4o"
