"""What the recipes of the small models share: fresh weights, quick attention, optimizers and their clock, saving."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brolly.checkpoint import write_safetensors
from brolly.kernels.pages import keep_memory
from brolly.train.export import as_bytes
from brolly.train.loop import make_optimizers
from brolly.train.recipe import Run

RESIDUAL = ("out_proj.weight", "fc2.weight")


def initialise(network: nn.Module, n_layers: int) -> None:
    """Normal weights, as wide as their inputs ask; the residual projections less by √(2 n_layers); biases 0, norms 1."""
    for name, parameter in network.named_parameters():
        if parameter.dim() < 2:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
        elif "embed" in name and "patch" not in name:
            nn.init.normal_(parameter, 0.0, 0.02)
        else:
            nn.init.normal_(parameter, 0.0, math.prod(parameter.shape[1:]) ** -0.5)
            if name.endswith(RESIDUAL):
                parameter.data /= math.sqrt(2 * n_layers)


def attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """As torch's, in plain products."""
    scores = (q @ k.transpose(-1, -2)) * (scale or q.shape[-1] ** -0.5)
    if is_causal:
        attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1).to(v.dtype) @ v


def make_quick() -> None:
    """For a few hundred tokens torch's attention takes five times as long on a processor, most of it backwards."""
    keep_memory()
    F.scaled_dot_product_attention = attention


class Clock:
    """Muon and AdamW with a learning rate that follows the time: up for 50 steps, flat, and down from half time on.

    `share` is how much of the time an earlier run has used up.
    """

    def __init__(self, network: nn.Module, minutes: float, lr: float, share: float = 0.0) -> None:
        self.network, self.seconds, self.lr = network, minutes * 60, lr
        self.optimizers = make_optimizers(network, Run(0, 0, lr=lr, optimizer="muon"))
        self.steps, self._start = 0, time.perf_counter() - share * self.seconds

    @property
    def spent(self) -> float:
        """Seconds."""
        return time.perf_counter() - self._start

    @property
    def share(self) -> float:
        """How much of the time is over."""
        return self.spent / self.seconds

    def step(self, loss: Tensor) -> None:
        """One step down the loss."""
        pace = min(1.0, (self.steps + 1) / 50) * max(0.01, min(1.0, 2 * (1 - self.share)))
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * pace
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1


def go_on(network: nn.Module, folder: Path, theirs: Callable[[str], str] = str) -> None:
    """Take up the weights that an earlier run left in its folder, under their published names."""
    from safetensors.torch import load_file

    saved = load_file(folder / "model.safetensors")
    for name, tensor in network.state_dict().items():
        tensor.copy_(saved[theirs(name)])


def save(folder: Path, tensors: dict[str, Tensor], texts: dict[str, Any]) -> None:
    """model.safetensors in bfloat16, and JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(n, "BF16", tuple(t.shape), partial(as_bytes, t.detach(), torch.bfloat16)) for n, t in tensors.items()]
    write_safetensors(folder / "model.safetensors", rows, {"format": "pt"})
    for name, content in texts.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
