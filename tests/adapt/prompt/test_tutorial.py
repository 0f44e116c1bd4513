"""docs/prompt.md holds: every command and every program in it runs, and the file that it shows is there."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from brolly.cli import main

ROOT = Path(__file__).resolve().parents[3]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "prompt.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("brolly.adapt.prompt.cache.cache_file", lambda: tmp_path / "cache" / "answers.sqlite3")
    return tmp_path


def test_every_command_runs_in_the_order_of_the_page(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert len(lines) == 11
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "brolly"
        code = main(words)
        assert code == 0, f"{line}\n{capfd.readouterr().err}"
    told = capfd.readouterr().out
    assert "the interval of the difference" in told or "nothing better was found" in told
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 120


@pytest.mark.parametrize("number", range(sum(kind == "python" for kind, _ in BLOCKS)))
def test_every_program_runs(number: int, folder: Path) -> None:
    text = [text for kind, text in BLOCKS if kind == "python"][number]
    exec(
        compile(text, f"docs/prompt.md, program {number + 1}", "exec", dont_inherit=True),
        {"__name__": f"tutorial_{number}"},
    )


def test_the_file_that_the_page_shows_is_the_example() -> None:
    (shown,) = [tomllib.loads(text) for kind, text in BLOCKS if kind == "toml"]
    there = tomllib.loads((ROOT / "examples" / "prompts" / "who.toml").read_text())
    assert {**there, **shown} == there
