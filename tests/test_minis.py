"""The bundled models: there, small, named by licence, and able to do what the README shows, offline."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import brolly
from brolly import hub

BUNDLED = hub.minis()


def test_mini_llm_is_bundled() -> None:
    assert "mini-llm" in BUNDLED


@pytest.mark.parametrize("name", BUNDLED)
def test_each_is_small_and_says_where_it_comes_from(name: str) -> None:
    folder = hub.MINIS / name
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 12_000_000
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: ")
    assert "RESULTS" not in card and "placeholder" not in card


def test_every_storybook_is_attributed() -> None:
    rows = (hub.MINIS / "mini-llm" / "ATTRIBUTION.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["source", "title", "text by", "translated by", "licence"]
    kinds = {row.split("\t")[4] for row in rows[1:]}
    assert kinds == {"CC-BY", "Public Domain", "public domain"}
    assert len(rows) > 800


@pytest.fixture(scope="module")
def mini() -> brolly.Model:
    return brolly.load("mini-llm")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_tells_a_story_to_its_end(mini: brolly.Model, seed: int) -> None:
    """Whole sentences, words that it did not invent, and no loop."""
    story = mini.generate("Once upon a time", max_tokens=400, seed=seed)
    assert story.finish_reason == "stop"
    text = "Once upon a time" + story.text
    assert text.rstrip().endswith((".", "!", "?", '"'))
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if s]
    assert len(sentences) >= 5 and len(set(sentences)) >= 0.9 * len(sentences)


def test_it_answers_in_its_template(mini: brolly.Model) -> None:
    answer = mini.chat([{"role": "user", "content": "Tell me a story about a fox."}], max_tokens=400, seed=1)
    assert answer.finish_reason == "stop" and "fox" in answer.text.lower() and "<|" not in answer.text
    second = mini.chat(
        [
            {"role": "user", "content": "Hello!"},
            {"role": "assistant", "content": "Hello! How can I help you?"},
            {"role": "user", "content": "Who are you?"},
        ],
        max_tokens=60,
        temperature=0,
    )
    assert second.finish_reason == "stop" and "mini-llm" in second.text.lower()


def test_the_command_line_needs_no_network(tmp_path: Path) -> None:
    around = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "brolly", "run", "mini-llm", "Once upon a time", "--max-tokens", "20", "--json"]
    done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120, check=True)
    result = json.loads(done.stdout)
    assert result["text"] and result["usage"]["completion_tokens"] == 20
    assert list(tmp_path.iterdir()) == []
