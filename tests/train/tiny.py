"""A recipe that trains in seconds on one core: a few kilobytes of made-up text, a network of 32 dimensions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SEPARATOR = "<|endoftext|>"
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"


def story(number: int) -> str:
    draw = random.Random(number)
    animal, thing = draw.choice(("fox", "owl", "hare", "mole")), draw.choice(("key", "lamp", "boat", "drum"))
    place, colour = draw.choice(("hill", "river", "barn", "wood")), draw.choice(("red", "old", "small", "grey"))
    return f"The {colour} {animal} number {number} found a {thing} by the {place}. “Whose is it?” asked the {animal}."


def stories(n: int, start: int = 0) -> str:
    return f"\n{SEPARATOR}\n".join(story(i) for i in range(start, start + n)) + "\n"


def write_recipe(folder: Path, text: str | None = None, **changes: Any) -> Path:
    """A recipe over `folder`/text.txt; `changes` are train_lr=1e-2, model_dim=64, data_held_out=0 and the like."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text(stories(80) if text is None else text, "utf-8")
    tables: dict[str, dict[str, Any]] = {
        "model": {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 64, "context": 32},
        "tokenizer": {"vocab_size": 300},
        "data": {"sources": {"text": "text.txt"}, "held_out": 0.1},
        "train": {
            "steps": 20, "batch": 8, "lr": 3e-3, "warmup": 2, "dtype": "float32", "compile": False,
            "eval_every": 10, "save_every": 5,
        },
        "generation": {},
    }  # fmt: skip
    for key, value in changes.items():
        table, _, name = key.partition("_")
        tables[table][name] = value
    lines = ['name = "tiny"', 'out = "out"']
    for table, content in tables.items():
        lines += [f"[{table}]", *(f"{k} = {toml(v)}" for k, v in content.items())]
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def losses(out: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in log(out) if "loss" in row]


def log(out: Path) -> list[dict[str, Any]]:
    """The rows of a run's log without its only number that the clock decides."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]
