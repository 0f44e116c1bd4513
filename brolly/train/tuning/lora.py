"""LoRA (Hu et al. 2021) to be trained: put into a finished network from outside, and taken out again.

A layer y = W x + b becomes y = W x + b + scale · B A x with W and b frozen. A and B are kept in float32 and compute in
the network's dtype. With a magnitude m (DoRA, Liu et al. 2024) each row of W + scale · B A has that length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.card import Recognised
from brolly.checkpoint import Mapped
from brolly.errors import CheckpointError, OptionError
from brolly.families.peft import peft_name, read_lora, settings
from brolly.fill import check_base, table_shapes, view
from brolly.train.tuning.words import LearntRows
from brolly.verbs import Lora

HEADS = ("lm_head", "proj_out", "head", "classifier", "score")  # read or trained whole, never adapted


class LoraLinear(nn.Module):
    """A frozen linear layer and its low-rank addition. `base` keeps its weight (out, in)."""

    def __init__(self, base: nn.Linear, lora: Lora, scale: float | None = None) -> None:
        super().__init__()
        self.base = base
        self.scale, self.dropout = lora.scale if scale is None else scale, lora.dropout
        self.active = True
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(lora.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, lora.rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        length = base.weight.detach().float().norm(dim=1) if lora.dora else None
        self.magnitude = None if length is None else nn.Parameter(length)

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.base(x)
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        low = F.linear(F.dropout(x, self.dropout, self.training) if self.dropout else x, a)
        update = F.linear(low, b) * self.scale
        if self.magnitude is None:
            return self.base(x) + update
        weight = self.base.weight.float() + self.scale * (self.lora_B @ self.lora_A)
        gain = (self.magnitude / weight.norm(dim=1).detach()).to(x.dtype)  # the norm is a constant: section 4.3
        plain = F.linear(x, self.base.weight)
        bias = 0 if self.base.bias is None else self.base.bias
        return gain * (plain + update) + bias


def put_in(network: nn.Module, lora: Lora, base: Recognised | None = None) -> dict[str, LoraLinear]:
    """Freeze a network and adapt its linear layers, or those whose names end as `targets` say; by their names.

    Of a `base` in a layout where a layer is joined with others, PEFT has no name for it, and it stays as it is. Raises
    OptionError where a target names none.
    """
    network.requires_grad_(False)
    linear = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[0] not in HEADS and (base is None or named(base, name))
    }
    chosen = linear
    if lora.targets:
        missing = [t for t in lora.targets if not any(f".{name}".endswith(f".{t}") for name in linear)]
        if missing:
            ends = sorted({name.rpartition(".")[2] for name in linear})
            raise OptionError(f"no layer's name ends with {missing[0]!r}; there are {', '.join(ends)}.")
        chosen = {n: m for n, m in linear.items() if any(f".{n}".endswith(f".{t}") for t in lora.targets)}
    put = {}
    for name, module in chosen.items():
        put[name] = LoraLinear(module, lora)
        network.set_submodule(name, put[name])
    return put


def named(base: Recognised, module: str) -> bool:
    """Whether PEFT has a name for a module, and can adapt it: torch's own attention hides its layers from it."""
    try:
        return ".attention.out_proj" not in f".{peft_name(base, module)}" or ".head." not in f".{module}"
    except CheckpointError:
        return False


@contextmanager
def switched_off(network: nn.Module) -> Iterator[None]:
    """The network as it was before anything was put in."""
    layers = [module for module in network.modules() if isinstance(module, LoraLinear)]
    for layer in layers:
        layer.active = False
    try:
        yield
    finally:
        for layer in layers:
            layer.active = True


def put_back(network: nn.Module, folder: Path, base: Recognised, lora: Lora) -> tuple[Lora, dict[str, LoraLinear]]:
    """Freeze a network and adapt it by a LoRA in PEFT's layout, to be trained further; its settings, and its layers.

    Of `lora` the dropout alone counts. Raises NotFound, CheckpointError.
    """
    network.requires_grad_(False)
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    found = read_lora(
        folder, base, {name: (m.out_features, m.in_features) for name, m in linear.items()}, table_shapes(network)
    )
    check_base(found.header, base)
    said = settings(folder)
    rslora, dora = bool(said.get("use_rslora")), bool(said.get("use_dora"))
    put = {}
    with Mapped(found.header) as mapped:
        for name, pair in found.pairs.items():
            rank = pair.a.shape[0]
            put[name] = LoraLinear(linear[name], replace(lora, rank=rank, dora=dora), pair.scale)
            parts = [(put[name].lora_A, pair.a), (put[name].lora_B, pair.b)]
            if pair.magnitude is not None and (length := put[name].magnitude) is not None:
                parts.append((length, pair.magnitude))
            for parameter, info in parts:
                parameter.data.copy_(view(mapped, info))
            network.set_submodule(name, put[name])
        for name, rows in found.rows.items():
            table = network.get_submodule(name)
            network.set_submodule(name, LearntRows(table, torch.tensor(rows.ids), view(mapped, rows.info)))
    rank, scale = max(len(m.lora_A) for m in put.values()), next(iter(put.values())).scale
    alpha = scale * (rank**0.5 if rslora else rank)
    return replace(lora, rank=rank, alpha=abs(alpha) or None, rslora=rslora, dora=dora), put


def take_out(network: nn.Module) -> None:
    """Give a network its own layers back."""
    for name, module in list(network.named_modules()):
        if isinstance(module, (LoraLinear, LearntRows)):
            network.set_submodule(name, module.base)
