"""A run that was stopped anywhere, by anything, goes on to the very bits of a run that was not."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint import read_header
from brolly.cli import main
from brolly.train import pretrain
from brolly.train.export import read_log
from brolly.train.loop import checkpoints
from tests.train.tiny import log, stories, write_recipe

SMALL: dict[str, Any] = {"model_dim": 16, "model_n_layers": 1, "model_hidden_dim": 16, "train_batch": 2}
WAYS = {
    "adamw": {},
    "muon": {"train_optimizer": "muon"},
    "bfloat16": {"train_dtype": "bfloat16"},
    "accumulate": {"train_accumulate": 4, "train_schedule": "linear"},
}


def assert_same_run(out: Path, whole: Path) -> None:
    """Weights, optimiser, loss log, picture and exported folder, all byte for byte (speeds apart)."""
    assert log(out) == log(whole)
    last = checkpoints(whole)[-1].name
    files = [f"{last}/state.safetensors", f"{last}/state.json", "loss.svg"]
    for name in [*files, *(f"model/{p.name}" for p in (whole / "model").iterdir())]:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_is_the_uninterrupted_one(way: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **WAYS[way], train_sample_every=10)
    pretrain(recipe, out=tmp_path / "whole")
    assert [p.name for p in checkpoints(tmp_path / "whole")] == ["step-00000015", "step-00000020"]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "step-00000020")
    shutil.rmtree(tmp_path / "cut" / "model")
    pretrain(recipe, out=tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_resuming_a_finished_run_only_exports_again(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, train_steps=4)
    pretrain(recipe, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    pretrain(recipe, out=tmp_path / "again", resume=True)
    assert_same_run(tmp_path / "again", tmp_path / "whole")


def names(out: Path) -> list[str]:
    return sorted(str(p.relative_to(out)) for p in out.rglob("*"))


# Kills: real processes, forked from a server that has torch loaded, and a real SIGKILL.


def run_and_die(recipe: Path, out: Path, at: int) -> None:
    """Resume a run, and kill this process when it is about to change the file system for the `at`-th time."""
    n = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n
        changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if changes or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            n += 1
            if n == at:
                os.kill(os.getpid(), signal.SIGKILL)

    if at:
        sys.addaudithook(watch)
    pretrain(recipe, out=out, resume=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["brolly.train.loop", "torch._dynamo", "tokenizers", "tqdm"])
    yield context


def run(server: Any, recipe: Path, out: Path, at: int = 0) -> int:
    process = server.Process(target=run_and_die, args=(recipe, out, at))
    process.start()
    process.join(120)
    return process.exitcode


def steps_done(out: Path) -> int:
    """The step of the last checkpoint; every folder that counts as a checkpoint must be whole."""
    for folder in checkpoints(out):
        header = read_header(folder / "state.safetensors")  # raises unless every tensor's bytes are there
        assert any(name.startswith("optimizer0.") for name in header.tensors)
    return int(checkpoints(out)[-1].name[5:]) if checkpoints(out) else 0


def test_killed_before_any_change_of_the_file_system_it_resumes(server: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, stories(20), **SMALL, train_steps=3, train_save_every=1, train_eval_every=2)
    assert run(server, recipe, tmp_path / "whole") == 0
    at, before = 0, 0
    while True:
        at += 1
        out = tmp_path / f"killed-{at}"
        if (ended := run(server, recipe, out, at)) == 0:
            break
        assert ended == -signal.SIGKILL
        assert steps_done(out) >= before  # a later kill never finds less
        before = steps_done(out)
        assert run(server, recipe, out) == 0
        assert_same_run(out, tmp_path / "whole")
        assert names(out) == names(tmp_path / "whole"), "something of the killed run is left over"
    assert at > 40 and before == 3


def test_killed_at_random_times_it_resumes_and_loses_no_more_than_was_not_saved(server: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, **SMALL, train_steps=60, train_save_every=3)
    start = time.monotonic()
    assert run(server, recipe, tmp_path / "whole") == 0
    took, draw, out, kills = time.monotonic() - start, random.Random(0), tmp_path / "killed", 0
    for _ in range(8):
        process = server.Process(target=run_and_die, args=(recipe, out, 0))
        process.start()
        process.join(draw.uniform(0, took / 2))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if (out / "log.jsonl").exists():
            logged = [row["step"] for row in read_log(out / "log.jsonl") if "loss" in row]
            assert logged == list(range(1, len(logged) + 1))
            assert len(logged) - steps_done(out) <= 3
    assert kills >= 2
    assert run(server, recipe, out) == 0
    assert_same_run(out, tmp_path / "whole")


# Refusals


def refused(recipe: Path, out: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["pretrain", str(recipe), "--out", str(out), *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_another_run_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = write_recipe(tmp_path, **SMALL, train_steps=1), tmp_path / "out"
    pretrain(recipe)
    before = names(out)
    assert "go on with --resume, or give another --out" in refused(recipe, out, capsys)
    assert names(out) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"text": stories(81)},
        {"model_dim": 32},
        {"train_seed": 1},
        {"tokenizer_vocab_size": 301},
        {"data_held_out": 0.2},
    ],
    ids=["text", "model", "seed", "tokenizer", "held out"],
)
def test_a_changed_run_is_not_resumed(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(write_recipe(tmp_path, **SMALL, train_steps=1))
    recipe = write_recipe(tmp_path, **SMALL | {"train_steps": 2} | changes)
    said = refused(recipe, tmp_path / "out", capsys, "--resume")
    assert "was made by another model, seed, tokenizer or text; give another --out." in said


def test_another_optimizer_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(write_recipe(tmp_path, **SMALL, train_steps=1))
    recipe = write_recipe(tmp_path, **SMALL, train_steps=2, train_optimizer="muon")
    assert "does not fit this recipe's network and optimizer" in refused(recipe, tmp_path / "out", capsys, "--resume")


def test_a_vanished_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, **SMALL, train_steps=1)
    pretrain(recipe)
    (tmp_path / "text.txt").unlink()
    assert "text.txt, which does not exist" in refused(recipe, tmp_path / "out", capsys, "--resume")


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused(
    name: str, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path, **SMALL, train_steps=1), tmp_path / "out"
    pretrain(recipe)
    path = out / "step-00000001" / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "step-00000001" in refused(recipe, out, capsys, "--resume")
