"""The bundled models: there, small, named by licence, and able to do what the README shows, offline."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import brolly
from brolly import hub

BUNDLED = hub.minis()
SPEECH = Path(__file__).parent / "fixtures" / "audio" / "fuzzy.flac"
SPOKEN = ["then", "he", "saw", "fuzzy", "the", "donkey", "who", "was", "sad"]


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


def test_all_of_them_are_light() -> None:
    """What a wheel carries: each of the later three up to 8 MB, all together under 40."""
    sizes = {name: sum(path.stat().st_size for path in (hub.MINIS / name).rglob("*")) for name in BUNDLED}
    assert set(sizes) >= {"mini-clip", "mini-embed", "mini-llm", "mini-whisper"}
    assert all(size <= 8_000_000 for name, size in sizes.items() if name != "mini-llm")
    assert sum(sizes.values()) < 40_000_000


def shape(kind: str, colour: str) -> Image.Image:
    """A circle or a triangle, drawn without the recipe."""
    image = Image.new("RGB", (64, 64), "white")
    pen = ImageDraw.Draw(image)
    if kind == "circle":
        pen.ellipse((14, 14, 50, 50), fill=colour)
    else:
        pen.polygon([(32, 12), (52, 50), (12, 50)], fill=colour)
    return image


def test_mini_clip_names_shapes_and_colours() -> None:
    clip = brolly.load("mini-clip")
    wanted = [(colour, kind) for colour in ("red", "green", "blue", "black") for kind in ("circle", "triangle")]
    labels = [f"{colour} {kind}" for colour, kind in wanted]
    found = clip.classify([shape(kind, colour) for colour, kind in wanted], labels)
    best = [one.label for one in found]
    assert best[0] == "red circle"
    assert [label.split()[0] for label in best] == [colour for colour, _ in wanted]
    assert sum(a == b for a, b in zip(best, labels, strict=True)) >= 7


def test_mini_embed_ranks_what_means_the_same_above_what_does_not() -> None:
    embed = brolly.load("mini-embed")
    pairs = [
        ("The boy repairs his bicycle.", "A lad is mending the bike."),
        ("a large animal with a trunk and tusks", "elephant"),
        ("The physician looks at the photograph.", "A doctor is watching a photo."),
        ("a person who writes books", "author"),
        ("The king lived in a castle with his daughter.", "A princess and her father had a palace."),
    ]
    likeness = embed.similarity([a for a, _ in pairs], [b for _, b in pairs])
    assert (likeness.argmax(1) == range(len(pairs))).sum() >= 4


def test_mini_whisper_writes_down_a_clip() -> None:
    """A sentence that it was not taught, by a voice of espeak-ng that it never heard."""
    said = brolly.load("mini-whisper").transcribe(SPEECH, words=True)
    assert said.language == "en"
    heard = re.findall("[a-z]+", said.text.lower())
    assert sum(a == b for a, b in zip(heard, SPOKEN, strict=False)) >= len(SPOKEN) - 1
    assert len(heard) == len(said.words) == len(SPOKEN)
    times = [word.start for word in said.words]
    assert times == sorted(times) and times[-1] < 3.0
