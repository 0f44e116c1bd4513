"""The loop: every optimiser learns, accumulation and many processes give the loss of one plain batch."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from brolly.cli import main
from brolly.train import pretrain
from brolly.train.loop import checkpoints
from brolly.train.recipe import Run, read_recipe
from tests.train.tiny import log, losses, write_recipe


@pytest.mark.parametrize(
    "changes",
    [{}, {"train_optimizer": "muon"}, {"train_schedule": "linear"}, {"train_dtype": "bfloat16"}],
    ids=["adamw", "muon", "linear", "bfloat16"],
)
def test_the_loss_falls_from_chance_on_text_held_out_too(changes: dict[str, Any], tmp_path: Path) -> None:
    pretrain(write_recipe(tmp_path, train_lr=1e-2, train_steps=60, **changes))
    found = dict(losses(tmp_path / "out"))
    held = [row["held"]["text"] for row in log(tmp_path / "out") if "held" in row]
    assert abs(found[1] - math.log(300)) < 0.2
    assert found[60] < found[1] - 2
    assert held[-1]["loss"] < held[0]["loss"] - 0.5
    assert 0 < held[-1]["bits_per_byte"] < 8


def test_the_logged_loss_is_the_cross_entropy_of_the_batch(tmp_path: Path) -> None:
    """Step 1 computed again from a checkpoint of step 0's weights, without the loop."""
    from brolly import models
    from brolly.engine.cache import Causal
    from brolly.train.data import Tokens, prepare
    from brolly.train.loop import initialise

    recipe = read_recipe(write_recipe(tmp_path, train_steps=1))
    pretrain(recipe.path)
    config = recipe.model.config(300)
    torch.manual_seed(0)
    network = models.build(config)
    initialise(network, config.n_layers)
    inputs, targets = Tokens(recipe, prepare(recipe)).batch(0, range(8))
    with torch.no_grad():
        chances = network.logits(network(inputs, torch.arange(32).expand(8, 32), Causal(config))).softmax(-1)
    expected = -chances.gather(-1, targets[..., None]).log().mean()
    assert losses(tmp_path / "out") == [(1, pytest.approx(float(expected), abs=1e-5))]


@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulation_equals_the_larger_batch(accumulate: int, tmp_path: Path) -> None:
    pretrain(write_recipe(tmp_path), out=tmp_path / "one")
    pretrain(write_recipe(tmp_path, train_accumulate=accumulate), out=tmp_path / "parts")
    assert_close(tmp_path / "parts", tmp_path / "one")


def assert_close(out: Path, expected: Path) -> None:
    """The same losses, gradient norms and held-out losses, but for the order of float32 sums."""
    ours, theirs = log(out), log(expected)
    assert len(ours) == len(theirs) >= 20
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        assert flat(mine) == pytest.approx(flat(other), rel=1e-3)


def flat(row: dict[str, Any]) -> list[float]:
    return [n for v in row.values() for n in (flat(v) if isinstance(v, dict) else [v])]


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, train_accumulate=2)
    pretrain(recipe, out=tmp_path / "one")
    torchrun(2, recipe, "--out", tmp_path / "two")
    assert_close(tmp_path / "two", tmp_path / "one")
    shutil.rmtree(tmp_path / "two" / "step-00000020")
    pretrain(recipe, out=tmp_path / "two", resume=True)  # by one process, from step 15
    assert_close(tmp_path / "two", tmp_path / "one")


def torchrun(n: int, *arguments: object) -> None:
    command = ["torch.distributed.run", "--standalone", f"--nproc-per-node={n}", "-m", "brolly", "pretrain"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_rate_rises_and_falls_as_the_recipe_says() -> None:
    from brolly.train.loop import pace

    cosine = [pace(s, Run(100, 1, 1.0, warmup=10, floor=0.1)) for s in range(100)]
    linear = [pace(s, Run(100, 1, 1.0, warmup=10, floor=0.1, schedule="linear", decay_from=0.5)) for s in range(100)]
    for rates in (cosine, linear):
        assert rates[0] == pytest.approx(0.1, abs=1e-3) and max(rates) <= 1
        assert all(a < b for a, b in zip(rates[:10], rates[1:10], strict=False))
        assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
        assert 0.1 <= rates[-1] < 0.11
    assert linear[10:50] == [1.0] * 40
    assert cosine[50] == pytest.approx(0.55)


def test_a_loss_that_explodes_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, train_lr=1e12, train_clip=1e12, train_save_every=1)
    assert main(["pretrain", str(recipe)]) == 2
    assert "lower [train] lr or lengthen warmup" in capsys.readouterr().err
    done = len(losses(tmp_path / "out"))
    assert [int(p.name[5:]) for p in checkpoints(tmp_path / "out")] == list(range(1, done + 1))[-2:]
    assert done < 20 and not (tmp_path / "out" / "model").exists()


def test_samples_are_logged(tmp_path: Path) -> None:
    pretrain(write_recipe(tmp_path, train_steps=4, train_sample_every=2, train_sample_prompt="The fox"))
    samples = [row["sample"] for row in log(tmp_path / "out") if "sample" in row]
    assert len(samples) == 2 and all(s.startswith("The fox") for s in samples)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_the_compiled_loss_is_the_plain_one(tmp_path: Path) -> None:
    recipe = {"model_n_layers": 1, "data_held_out": 0}
    pretrain(write_recipe(tmp_path, **recipe), out=tmp_path / "plain")
    pretrain(write_recipe(tmp_path, **recipe, train_compile=True), out=tmp_path / "compiled")
    assert_close(tmp_path / "compiled", tmp_path / "plain")
