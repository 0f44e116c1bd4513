"""The tuning loop: rows to examples, examples to parts, parts to gradients, gradients to an adapter's folder."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brolly.checkpoint import write_safetensors
from brolly.errors import RecipeError
from brolly.loader import load
from brolly.model import Model
from brolly.rows import RowFault, held_out, open_rows
from brolly.train.export import as_bytes
from brolly.train.tuning.lora import LoraLinear, put_in
from brolly.train.tuning.objectives import Example, Objective, choose
from brolly.verbs import Adapter, Lora, TuneOptions, read_options

PART = 2048  # tokens computed together


def tune(
    model: Model | str | Path, data: Any, *, out: str | Path, lora: Lora | None = Lora(), **options: Any  # noqa: B008
) -> Adapter:  # fmt: skip
    """Fine-tune a model on rows and write what was learnt to `out`. Raises RecipeError, OptionError, CheckpointError."""
    asked: TuneOptions = read_options(TuneOptions, options)
    reference = model.card.header.path if isinstance(model, Model) else model
    student = load(reference, fused=False)
    rows = open_rows(data)
    torch.manual_seed(asked.seed)
    assert lora is not None, "full tuning is not here yet"
    layers = put_in(student.network, lora)
    objective = choose(student, rows.shape, asked)
    train, held = held_out(rows, asked.held_out)
    examples = gathered(objective, rows, train)
    if not examples:
        raise RecipeError(f"{rows.source} has no row to train on.")
    size = asked.batch or min(16, len(examples))
    n_steps = asked.steps or max(1, math.ceil(asked.epochs * len(examples) / size))
    trained = [p for p in student.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=asked.lr or 1e-3, weight_decay=asked.weight_decay, fused=True)
    student.network.train()
    for step in range(n_steps):
        batch = [examples[i] for i in drawn(step, size, len(examples), asked.seed)]
        parts = cut(batch, objective, asked.part or PART)
        loss = objective.backward(parts, sum(map(objective.weight, batch)))
        nn.utils.clip_grad_norm_(trained, asked.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    found = {"loss": float(loss)}
    return Adapter(write(Path(out), str(reference), lora, layers), str(reference), "lora", n_steps, found)


def gathered(objective: Objective, rows: Any, numbers: Sequence[int]) -> list[Example]:
    found = []
    for i in numbers:
        try:
            found.append(objective.example(rows[i]))
        except RowFault as fault:
            rows.faults.append(fault)
    return found


def drawn(step: int, size: int, n: int, seed: int) -> list[int]:
    """Which examples a step sees: every one once an epoch, in an order of the seed and the epoch alone."""
    out = []
    for place in range(step * size, (step + 1) * size):
        epoch, at = divmod(place, n)
        order = list(range(n))
        random.Random(seed * 1_000_003 + epoch).shuffle(order)
        out.append(order[at])
    return out


def cut(batch: Sequence[Example], objective: Objective, most: int) -> list[list[Example]]:
    """A step's examples in parts of at most so many tokens, one at least."""
    if objective.together:
        return [list(batch)]
    parts: list[list[Example]] = []
    filled = most
    for one in batch:
        size = objective.size(one)
        if filled + size > most:
            parts.append([])
            filled = 0
        parts[-1].append(one)
        filled += size
    return parts


def write(folder: Path, base: str, lora: Lora, layers: dict[str, LoraLinear]) -> Path:
    """PEFT's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Any] = []
    for name, layer in layers.items():
        for part, tensor in (("A", layer.lora_A), ("B", layer.lora_B)):
            told = f"base_model.model.{name}.lora_{part}.weight"
            rows.append((told, "F32", tuple(tensor.shape), partial(as_bytes, tensor.detach(), torch.float32)))
    write_safetensors(folder / "adapter_model.safetensors", rows, {"format": "pt"})
    config = {
        "peft_type": "LORA", "base_model_name_or_path": base, "task_type": "CAUSAL_LM", "inference_mode": True,
        "r": lora.rank, "lora_alpha": lora.scale * (lora.rank**0.5 if lora.rslora else lora.rank),
        "lora_dropout": lora.dropout, "use_rslora": lora.rslora, "use_dora": lora.dora, "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}), "fan_in_fan_out": False,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return folder
