"""A firm's own words, which mini-embed has never read: `python recipes/tune_embed.py WORDS`.

Writes WORDS/train.jsonl, four questions with each word and the text that answers, and WORDS/test.jsonl, a fifth.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WORDS = (
    "zorble quindle frossle mipper tragnet blooph skarn wendle grippock lumby harsk pollin dreck ovvy tarple shunt brindock "
    "kezzle murf vannit"
)
THINGS = (
    "pump valve ladder furnace gate crane boiler fan belt drill scale tank press saw filter lamp hose cart switch oven"
)
ASKED = (
    "Where is the {}?", "My {} is broken.", "Who can repair a {}?", "How old is the {}?", "The {} makes a noise.",
)  # fmt: skip


def write(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, asked in (("train", ASKED[:4]), ("test", ASKED[4:])):
        pairs = [
            {"query": text.format(word), "positive": f"The {thing} and how it is looked after."}
            for word, thing in zip(WORDS.split(), THINGS.split(), strict=True)
            for text in asked
        ]
        (out / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
