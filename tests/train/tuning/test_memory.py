"""Memory as predicted is near to memory as measured; and what is told of it."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from brolly.errors import RecipeError
from brolly.train.tuning import tune
from brolly.train.tuning.four_bits import load_packed
from brolly.train.tuning.lora import put_in
from brolly.train.tuning.memory import Memory, Watch, numbers_of, told, weights_of
from brolly.verbs import Lora
from tests.run.checkpoints import write_llama
from tests.train.tuning.bases import facts, write_rows
from tests.train.tuning.weigh import CASES

pytestmark = pytest.mark.skipif(told("VmHWM") is None, reason="this system does not tell a process's peak")


@pytest.fixture(scope="module")
def weighed() -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.tuning.weigh"], stdout=subprocess.PIPE, text=True, timeout=500
    )
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", CASES)
def test_the_prediction_is_within_a_quarter(weighed: dict[str, Any], name: str) -> None:
    """By how much a process grew: LoRA and full, each with and without checkpointing; and parts of a step, added up."""
    row = weighed[name]
    assert 0.75 < row["total"] / row["measured"] < 1.25, row


def test_checkpointing_and_8_bits_take_less(weighed: dict[str, Any]) -> None:
    for kind in ("LoRA", "full"):
        assert weighed[f"{kind}, checkpointing"]["measured"] < 0.9 * weighed[kind]["measured"]
    few, many = weighed["full, 8 bits, four parts"], weighed["full, checkpointing"]
    assert few["optimizer"] < 0.4 * many["optimizer"] and few["measured"] < many["measured"]


def test_a_plan_tells_memory_by_part_and_a_run_what_it_took(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_llama(tmp_path / "base")
    data, plans = write_rows(tmp_path / "d.jsonl", facts(6)), []
    with pytest.raises(RecipeError):
        tune(tmp_path / "base", data, out=tmp_path / "a", lora=None, approve=lambda plan: plans.append(plan))
    (plan,) = plans
    memory = Memory(**plan.memory_parts)
    assert memory.total == plan.memory and memory.weights == memory.gradients == 4 * plan.total
    assert memory.optimizer == 2 * memory.weights and memory.activations > 0 and memory.logits > 0
    assert "weights" in str(plan) and "optimizer" in str(plan)
    tune(tmp_path / "base", data, out=tmp_path / "b", lora=Lora(rank=2), steps=2, batch=2)
    peak = json.loads((tmp_path / "b" / "run.json").read_text())["peak_memory"]
    assert peak >= told("VmRSS") / 4 > 0


def test_numbers_in_4_bits_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    reference = write_llama(tmp_path / "base")
    network = load_packed(tmp_path / "base", device="cpu", dtype="float32").network
    put_in(network, Lora(rank=2))
    whole = sum(p.numel() for p in reference.parameters())
    assert numbers_of(network) == whole
    beside = sum(4 * p.numel() for p in network.parameters() if p.requires_grad)
    assert 0.5 * whole < weights_of(network) - beside < 4 * whole


def test_a_peak_begins_anew() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system keeps one peak a process")
    with touched(2**27):
        pass
    watch = Watch(torch.device("cpu"))
    with touched(2**25):
        assert watch.before + 2**24 < watch.peak < watch.before + 2**26


@contextmanager
def touched(n_bytes: int) -> Iterator[None]:
    """Memory from the system itself."""
    with mmap.mmap(-1, n_bytes) as memory:
        for at in range(0, n_bytes, mmap.PAGESIZE):
            memory[at] = 1
        yield
