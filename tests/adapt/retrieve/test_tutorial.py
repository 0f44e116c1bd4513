"""docs/retrieve.md as written: its blocks are run in their order, and what they are said to print is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "retrieve.md").read_text()
BLOCK = re.compile(r"```(sh|python) run( fails)?\n(.*?)```(?:\n```\n(.*?)```)?", re.DOTALL)


def test_the_page_holds_no_gaps() -> None:
    assert not re.search(r"^(FIGURES|STORES|TEAM|TODO)$", PAGE, re.MULTILINE)


def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="the extra 'retrieve' is not installed")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    command = tmp_path / "bin" / "brolly"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m brolly "$@"\n')
    command.chmod(0o755)
    around = os.environ | {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
    }  # fmt: skip
    blocks = BLOCK.findall(PAGE)
    assert len(blocks) >= 5
    for kind, fails, text, printed in blocks:
        words = ["bash", "-ec", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(words, cwd=tmp_path, env=around, capture_output=True, text=True, timeout=600)
        assert (done.returncode == 0) != bool(fails), f"{text}\n{done.stdout}\n{done.stderr}"
        said = done.stdout.replace(str(tmp_path), ".")
        for line in printed.splitlines():
            assert line.strip() in said, f"{text}\nprinted:\n{said}"
