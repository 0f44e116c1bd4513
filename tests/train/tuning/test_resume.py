"""A tuning that was stopped anywhere, by anything, goes on to the very bits of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint import read_header
from brolly.errors import CheckpointError, RecipeError
from brolly.train.export import read_log
from brolly.train.tuning import tune
from brolly.train.tuning.state import checkpoints
from brolly.train.tuning.tune import Stopped
from brolly.verbs import Lora
from tests.run.checkpoints import write_llama
from tests.train.tuning.bases import facts, write_rows

HOW: dict[str, Any] = {"lora": Lora(rank=2, dropout=0.2), "steps": 8, "batch": 3, "save_every": 2, "held_out": 0.1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base")
    write_llama(folder, num_hidden_layers=1)
    write_rows(folder / "data.jsonl", facts(25))
    return folder


def go(base: Path, out: Path, **changes: Any) -> None:
    how = HOW | changes
    tune(base, base / "data.jsonl", out=out, resume=True, device="cpu", **how)


def assert_same_run(out: Path, whole: Path) -> None:
    """What was learnt, byte for byte, and every number that no clock decides."""

    def log(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in read_log(folder / "log.jsonl")]

    assert log(out) == log(whole)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    left = {p.name for p in out.iterdir() if not p.name.startswith("events.")}
    assert left == {p.name for p in whole.iterdir() if not p.name.startswith("events.")}


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    go(base, out)
    return out


# Kills: real processes, forked from a server that has torch loaded, and a real SIGKILL.


def run_and_die(base: Path, out: Path, at: int, changes: dict[str, Any]) -> None:
    """Resume a run, and kill this process when it is about to change the file system for the `at`-th time."""
    import torch

    torch.set_num_threads(1)
    n = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n
        changing = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if changing or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            n += 1
            if n == at:
                os.kill(os.getpid(), signal.SIGKILL)

    if at:
        sys.addaudithook(watch)
    go(base, out, **changes)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["brolly.train.tuning", "torch._dynamo", "tokenizers", "tqdm", "jinja2"])
    yield context


def run(server: Any, base: Path, out: Path, at: int = 0, **changes: Any) -> int:
    process = server.Process(target=run_and_die, args=(base, out, at, changes))
    process.start()
    process.join(120)
    return int(process.exitcode)


def test_killed_before_a_change_of_files_it_resumes(server: Any, base: Path, whole: Path, tmp_path: Path) -> None:
    """The same folder, killed again and again, each time a little later."""
    draw, kills, before = random.Random(0), 0, 0
    out = tmp_path / "killed"
    for _ in range(6):
        ended = run(server, base, out, draw.randrange(1, 30))
        kills += ended == -signal.SIGKILL
        assert ended in (0, -signal.SIGKILL)
        for folder in checkpoints(out):
            assert any(name.startswith("optimizer.") for name in read_header(folder / "state.safetensors").tensors)
        done = int(checkpoints(out)[-1].name[5:]) if checkpoints(out) else 0
        assert done >= before or (out / "run.json").exists()
        before = done
        if ended == 0:
            break
    assert kills > 2
    assert run(server, base, out) == 0
    assert_same_run(out, whole)


def test_killed_at_a_random_time_it_resumes(server: Any, base: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    assert run(server, base, tmp_path / "whole", steps=24) == 0
    took, draw, out, kills = time.monotonic() - start, random.Random(1), tmp_path / "killed", 0
    for _ in range(2):
        process = server.Process(target=run_and_die, args=(base, out, 0, {"steps": 24}))
        process.start()
        process.join(draw.uniform(0.2, 0.9) * took)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills
    assert run(server, base, out, steps=24) == 0
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_next_goes_on(base: Path, whole: Path, tmp_path: Path, number: int) -> None:
    assert threading.current_thread() is threading.main_thread()

    def send(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"saved after step 3 of 8; go on with --resume and --out .*out") as stop:
        tune(base, base / "data.jsonl", out=tmp_path / "out", device="cpu", progress=send, **HOW)
    assert stop.value.step == 3 and [p.name for p in checkpoints(tmp_path / "out")] == [
        "step-00000002",
        "step-00000003",
    ]
    assert signal.getsignal(number) is before
    go(base, tmp_path / "out")
    assert_same_run(tmp_path / "out", whole)


def test_what_was_begun_otherwise_is_not_resumed(base: Path, tmp_path: Path) -> None:
    def send(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        tune(base, base / "data.jsonl", out=tmp_path / "out", device="cpu", progress=send, **HOW)
    with pytest.raises(RecipeError, match="holds an earlier run; go on with --resume"):
        tune(base, base / "data.jsonl", out=tmp_path / "out", device="cpu", **HOW)
    with pytest.raises(CheckpointError, match="was made with another adapter"):
        go(base, tmp_path / "out", lora=Lora(rank=4))
    with pytest.raises(CheckpointError, match="was made with another seed"):
        go(base, tmp_path / "out", seed=1)
    (checkpoints(tmp_path / "out")[-1] / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is broken; delete"):
        go(base, tmp_path / "out")


def test_full_tuning_resumes_too(base: Path, tmp_path: Path) -> None:
    how = HOW | {"lora": None, "steps": 4, "weight_decay": 0.1}

    def send(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    tune(base, base / "data.jsonl", out=tmp_path / "whole", **how)
    with pytest.raises(Stopped):
        tune(base, base / "data.jsonl", out=tmp_path / "cut", progress=send, **how)
    tune(base, base / "data.jsonl", out=tmp_path / "cut", resume=True, **how)
    first, second = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "cut"))
    assert first == second
