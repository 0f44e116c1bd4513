"""`llm`, the program: told of the server by its extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import CHAT


@pytest.fixture
def home(v1: str, tmp_path: Path) -> Path:
    row = (
        f"model_name: {CHAT}\n  api_base: {v1}\n  api_key_name: none\n  supports_schema: true\n  supports_tools: true\n"
    )
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: served\n  {row}- model_id: base\n  {row.replace('supports_tools: true', 'completion: true')}"
    )
    return tmp_path


def llm(home: Path, *words: str, given: str = "") -> str:
    own = os.environ | {"LLM_USER_PATH": str(home), "LLM_LOAD_PLUGINS": "", "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "llm", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=own, input=given, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prompts_streamed_and_whole_are_the_same(home: Path) -> None:
    how = ("-m", "served", "-o", "seed", "1", "-o", "max_tokens", "40")
    whole = llm(home, "prompt", "Hello", *how, "--no-stream")
    assert whole.strip() and llm(home, "prompt", "Hello", *how) == whole


def test_system_pipe_and_conversation(home: Path) -> None:
    how = ("-m", "served", "-o", "max_tokens", "20")
    assert llm(home, "prompt", "-s", "Be short.", *how, given="Hello")
    llm(home, "prompt", "And then?", "-c", "-o", "max_tokens", "20")
    rows = json.loads(llm(home, "logs", "list", "-n", "0", "--json"))
    assert len(rows) == 2 and len({row["conversation_id"] for row in rows}) == 1


def test_a_schema(home: Path) -> None:
    told = llm(
        home, "prompt", "A fox", "-m", "served", "--schema", "name, legs int", "-o", "max_tokens", "400", "--no-stream"
    )
    found = json.loads(told)
    assert isinstance(found["name"], str) and isinstance(found["legs"], int)


def test_tools_are_offered(home: Path) -> None:
    code = 'def rain(city: str) -> str:\n    "Whether it rains."\n    return "no"\n'
    llm(home, "prompt", "Rain?", "-m", "served", "--functions", code, "-o", "max_tokens", "30")


def test_completions(home: Path) -> None:
    assert llm(home, "prompt", "Once upon", "-m", "base", "-o", "max_tokens", "20")


def test_an_endpoint_without_any_file(home: Path, v1: str) -> None:
    assert llm(home, "openai", "endpoint", v1, "Hello", "-m", CHAT).strip()
