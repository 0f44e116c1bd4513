"""The pre-training loop: AdamW or Muon, warm-up and decay, clipping, accumulation, bfloat16, atomic checkpoints.

A step is a function of the checkpoint before it and its number; a resumed run repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly import models
from brolly.checkpoint import Mapped, read_header, write_safetensors
from brolly.engine.cache import Causal
from brolly.errors import CheckpointError, RecipeError
from brolly.kernels.pages import keep_memory
from brolly.train.data import Tokens, prepare
from brolly.train.export import as_bytes, export, plot, read_log, write_whole
from brolly.train.recipe import Recipe, Run


def train(recipe: Recipe, *, resume: bool = False) -> Path:
    """Train to the end and export a Hugging Face folder, whose path is returned; under torchrun, one of many."""
    world, rank = join_world()
    keep_memory()
    run = recipe.train
    recipe.out.mkdir(parents=True, exist_ok=True)
    if run.batch % (run.accumulate * world):
        raise RecipeError(
            f"batch {run.batch} is not shared evenly by {world} processes and accumulate {run.accumulate}."
        )
    if not resume and checkpoints(recipe.out):
        raise RecipeError(
            f"{recipe.out} holds checkpoints of an earlier run; go on with --resume, or give another --out."
        )
    if rank == 0:
        prepare(recipe)
    barrier(world)
    folder = prepare(recipe)
    tokens = Tokens(recipe, folder)

    torch.manual_seed(run.seed)
    config = recipe.model.config(recipe.tokenizer.vocab_size)
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )
    network = models.build(config).to(device)
    initialise(network, config.n_layers)
    optimizers = make_optimizers(network, run)
    start = restore(recipe, network, optimizers, folder.name) if resume else 0
    step_loss = make_loss(network, config, recipe, device)

    rows = [r for r in range(run.batch) if r % world == rank]
    size = len(rows) // run.accumulate
    log = Log(recipe, start, quiet=rank != 0)
    for step in range(start, run.steps):
        log.clock = time.perf_counter()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = run.lr * pace(step, run)
        total = torch.zeros((), device=device)
        for part in range(run.accumulate):
            inputs, targets = tokens.batch(step, rows[part * size : (part + 1) * size])
            loss = step_loss(inputs.to(device), targets.to(device)) / run.accumulate
            loss.backward()
            total += loss.detach()
        total = share_gradients(network, total, world)
        norm = nn.utils.clip_grad_norm_(network.parameters(), run.clip)
        if not math.isfinite(float(total)) or not math.isfinite(float(norm)):
            raise RecipeError(
                f"{recipe.path}: the loss is {float(total)} and its gradient {float(norm)} at step {step + 1}; "
                "lower [train] lr or lengthen warmup, and go on with --resume."
            )
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        log.step(step, float(total), float(norm), run.lr * pace(step, run), run.batch * config.context)
        done = step + 1
        if rank == 0 and (done % run.eval_every == 0 or done == run.steps):
            log.held(done, evaluate(tokens, step_loss, recipe, device))
        if rank == 0 and run.sample_every and done % run.sample_every == 0:
            log.sample(done, sample(network, folder, run.sample_prompt, config.context))
        if rank == 0 and (done % run.save_every == 0 or done == run.steps):
            save(recipe, network, optimizers, done, folder.name)
    log.close()
    barrier(world)
    if rank == 0:
        forget(recipe.out)
        plot(recipe.out / "log.jsonl", recipe.out / "loss.svg", recipe.name)
        export(recipe, network, folder / "tokenizer.json")
    leave_world(world)
    return recipe.out / "model"


def initialise(network: nn.Module, n_layers: int) -> None:
    """Normal weights of 0.02, the residual projections less by √(2 n_layers) (Radford 2019); norms 1, biases 0."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2:
            last = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(parameter, 0.0, 0.02 / math.sqrt(2 * n_layers) if last else 0.02)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)


