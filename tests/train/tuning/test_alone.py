"""Two runs do not write into one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from brolly.errors import NotFound, RecipeError
from brolly.train.tuning import tune
from brolly.train.tuning.alone import alone
from tests.train.tuning.bases import facts, write_rows

pytest.importorskip("fcntl")


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", facts(4))
    (tmp_path / "out").mkdir()
    with alone(tmp_path / "out"), pytest.raises(RecipeError, match="another run"):
        tune("mini-llm", data, out=tmp_path / "out", steps=1)
    for _ in range(2):  # and is free again whatever became of it
        with pytest.raises(NotFound, match="absent"):
            tune("mini-llm", tmp_path / "absent.jsonl", out=tmp_path / "out", steps=1)
    assert tune("mini-llm", data, out=tmp_path / "out", steps=1, batch=1).steps == 1


def test_of_many_processes_the_first_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with alone(tmp_path):
            pass
