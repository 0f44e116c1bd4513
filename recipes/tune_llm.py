"""What mini-llm learns, and what it forgets by it: `python recipes/tune_llm.py FOLDER` (needs brolly alone, no network).

The task is a format that mini-llm has never seen: asked `name: Ada, age: 7` it should say `{"name": "Ada", "age": 7}`. It is
tuned three times: by the defaults; at a tenth of their learning rate; and by the defaults with stories among the examples.
Each is asked what it has not learnt from, and for new stories: how likely a story's words are to it (perplexity), and how
many of ten answers are none but the format, tell what was forgotten. docs/tune.md has the figures.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from small_stories import stories

import brolly
from brolly.measure import evaluate

NAMES = "Tom Anna Ben Lucy Max Ella Sam Mia Jack Rose Will Grace Peter Jane Mary John Tim Sue Bob Lily Amy Dan Kate Joe"
Row = dict[str, list[dict[str, str]]]
TRAIN, TEST, STORIES, EPOCHS = 60, 60, 50, 12


def talk(asked: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def people(n: int, seed: int) -> list[Row]:
    """Different prompts and what they should become."""
    all_of_them = [(name, age) for name in NAMES.split() for age in range(3, 20)]
    return [
        talk(f"name: {name}, age: {age}", f'{{"name": "{name}", "age": {age}}}')
        for name, age in random.Random(seed).sample(all_of_them, n)
    ]


def written(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(model: brolly.Model, name: str, test: Path, unheard: Path, adapter: Any = None) -> str:
    """One line: right answers, stories' perplexity, and requests for a story that got the format."""
    right = evaluate(model, test, adapter=adapter)["exact match"]
    read = evaluate(model, unheard, adapter=adapter, generate=False)["perplexity"]
    speaks = model if adapter is None else model.with_adapter(adapter)
    requests = [json.loads(line)["messages"][:1] for line in unheard.read_text().splitlines()[:10]]
    wrong = sum("{" in speaks.chat(asked, max_tokens=12, temperature=0).text for asked in requests)
    return (
        f"{name:20} right {right.value:6.1%} ({right.low:.1%} to {right.high:.1%})   stories: perplexity {read.value:5.2f} "
        f"({read.low:.2f} to {read.high:.2f}), {wrong} of 10 answered in the format"
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = people(TRAIN + TEST, seed=1)
    train, test = written(folder / "train.jsonl", rows[:TRAIN]), written(folder / "test.jsonl", rows[TRAIN:])
    heard = [talk(request, text) for request, _, text in stories(STORIES, seed=101)]
    # seen three times each, in a quarter of the passes: no story is learnt by heart
    mixed = written(folder / "mixed.jsonl", rows[:TRAIN] * 4 + heard)
    unheard = written(folder / "stories.jsonl", [talk(request, text) for request, _, text in stories(30, seed=202)])
    model, usual = brolly.load("mini-llm"), 0.002  # the rate that tune chooses for mini-llm
    print(told(model, "mini-llm", test, unheard), flush=True)
    ways = (
        ("tuned", train, EPOCHS, usual), ("at a tenth the rate", train, EPOCHS, usual / 10),
        ("stories mixed in", mixed, EPOCHS / 4, usual),
    )  # fmt: skip
    for name, data, epochs, lr in ways:
        began, out = time.process_time(), folder / name.replace(" ", "-")
        adapter = brolly.tune("mini-llm", data, out=out, epochs=epochs, lr=lr, held_out=0)
        spent = time.process_time() - began
        print(f"{told(model, name, test, unheard, adapter)}   {adapter.steps} steps, {spent:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
