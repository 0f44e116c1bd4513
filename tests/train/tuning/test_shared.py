"""Two processes learn as one does: with a network each or with half of it each; and go on where the other left off."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from brolly.errors import OptionError
from brolly.train.tuning import tune
from brolly.train.tuning.launch import launch
from brolly.train.tuning.memory import Memory
from brolly.train.tuning.shared import World, check, needed
from tests.run.checkpoints import write_llama
from tests.train.tuning.bases import WRITE, facts, write_rows
from tests.train.tuning.two import HOW, RUNS


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run by one process and by two."""
    pytest.importorskip("transformers")
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    folder = tmp_path_factory.mktemp("shared")
    write_llama(folder / "llama", tie_word_embeddings=True, initializer_range=0.05)
    WRITE["gpt2"](folder / "gpt2")
    data = write_rows(folder / "d.jsonl", facts(45))
    for name, (base, options) in RUNS.items():
        tune(folder / base, data, out=folder / "one" / name, **HOW | options | {"shard": False})
    whole = HOW | RUNS["full, sharded"][1] | {"shard": False}

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tune(folder / "llama", data, out=folder / "begun by one", save_every=2, progress=stop, **whole)
    assert launch(2, [sys.executable, "-m", "tests.train.tuning.two", str(folder)]) == 0
    tune(folder / "llama", data, out=folder / "begun by two", resume=True, **whole)
    return folder


def curve(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row["loss"] if "loss" in row else row["held"]["rows"]["loss"] for row in rows]


def numbers(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(next(path for path in out.iterdir() if path.suffix == ".safetensors"))


def check_same(one: Path, two: Path) -> None:
    assert len(curve(one)) == len(curve(two)) == HOW["steps"] + 2
    assert curve(two) == pytest.approx(curve(one), rel=1e-5)
    expected, found = numbers(one), numbers(two)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=3e-5, msg=name)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_learn_as_one(done: Path, name: str) -> None:
    """Losses of every step and evaluation, and what is written."""
    check_same(done / "one" / name, done / "two" / name)
    assert not list((done / "two" / name).glob("examples*"))


def test_two_go_on_where_one_was_and_one_where_two_were(done: Path) -> None:
    assert [(done / f"stopped {rank}").read_text() for rank in (0, 1)] == ["3", "3"]
    for begun in ("begun by one", "begun by two"):
        check_same(done / "one" / "full, sharded", done / begun)


def test_an_error_in_one_ends_all_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other would sleep for a minute, and then leave a file."""
    monkeypatch.setattr("brolly.train.tuning.launch.PATIENCE", 0.2)
    waits = (
        "import os, sys, time, pathlib\n"
        "if os.environ['RANK'] == '1': sys.exit(3)\n"
        f"time.sleep(60); pathlib.Path({str(tmp_path / 'slept')!r}).touch()"
    )
    assert launch(2, [sys.executable, "-c", waits]) == 3
    assert not (tmp_path / "slept").exists()


def test_what_many_processes_cannot_do_is_told() -> None:
    class Together:
        name, together = "contrastive", True

    class Weighed:
        name, together = "kto", False

    together: Any = Together()
    check(together, World(2, 0), False)  # it gathers the vectors of all
    with pytest.raises(OptionError, match="contrastive is not learnt by a sharded network"):
        check(together, World(2, 0), True)
    objective: Any = Weighed()
    with pytest.raises(OptionError, match="kto is not learnt by a sharded network"):
        check(objective, World(2, 0), True)
    with pytest.raises(OptionError, match="--processes 2"):
        check(objective, World(), True)
    check(objective, World(2, 0), False)


def test_a_network_is_sharded_where_a_step_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of this computer need twice the memory; what cannot be sharded is not."""
    monkeypatch.setattr("brolly.train.tuning.shared.spare", lambda device: 100)
    memory, student = Memory(50, 30, 10, 20, 0), SimpleNamespace(device=torch.device("cpu"))
    run = SimpleNamespace(objective=SimpleNamespace(name="next-token"), network=SimpleNamespace(output=1),
                          memory=memory, student=student)  # fmt: skip
    assert memory.to_come == 60 and needed(run, World(2, 0)) and not needed(run, World())
    assert memory.shared(2).total == 25 + 15 + 5 + 20
    run.objective.name = "kto"
    assert not needed(run, World(2, 0))
