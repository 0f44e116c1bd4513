"""AdamW (Loshchilov and Hutter 2019) whose two moments take little memory: in 8 bits each, or somewhere else.

In 8 bits (Dettmers et al. 2021) up to 256 numbers of a row share their largest magnitude, and each becomes the nearest
of 256 levels. A second moment above 0 never becomes 0, which would make its step huge. Vectors and parameters of
fewer than 4096 numbers keep theirs whole. n numbers of a block, R rows, B blocks of each.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import prod, sqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adamw import adamw

from brolly.errors import OptionError
from brolly.kernels import adam8
from brolly.layers.quantized import dynamic_levels
from brolly.train.tuning.examples import full
from brolly.verbs import TuneOptions

BLOCK = 256
LEAST = 4096  # numbers of a parameter whose moments are in 8 bits
BETAS, EPS = (0.9, 0.999), 1e-8


def make(trained: Sequence[Tensor], asked: TuneOptions, lr: float, folder: Path) -> torch.optim.Optimizer:
    """What moves the numbers; a file in `folder` may keep what it remembers. Raises OptionError, DiskFull."""
    for p in trained:
        p.data = p.data.contiguous()  # those of GPT-2 are transposed views
    match asked.optimizer:
        case "adamw":
            return torch.optim.AdamW(trained, lr=lr, weight_decay=asked.weight_decay, fused=True)
        case "adamw8bit":
            return AdamW8bit(trained, lr, asked.weight_decay)
        case "adamw-offload":
            return AdamWOffload(trained, lr, asked.weight_decay, folder)
    raise OptionError(f"optimizer is {asked.optimizer!r}; expected adamw, adamw8bit or adamw-offload.")


def bytes_of(parameters: Sequence[Tensor], optimizer: str) -> int:
    """What an optimiser remembers of some parameters, in the memory where they are."""
    if optimizer == "adamw-offload":
        return 0
    if optimizer == "adamw":
        return 8 * sum(p.numel() for p in parameters)
    return sum(
        8 * p.numel() if whole_moments(p) else 2 * (p.numel() + 4 * prod(blocks_of(p))) for p in parameters
    )  # fmt: skip


class AdamW8bit(torch.optim.Optimizer):
    """AdamW with both moments in 8 bits. `state[p]`: codes as p has numbers, and magnitudes (R, B)."""

    def __init__(self, trained: Sequence[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(trained, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group, p in learnt(self):
            state: dict[str, Any] = self.state[p]
            if not state:
                state["step"] = torch.zeros(())
                for name in ("mean", "square"):
                    if whole_moments(p):
                        state[name] = torch.zeros_like(p)
                    else:
                        state[name] = torch.full_like(p, zero_of(name), dtype=torch.uint8)
                        state[f"{name}_most"] = torch.zeros(blocks_of(p), device=p.device)
            state["step"] += 1
            if state["mean"].dtype != torch.uint8:
                whole(p, state["mean"], state["square"], state["step"], group)
            else:
                eighth(p, state, group)


def whole_moments(p: Tensor) -> bool:
    """Whether its moments are no codes; of a shared parameter, however few rows are here."""
    return getattr(p, "n_whole", p.numel()) < LEAST or p.dim() < 2


def learnt(optimizer: torch.optim.Optimizer) -> Iterator[tuple[dict[str, Any], Tensor]]:
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                yield group, p


def whole(p: Tensor, mean: Tensor, square: Tensor, step: Tensor, group: dict[str, Any]) -> None:
    """torch's own step of one parameter, `step` counted already."""
    assert p.grad is not None
    before = step.to(p.device) - 1
    adamw(
        [p], [p.grad], [mean], [square], [], [before], fused=True, amsgrad=False, beta1=BETAS[0], beta2=BETAS[1],
        lr=group["lr"], weight_decay=group["weight_decay"], eps=EPS, maximize=False,
    )  # fmt: skip


