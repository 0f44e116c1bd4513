"""`brolly tune` and `brolly merge` on the command line: flags, events as JSON lines, mistakes in one line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from brolly.cli import main
from tests.run.checkpoints import write_llama
from tests.train.tuning.bases import facts, write_rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base")
    write_llama(folder, num_hidden_layers=1)
    write_rows(folder / "data.jsonl", facts(12))
    return folder


def call(*words: Any) -> int:
    return main([str(word) for word in words])


def test_events_are_json_lines(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = ("--steps", 3, "--batch", 4, "--rank", 2, "--held-out", 0.2, "--eval-every", 3, "--save-every", 2)
    assert call("tune", base, base / "data.jsonl", "-o", out, "--json", *given) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["plan", "step", "step", "saved", "step", "held", "done"]
    assert events[0]["steps"] == 3 and events[0]["held"] == 2 and events[0]["flop"] > 0
    assert events[-1]["path"] == str(out) and events[-1]["loss"] == events[-2]["loss"]
    assert call("tune", base, base / "data.jsonl", "-o", out, "--json", *given) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "error" and "finished" in json.loads(line)["message"]


def test_a_dry_run_says_all_and_writes_nothing(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("tune", base, base / "data.jsonl", "-o", tmp_path / "out", "--dry-run", "--epochs", 2) == 0
    told = capsys.readouterr()
    assert told.out == "" and "12 to learn" in told.err and "fox 0 is" in told.err
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_full_then_run_and_a_merge(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("--steps", 1, "--batch", 2)
    assert call("tune", base, base / "data.jsonl", "-o", tmp_path / "full", "--full", *quick) == 0
    assert call("run", tmp_path / "full", "fox", "--max-tokens", 2, "--json") == 0
    assert call("tune", base, base / "data.jsonl", "-o", tmp_path / "a", *quick) == 0
    assert call("merge", base, tmp_path / "a", "-o", tmp_path / "m") == 0
    assert call("run", tmp_path / "m", "fox", "--max-tokens", 2, "--json") == 0
    assert call("merge", base, tmp_path / "a", "-o", tmp_path / "a.gguf", "--gguf-lora") == 0
    assert (tmp_path / "a.gguf").read_bytes()[:4] == b"GGUF"
    assert "try it:   brolly run" in capsys.readouterr().err


def test_a_stop_tells_how_to_go_on(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from brolly.train.tuning.report import Report

    step = Report.step

    def stopped(self: Any, done: int, *rest: Any) -> None:
        step(self, done, *rest)
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Report, "step", stopped)
    given = ("tune", base, base / "data.jsonl", "-o", tmp_path / "out", "--steps", 4, "--batch", 2)
    assert call(*given) == 130
    assert "saved after step 2 of 4; go on with --resume" in capsys.readouterr().err
    monkeypatch.undo()
    assert call(*given, "--resume") == 0


@pytest.mark.parametrize(
    "words, says",
    [
        (["--rank", "4", "--full"], "--rank is a LoRA's"),
        (["--schedule", "steep"], "schedule is 'steep'; expected cosine, linear, constant"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--objective", "dreams"], "cannot be tuned"),
        (["--column", "prompt"], "says no role"),
        (["--eval", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--from", "nowhere"], "nowhere"),
        (["--report-to", "paper"], "report_to is 'paper'"),
        (["--targets", "knee"], "no layer's name ends with 'knee'"),
    ],
)
def test_mistakes_are_one_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    given = ("tune", base, base / "data.jsonl", "-o", tmp_path / "out", "--steps", 1)
    assert call(*given, *words) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("brolly: ") and says in told
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_what_is_missing_is_named(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("tune", base) == 2
    assert "data is not given" in capsys.readouterr().err
    assert call("tune", base, base / "data.jsonl") == 2
    assert "out is not given" in capsys.readouterr().err
    assert call("tune", base, tmp_path / "none.jsonl", "-o", tmp_path / "o") == 2
    assert "none.jsonl does not exist" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_told(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert call("tune", base, base / "data.jsonl", "-o", tmp_path / "locked" / "out") == 2
    assert "cannot be made" in capsys.readouterr().err