def make_optimizers(network: nn.Module, run: Run) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon (Jordan et al. 2024) for the blocks' matrices and AdamW for the rest."""
    named = list(network.named_parameters())
    matrices = [p for n, p in named if p.dim() == 2 and "embed" not in n] if run.optimizer == "muon" else []
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    out: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=run.lr, betas=(0.9, 0.95), weight_decay=run.weight_decay, fused=True)
    ]
    if matrices:
        decay = 5 * run.weight_decay
        out.append(torch.optim.Muon(matrices, lr=run.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return out


def pace(step: int, run: Run) -> float:
    """The learning rate's share at a step: up over `warmup`, then down by cosine or, from decay_from, a line."""
    rise = min(1.0, (step + 1) / max(run.warmup, 1))
    at = step / run.steps
    if run.schedule == "cosine":
        return rise * (run.floor + (1 - run.floor) * 0.5 * (1 + math.cos(math.pi * at)))
    return rise * (1.0 if at < run.decay_from else max(run.floor, 1 - (at - run.decay_from) / (1 - run.decay_from)))


def make_loss(
    network: nn.Module, config: Any, recipe: Recipe, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean next-token cross-entropy of (B, T) inputs and targets; compiled where a compiler is at hand."""
    half = recipe.train.dtype == "bfloat16"

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        places = torch.arange(inputs.shape[1], device=inputs.device).expand(inputs.shape[0], -1)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = network.logits(network(inputs, places, Causal(config)))  # type: ignore[operator]
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    able = recipe.train.compile and any(map(shutil.which, ("g++", "clang++")))
    return torch.compile(loss, dynamic=False) if able else loss


@torch.no_grad()
def evaluate(
    tokens: Tokens, loss: Callable[[Tensor, Tensor], Tensor], recipe: Recipe, device: torch.device, most: int = 64
) -> dict[str, Any]:
    """Held-out loss a token and bits a byte of text of each source, over its first `most` windows."""
    length, out = recipe.model.context, {}
    for name, ids in tokens.held.items():
        n = min((len(ids) - 1) // length, most)
        if n < 1:
            continue
        total, n_bytes = 0.0, 0
        for i in range(n):
            window = ids[i * length : (i + 1) * length + 1].long()[None]
            inputs, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
            total += float(loss(inputs.to(device), targets.to(device))) * length
            n_bytes += int(tokens.n_bytes[targets].sum())
        out[name] = {"loss": total / (n * length), "bits_per_byte": total / math.log(2) / max(n_bytes, 1)}
    return out


@torch.no_grad()
def sample(network: nn.Module, folder: Path, prompt: str, context: int) -> str:
    """What the network would write now, at temperature 0.8."""
    from brolly.engine.runner import Runner
    from brolly.engine.sampler import Sampler
    from brolly.media.text import load_tokenizer
    from brolly.verbs import GenerateOptions

    tokenizer, runner, n_tokens, most = load_tokenizer(folder), Runner(network), min(80, context // 2), context // 2
    ids = tokenizer.encode(prompt)[:most] or [0]
    sampler, cache = Sampler(GenerateOptions(temperature=0.8, seed=0), ids), runner.new_cache(1, 256)
    logits = runner.forward(
        torch.tensor([ids], device=runner.device), torch.arange(len(ids), device=runner.device)[None], cache
    )
    for n in range(n_tokens):
        ids.append(sampler.choose(logits[0]))
        place = torch.tensor([[len(ids) - 1]], device=runner.device)
        if n + 1 < n_tokens:
            logits = runner.forward(torch.tensor([[ids[-1]]], device=runner.device), place, cache)
    return tokenizer.decode(ids)


# Checkpoints: a folder is written under another name, flushed, and renamed; a half-written one is never read.


def checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(p for p in out.glob("step-" + "[0-9]" * 8) if (p / "state.json").is_file())


def state_of(network: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor of weights and optimisers by name."""
    out = {f"network.{n}": p.data for n, p in network.named_parameters()}
    for k, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            out |= {f"optimizer{k}.{index}.{key}": v for key, v in state.items() if isinstance(v, Tensor)}
    return out


def save(recipe: Recipe, network: nn.Module, optimizers: list[torch.optim.Optimizer], step: int, data: str) -> None:
    """Write a checkpoint, then delete all but the last two."""
    final = recipe.out / f"step-{step:08d}"
    part = recipe.out / f".{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    rows = [
        (n, "F32", tuple(t.shape), partial(as_bytes, t, torch.float32))
        for n, t in state_of(network, optimizers).items()
    ]
    write_safetensors(part / "state.safetensors", rows)
    said = {"step": step, "shape": repr(recipe.model), "seed": recipe.train.seed, "data": data}
    with (part / "state.json").open("w") as file:
        file.write(json.dumps(said))
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    forget(recipe.out)


def forget(out: Path) -> None:
    """Delete all checkpoints but the last two, and what a kill left half deleted."""
    keep = checkpoints(out)[-2:]
    for old in sorted(p for p in out.glob("step-" + "[0-9]" * 8) if p not in keep):
        (old / "state.json").unlink(missing_ok=True)  # first: what is half deleted is no checkpoint
        shutil.rmtree(old)


def restore(recipe: Recipe, network: nn.Module, optimizers: list[torch.optim.Optimizer], data: str) -> int:
    """Take up the last checkpoint, where there is one; the number of steps behind it."""
    found = checkpoints(recipe.out)
    if not found:
        return 0
    try:
        said = json.loads((found[-1] / "state.json").read_text())
        step, made_by = int(said["step"]), (said["shape"], said["seed"], said.get("data", data))
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{found[-1]}/state.json is broken; delete the folder to go on from the one before."
        ) from None
    if made_by != (repr(recipe.model), recipe.train.seed, data):
        raise CheckpointError(f"{found[-1]} was made by another model, seed, tokenizer or text; give another --out.")
    for optimizer in optimizers:  # one step on zero gradients makes the state's shape; its numbers are replaced below
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    header, expected = read_header(found[-1] / "state.safetensors"), state_of(network, optimizers)
    stored = {name: (info.dtype, tuple(info.shape)) for name, info in header.tensors.items()}
    if stored != {name: ("F32", tuple(tensor.shape)) for name, tensor in expected.items()}:
        raise CheckpointError(f"{found[-1]} does not fit this recipe's network and optimizer; give another --out.")
    mapped = Mapped(header)
    for name, tensor in expected.items():
        numbers = torch.frombuffer(bytearray(mapped.buffer(header.tensors[name])), dtype=torch.float32)
        tensor.copy_(numbers.view(tensor.shape))
    mapped.close()
    return step


class Log:
    """One JSON line a step in log.jsonl, and a progress bar on a terminal."""

    def __init__(self, recipe: Recipe, start: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.quiet = quiet
        path = recipe.out / "log.jsonl"
        if not quiet:
            write_whole(path, "".join(json.dumps(row) + "\n" for row in read_log(path) if row["step"] <= start))
        self.file = path.open("a") if not quiet else None
        self.bar = tqdm(total=recipe.train.steps, initial=start, unit="step", disable=quiet or None, mininterval=1)
        self.clock = time.perf_counter()

    def step(self, step: int, loss: float, norm: float, lr: float, n_tokens: int) -> None:
        speed = n_tokens / (time.perf_counter() - self.clock)
        self._write({"step": step + 1, "loss": loss, "norm": norm, "lr": lr, "tokens_per_s": round(speed)})
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
        self.bar.update()

    def held(self, step: int, found: dict[str, Any]) -> None:
        self._write({"step": step, "held": found})

    def sample(self, step: int, text: str) -> None:
        self._write({"step": step, "sample": text})
        if not self.bar.disable:
            self.bar.write(f"[{step}] {text}", file=sys.stderr)

    def _write(self, row: dict[str, Any]) -> None:
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()

    def close(self) -> None:
        self.bar.close()
        if self.file:
            self.file.close()


# Many processes: torchrun starts them, each takes its rows of every batch, and gradients are averaged.


def join_world() -> tuple[int, int]:
    """Number of processes, and which of them this is."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return world, torch.distributed.get_rank()
    return 1, 0


def barrier(world: int) -> None:
    if world > 1:
        torch.distributed.barrier()


def leave_world(world: int) -> None:
    if world > 1:
        torch.distributed.destroy_process_group()


def share_gradients(network: nn.Module, loss: Tensor, world: int) -> Tensor:
    """Average gradients and loss over the processes."""
    if world == 1:
        return loss
    for tensor in [p.grad for p in network.parameters() if p.grad is not None] + [loss]:
        torch.distributed.all_reduce(tensor)
        tensor /= world
    return loss
