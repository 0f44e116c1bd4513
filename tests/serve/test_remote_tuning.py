"""`brolly tune` at the address of a server of ours: the way of hosted tuning, against the real thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import brolly
from brolly.cli import main
from brolly.serve.app import create
from brolly.serve.settings import Settings
from tests.serve.conftest import serving

ROWS = Path(__file__).parents[2] / "examples" / "tune" / "train.jsonl"


def test_our_own_server_learns_what_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("brolly.remote.tuning.EVERY", 0.2)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(ROWS.read_text().splitlines(keepends=True)[:24]))
    with serving(create(Settings(models=("mini-llm",), store=tmp_path / "store", port=0))) as running:
        model = f"{running.v1}#mini-llm"
        words = ["--epochs", "2", "--batch", "8", "--lr", "0.003", "--suffix", "bell", "--seed", "3", "--json"]
        assert main(["tune", model, str(rows), *words]) == 0
        plan, job, *told, done = map(json.loads, capsys.readouterr().out.splitlines())
        assert plan["examples"] == 24 and done["path"] == f"{model}:bell-{job['id'][-8:]}"
        losses = [event["loss"] for event in told if event["event"] == "step"]
        assert len(losses) == done["steps"] and losses[-1] < losses[0]
        asked = {"max_tokens": 4, "temperature": 0}
        question = "Will has a blue bell."
        tuned, before = (brolly.Remote(one).generate(question, **asked).text for one in (done["path"], model))
        assert tuned != before
        assert main(["tune", model, str(rows), "--lr-multiplier", "2"]) == 2
        assert "learning_rate" in capsys.readouterr().err
