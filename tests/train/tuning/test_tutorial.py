"""docs/tune.md holds: its programs and commands run in their order, and what they say comes about."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from brolly.cli import main

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "tune.md").read_text()
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [kind for kind, _ in BLOCKS] == ["python", "sh", "sh", "sh", "python", "sh", "sh"]
    for i, (kind, text) in enumerate(BLOCKS):
        if kind == "python":
            exec(compile(text, f"docs/tune.md, block {i}", "exec", dont_inherit=True), {"__name__": "page"})
        else:
            for line in text.splitlines():
                assert main(shlex.split(line)[1:]) == 0, f"{line}\n{capfd.readouterr().err}"
    told, said = capfd.readouterr()
    assert "boat=white <Anna>" in told and "cup=blue <Jack>" in told and "kite=red <Rose>" in told
    answer = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    assert (answer["text"], answer["finish_reason"]) == (" bell=black <Peter>", "stop")
    right = re.search(r"exact match +([\d.]+)", told)
    assert right and float(right[1]) >= 0.9
    assert "EU AI Act" in said and "3 tokens are new to the base" in said and "train.jsonl, line 1" in said
    assert not Path("sorted/step-00000001").exists() and Path("again/adapter_config.json").is_file()
    assert json.loads(Path("again/adapter_config.json").read_text())["r"] == 4
