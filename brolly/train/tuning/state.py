"""A run's checkpoints: everything that the next step depends on, written whole or not at all; the last two are kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brolly.checkpoint import Mapped, json_object, read_header, write_safetensors
from brolly.checkpoint.safetensors import write_whole
from brolly.errors import CheckpointError
from brolly.fill import DTYPES
from brolly.train.export import as_bytes
from brolly.train.loop import checkpoints
from brolly.train.tuning.examples import full
from brolly.train.tuning.shared import Learning

WORDS = {kind: word for word, kind in DTYPES.items()}


def tensors_of(parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of what is trained and of its optimiser, by name."""
    found = {f"network.{name}": p.data for name, p in parameters.items()}
    for index, state in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{key}": v for key, v in state.items() if isinstance(v, Tensor)}
    return found


def save(
    out: Path, step: int, parameters: Mapping[str, Tensor], optimizer: Any, made_by: Mapping[str, Any],
    learning: Learning | None = None,
) -> None:  # fmt: skip
    """Write a checkpoint after `step` steps, then delete all but the last two. Raises DiskFull, CheckpointError.

    Where `learning` is shared by processes, its first one leads, and each tensor is whole.
    """

    def shape(name: str, tensor: Tensor) -> tuple[int, ...]:
        return learning.shape(name, tensor) if learning else tuple(tensor.shape)

    def data(name: str, tensor: Tensor) -> bytearray:
        return as_bytes(learning.whole(name, tensor) if learning else tensor, tensor.dtype)

    final = out / f"step-{step:08d}"
    part = out / f".{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        rows = [
            (name, WORDS[t.dtype], shape(name, t), partial(data, name, t))
            for name, t in tensors_of(parameters, optimizer).items()
        ]
        write_safetensors(part / "state.safetensors", rows)
        said = json.dumps({"step": step, "made_by": made_by}).encode()
        write_whole(part / "state.json", lambda: [said], len(said))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
    except OSError as error:
        raise full(error, final) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    forget(out, 2)


def forget(out: Path, keep: int) -> None:
    """Delete all checkpoints but the last so many, and what a kill left half written or half deleted."""
    kept = checkpoints(out)[-keep:] if keep else []
    for old in out.glob("step-" + "[0-9]" * 8):
        if old not in kept:
            (old / "state.json").unlink(missing_ok=True)  # first: what is half deleted is no checkpoint
            shutil.rmtree(old, ignore_errors=True)
    for old in out.glob(".step-*.part"):
        shutil.rmtree(old, ignore_errors=True)


def restore(
    out: Path, parameters: Mapping[str, Tensor], optimizer: Any, made_by: Mapping[str, Any],
    learning: Learning | None = None,
) -> int:  # fmt: skip
    """Take up the last checkpoint, where there is one; the number of steps behind it. Raises CheckpointError."""
    found = checkpoints(out)
    if not found:
        return 0
    said = json_object(found[-1] / "state.json")
    step, before = said.get("step"), said.get("made_by")
    if type(step) is not int or not isinstance(before, dict):
        raise CheckpointError(f"{found[-1] / 'state.json'} is broken; delete {found[-1]} to go on from the one before.")
    changed = [key for key in made_by if before.get(key) != made_by[key]]
    if changed:
        raise CheckpointError(
            f"{found[-1]} was made with another {changed[0]} ({before.get(changed[0])!r:.80}, now "
            f"{made_by[changed[0]]!r:.80}); resume with what it began with, or give another --out."
        )
    begin(optimizer)
    header, expected = read_header(found[-1] / "state.safetensors"), tensors_of(parameters, optimizer)
    stored = {name: (info.dtype, tuple(info.shape)) for name, info in header.tensors.items()}
    if stored != {
        name: (WORDS[t.dtype], learning.shape(name, t) if learning else tuple(t.shape)) for name, t in expected.items()
    }:
        raise CheckpointError(f"{found[-1]} does not fit this model and optimiser; give another --out.")
    with Mapped(header) as mapped:
        for name, tensor in expected.items():
            info = header.tensors[name]
            if tensor.numel():
                numbers = torch.frombuffer(bytearray(mapped.buffer(info)), dtype=tensor.dtype).view(info.shape)
                tensor.copy_(learning.rows(name, numbers) if learning else numbers)
    return step


@torch.no_grad()
def begin(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimiser's state, without moving what it trains: its tensors are replaced by a checkpoint's next."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