def blocks_of(p: Tensor) -> tuple[int, int]:
    """Rows, and blocks of each."""
    return p.shape[0], -(-(p.numel() // max(p.shape[0], 1)) // BLOCK)


def eighth(p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """A step of a parameter with moments in 8 bits, some rows at a time."""
    assert p.grad is not None and p.is_contiguous()
    count = float(state["step"])
    faded = 1 - BETAS[0] ** count, sqrt(1 - BETAS[1] ** count)
    rate, kept = group["lr"] / faded[0], 1 - group["lr"] * group["weight_decay"]
    rows, n_blocks = blocks_of(p)
    parts = [t.view(rows, -1) for t in (p, p.grad.contiguous(), state["mean"], state["square"])]
    most = [state["mean_most"], state["square_most"]]
    how = rate, kept, faded[1] * EPS, faded[1]
    if adam8.step([*parts, *most], how, tables(), BETAS, BLOCK):
        return
    size = max(2**20 // max(parts[0].shape[1], 1), 1)
    for some in zip(*(t.split(size) for t in (*parts, *most)), strict=True):
        by_torch(some, how)


def by_torch(given: Sequence[Tensor], how: tuple[float, float, float, float]) -> None:
    """The same as the kernel, in float32: p, grad and both moments' codes (R, C), their magnitudes (R, B)."""
    p, grad, mean, square, mean_most, square_most = given
    rate, kept, eps, faded = how
    m, v = numbers(mean, mean_most, "mean"), numbers(square, square_most, "square")
    g = grad.float()
    m = m * BETAS[0] + g * (1 - BETAS[0])
    v = v * BETAS[1] + g * g * (1 - BETAS[1])
    p.copy_(p.float() * kept - rate * faded * m / (v.sqrt() + eps))
    for codes, most, values, name in ((mean, mean_most, m, "mean"), (square, square_most, v, "square")):
        found, scale = coded(values, name)
        codes.copy_(found)
        most.copy_(scale)


@lru_cache(1)
def positive_levels() -> Tensor:
    """The 256 levels of a dynamic 8-bit number that is never below 0, rising."""
    found = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (exponent + 1) + 1, dtype=torch.float32)
        found += ((edges[:-1] + edges[1:]) / 2 * 10 ** (exponent - 6)).tolist()
    return torch.tensor(sorted(found), dtype=torch.float32)


def levels_of(name: str) -> Tensor:
    return dynamic_levels() if name == "mean" else positive_levels()


@lru_cache(2)
def zero_of(name: str) -> int:
    return int((levels_of(name) == 0).nonzero())


@lru_cache(2)
def middles_of(name: str) -> Tensor:
    levels = levels_of(name)
    return (levels[:-1] + levels[1:]) / 2


@lru_cache(1)
def tables() -> list[tuple[Tensor, Tensor, Tensor]]:
    """For the kernel, of either moment: levels, middles and infinity, and the code of the least number whose first 16
    bits are so, which another in the same 16 bits is at most one above."""
    found = []
    for name in ("mean", "square"):
        first = (torch.arange(2**16, dtype=torch.int32) << 16).view(torch.float32)
        last = ((torch.arange(2**16, dtype=torch.int32) << 16) | 0xFFFF).view(torch.float32)
        codes = torch.bucketize(torch.minimum(first, last).nan_to_num(), middles_of(name)).to(torch.uint8)
        found.append((levels_of(name), torch.cat([middles_of(name), torch.tensor([torch.inf])]), codes))
    return found


def numbers(codes: Tensor, most: Tensor, name: str) -> Tensor:
    """Codes (R, C) and magnitudes (R, B) as numbers (R, C)."""
    levels = levels_of(name).to(codes.device)
    scale = most.repeat_interleave(BLOCK, dim=1)[:, : codes.shape[1]]
    return levels[codes.int()] * scale


def coded(values: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Codes (R, C) and magnitudes (R, B) of numbers (R, C)."""
    blocks = F.pad(values, (0, -values.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    most = blocks.abs().amax(2)
    scaled = (blocks * (1 / most.clamp_min(1e-38))[..., None]).flatten(1)[:, : values.shape[1]]
    codes = torch.bucketize(scaled, middles_of(name).to(values.device)).to(torch.uint8)
    if name == "square":
        codes = codes.maximum((values > 0).to(torch.uint8))
    return codes, most


class AdamWOffload(torch.optim.Optimizer):
    """AdamW whose moments are in a file of `folder`, or, beside a GPU, in the computer's memory; the same numbers.

    The file has no name, so that nothing is left of it when the process ends. Raises DiskFull.
    """

    def __init__(self, trained: Sequence[Tensor], lr: float, weight_decay: float, folder: Path) -> None:
        super().__init__(trained, {"lr": lr, "weight_decay": weight_decay})
        self.memory: mmap.mmap | None = None
        parameters = [p for group in self.param_groups for p in group["params"]]
        n = sum(map(room, parameters))
        near = all(p.device.type == "cpu" for p in parameters)
        self.kept = self.file(2 * n * 4, folder) if near and n else torch.zeros(2 * n, pin_memory=not near and n > 0)
        at = 0
        for p in parameters:
            state: dict[str, Any] = self.state[p]
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = self.kept[at : at + p.numel()].view(p.shape)
                at += room(p)

    def file(self, n_bytes: int, folder: Path) -> Tensor:
        """Numbers of a new file, mapped: 0 each."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, n_bytes)  # now, where a full disk is an error and no signal
                else:
                    file.truncate(n_bytes)
                self.memory = mmap.mmap(file.fileno(), n_bytes)
        except OSError as error:
            raise full(error, folder) from None
        return torch.frombuffer(self.memory, dtype=torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group, p in learnt(self):
            state = self.state[p]
            state["step"] += 1
            kept = [state["exp_avg"], state["exp_avg_sq"]]
            near = [t.to(p.device, non_blocking=True) for t in kept]
            whole(p, near[0], near[1], state["step"], group)
            for far, moved in zip(kept, near, strict=True):
                if far is not moved:
                    far.copy_(moved)
            self.give_back(kept)

    def give_back(self, kept: Sequence[Tensor]) -> None:
        """The pages of some moments, which are in the file."""
        if self.memory is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        begin = min(t.data_ptr() for t in kept) - self.kept.data_ptr()
        end = max(t.data_ptr() + t.nbytes for t in kept) - self.kept.data_ptr()
        begin = begin // mmap.PAGESIZE * mmap.PAGESIZE
        self.memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def room(p: Tensor) -> int:
    """Numbers that a moment takes: whole pages, so that each is given back alone."""
    step = mmap.PAGESIZE // 4
    return -(-p.numel() // step) * step
