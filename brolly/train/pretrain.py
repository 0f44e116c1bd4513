"""The pre-training loop. The same script runs alone or under torchrun, where each process takes its share of every batch.

A step is a function of the saved state and the step's number, so a resumed run repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from brolly import models
from brolly.engine.cache import Causal
from brolly.errors import RecipeError
from brolly.train import export, recipe, state, tokens
from brolly.train.optimizer import draw, optimizers, rate
from brolly.train.recipe import Recipe, Training


@dataclass(frozen=True)
class Progress:
    """One step done; `loss` in nats a token, `remaining` in seconds."""

    step: int
    steps: int
    loss: float
    lr: float
    tokens_per_second: float
    remaining: float


@dataclass(frozen=True)
class Evaluation:
    """Held-out loss a source (nats a token) and the same in bits a byte of text."""

    step: int
    loss: dict[str, float]
    bits_per_byte: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """What the network writes at this step."""

    step: int
    text: str


Report = Callable[[Progress | Evaluation | Sample], None]


def pretrain(
    recipe_or_path: Recipe | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    out: Path | None = None,
    data: Path | None = None,
) -> Path:
    """Train by a recipe and return the folder with the model, in Hugging Face's layout.

    `out` defaults to the recipe's name beside the recipe, `data` (where the sources lie) to the recipe's folder.
    """
    r = recipe.read(recipe_or_path) if isinstance(recipe_or_path, Path) else recipe_or_path
    out = out or r.folder / r.name
    with _processes() as (rank, world):
        return _Run(r, out, data or r.folder, rank, world).train(resume, report if rank == 0 else None)


@contextlib.contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """This process's rank and how many there are; joins torchrun's group if there is one."""
    world, mine = int(os.environ.get("WORLD_SIZE", "1")), False
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        mine = True
    try:
        yield (dist.get_rank(), world) if world > 1 else (0, 1)
    finally:
        if mine:
            dist.destroy_process_group()


def native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are done by the hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    try:
        return any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16"))
    except OSError:
        return False


def token_losses(network: Any, cache: Causal, ids: Tensor, precise: bool) -> Tensor:
    """Loss of each next token, nats: ids (B, T + 1) → (B · T)."""
    positions = torch.arange(ids.shape[1] - 1, device=ids.device).expand(ids.shape[0], -1)
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=not precise):
        logits = network.logits(network(ids[:, :-1], positions, cache))
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")


def fitted(function: Callable[..., Any], training: Training) -> Callable[..., Any]:
    """The function compiled, where the recipe wants it and the machine has a compiler; otherwise as it is."""
    if not training.compile:
        return function
    try:
        return torch.compile(function, dynamic=False)
    except RuntimeError:
        return function


class _Run:
    def __init__(self, r: Recipe, out: Path, data: Path, rank: int, world: int) -> None:
        t = r.training
        if t.batch % world:
            raise RecipeError(f"recipe '{r.name}': batch {t.batch} cannot be shared by {world} processes; use a multiple")
        self.recipe, self.out, self.rank, self.world = r, out, rank, world
        self.device = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else torch.device("cpu")
        if rank == 0:
            tokens.prepare(r, data, out)
        if world > 1:
            dist.barrier()
        self.tokenizer, self.training, self.validation = tokens.prepare(r, data, out)
        self.network = models.build(r.config(self.tokenizer.get_vocab_size())).to(self.device)
        draw(self.network, r.model.n_layers, r.seed)
        self.optimizers = optimizers(self.network, t)
        self.batches = tokens.Batches(r, self.training)
        self.precise = t.precision == "float32" or (t.precision == "auto" and not native_bfloat16(self.device))
        self.losses = fitted(token_losses, t)
        self.cache = Causal(self.network.config)
        self.lengths = torch.from_numpy(tokens.byte_lengths(self.tokenizer))
        self.facts = {
            "model": dataclasses.asdict(r.model),
            "optimizer": t.optimizer,
            "context": t.context,
            "data": {name: part.sha256 for name, part in sorted(self.training.items())},
        }

    @property
    def checkpoint(self) -> Path:
        return self.out / "run.safetensors"

    def train(self, resume: bool, report: Report | None) -> Path:
        t, steps = self.recipe.training, self.recipe.steps
        step = self._resume() if resume else 0
        self._trim_metrics(step)
        begun, first = time.perf_counter(), step
        while step < steps:
            lr = self._set_rate(step)
            loss = self._step(step)
            if not math.isfinite(loss):
                raise RecipeError(f"recipe '{self.recipe.name}': the loss is {loss} at step {step}; lower lr ({t.lr})")
            step += 1
            speed = (step - first) * t.batch * t.accumulate * t.context / (time.perf_counter() - begun)
            left = (time.perf_counter() - begun) / (step - first) * (steps - step)
            self._note(report, Progress(step, steps, loss, lr, speed, left))
            if step % t.eval_every == 0 or step == steps:
                self._note(report, self._evaluate(step))
            if step % t.sample_every == 0 and self.rank == 0:
                self._note(report, Sample(step, self._sample(step)))
            if (step % t.checkpoint_every == 0 or step == steps) and self.rank == 0:
                state.save(self.checkpoint, self.network, self.optimizers, {**self.facts, "step": step})
        if self.rank == 0:
            export.folder(self.out, self.network, self.recipe, self.tokenizer)
            with contextlib.suppress(ImportError):
                from brolly.train.curve import draw_curve

                draw_curve(self.out / "metrics.jsonl", self.out / "curve.png")
        if self.world > 1:
            dist.barrier()
        return self.out

    def _set_rate(self, step: int) -> float:
        lr = self.recipe.training.lr * rate(step, self.recipe.steps, self.recipe.training)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        return lr

    def _step(self, step: int) -> float:
        """One move of the weights; returns the mean loss over all processes."""
        t = self.recipe.training
        mine, total = t.batch // self.world, torch.zeros((), device=self.device)
        for part in range(t.accumulate):
            ids = self.batches(step, part * t.batch + self.rank * mine, mine)
            losses = self.losses(self.network, self.cache, torch.from_numpy(ids).to(self.device), self.precise)
            loss = losses.mean() / t.accumulate
            loss.backward()
            total += loss.detach()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if self.world > 1:
            self._average(gradients, total)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), t.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return float(total)

    def _average(self, gradients: list[Tensor], total: Tensor) -> None:
        """Replace each tensor by its mean over the processes, in one exchange."""
        pieces = [*gradients, total]
        flat = torch.cat([piece.flatten() for piece in pieces])
        dist.all_reduce(flat)
        flat /= self.world
        for piece, mean in zip(pieces, flat.split([piece.numel() for piece in pieces]), strict=True):
            piece.copy_(mean.view_as(piece))

    @torch.no_grad()
    def _evaluate(self, step: int) -> Evaluation:
        t = self.recipe.training
        rows, loss, bits = t.batch // self.world, {}, {}
        for name, part in self.validation.items():
            n_sequences = min(t.eval_sequences, max(1, (len(part.stream) - 1) // t.context))
            nats = counted = n_bytes = 0.0
            for first in range(0, n_sequences, rows):
                ids = np.stack([np.resize(part.stream[i * t.context :][: t.context + 1], t.context + 1)
                                for i in range(first, first + rows)]) if first + rows <= n_sequences else None
                if ids is None:
                    ids = np.stack([np.resize(part.stream[(i % n_sequences) * t.context :][: t.context + 1], t.context + 1)
                                    for i in range(first, first + rows)])
                batch = torch.from_numpy(ids.astype(np.int64)).to(self.device)
                used = (min(rows, n_sequences - first)) * t.context
                losses = self.losses(self.network, self.cache, batch, self.precise)[:used]
                nats += float(losses.double().sum())
                counted += used
                n_bytes += float(self.lengths[batch[:, 1:].flatten().cpu()][:used].sum())
            loss[name], bits[name] = nats / counted, nats / math.log(2) / max(1.0, n_bytes)
        return Evaluation(step, loss, bits)

    def _sample(self, step: int) -> str:
        from brolly.train.sample import write_on

        prompt = self.recipe.training.sample_prompt
        ids = self.tokenizer.encode(prompt).ids
        end = self.tokenizer.token_to_id(tokens.END)
        more = write_on(self.network, ids, min(200, self.recipe.training.context - len(ids)), end, seed=step)
        return prompt + self.tokenizer.decode(more)

    def _resume(self) -> int:
        if not self.checkpoint.exists():
            return 0
        facts = state.restore(self.checkpoint, self.network, self.optimizers)
        for key, now in self.facts.items():
            if facts.get(key) != json.loads(json.dumps(now)):
                raise RecipeError(
                    f"{self.checkpoint}: its {key} is {facts.get(key)}, the recipe's is {now}; "
                    "train into another folder, or put the recipe back"
                )
        return int(facts["step"])

    def _trim_metrics(self, step: int) -> None:
        """Drop what an interrupted run noted after its last checkpoint."""
        path = self.out / "metrics.jsonl"
        if self.rank or not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                if json.loads(line)["step"] <= step and step:
                    kept.append(line + "\n")
        part = path.with_suffix(".part")
        part.write_text("".join(kept), encoding="utf-8")
        os.replace(part, path)

    def _note(self, report: Report | None, event: Progress | Evaluation | Sample) -> None:
        if self.rank:
            return
        with open(self.out / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": type(event).__name__.lower(), **dataclasses.asdict(event)}) + "\n")
        if report:
            report(event)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
