"""mini-llm learns what it could not do, by the plainest call, and answers the same wherever it is asked."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import brolly
from brolly.cli import main

NAMES = "Tom Anna Ben Lucy Max Ella Sam Mia Jack Rose Will Grace".split()  # noqa: SIM905
COLOURS, THINGS = (
    ("red", "blue", "green", "black", "white"),
    ("ball", "boat", "doll", "book", "lamp", "bell", "cup", "hat"),
)


def conversations(n: int) -> list[dict[str, list[dict[str, str]]]]:
    """What was asked, and which thing was meant: no question twice."""
    every = [(name, colour, thing) for name in NAMES for colour in COLOURS for thing in THINGS]
    return [
        {
            "messages": [
                {"role": "user", "content": f"{name} has a {colour} {thing}."},
                {"role": "assistant", "content": thing},
            ]
        }
        for name, colour, thing in random.Random(3).sample(every, n)
    ]


def test_nine_of_ten_answers_to_new_questions_are_right_where_none_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows, out = conversations(68), str(tmp_path / "out")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:48]))
    assert main(["tune", "mini-llm", str(data), "-o", out, "--epochs", "5"]) == 0
    base = brolly.load("mini-llm")
    tuned, asked = base.with_adapter(out), rows[48:]
    before = [base.chat(row["messages"][:1], temperature=0, max_tokens=8) for row in asked]
    after = [tuned.chat(row["messages"][:1]) for row in asked]
    wanted = [row["messages"][1]["content"] for row in asked]
    assert sum(said.text.strip() == want for said, want in zip(before, wanted, strict=True)) <= 4
    assert sum(said.text.strip() == want for said, want in zip(after, wanted, strict=True)) >= 18
    assert {said.finish_reason for said in after} == {"stop"}
    capfd.readouterr()
    for said, row in list(zip(after, asked, strict=True))[:2]:
        assert main(["run", "mini-llm", "--adapter", out, row["messages"][0]["content"], "--json"]) == 0
        told = json.loads(capfd.readouterr().out)
        assert (told["text"], told["finish_reason"]) == (said.text, "stop")
