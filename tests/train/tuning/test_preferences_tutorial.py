"""docs/tune-preferences.md holds: its programs and commands run in their order, and what they say comes about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from brolly.cli import main

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "tune-preferences.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [kind for kind, _ in BLOCKS] == ["python", "sh", "python", "python", "sh", "python"]
    for i, (kind, text) in enumerate(BLOCKS):
        if text.startswith("# "):
            Path(text.splitlines()[0].removeprefix("# ")).write_text(text)
        elif kind == "python":
            exec(compile(text, f"docs/tune-preferences.md, block {i}", "exec", dont_inherit=True), {"__name__": "page"})
        else:
            for line in text.splitlines():
                assert main(shlex.split(line)[1:]) == 0, f"{line}\n{capfd.readouterr().err}"
    told = capfd.readouterr().out
    assert "B is better" in told
    base, tuned = re.findall(r"of 24 begin with her, ([\d.]+) to ([\d.]+)", told)
    assert float(base[1]) < float(tuned[0])
    assert re.search(r"^asks  \(loss .*reward (0\.[89]|1\.0)", told, re.MULTILINE)
    assert Path("names-it/adapter_config.json").is_file()
