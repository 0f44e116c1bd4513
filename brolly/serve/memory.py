"""How much memory a model will take, how much this process takes now, and how it is given back."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from brolly.identity import Card, machine
from brolly.kernels.pages import trim

WORKSPACE = 48 << 20  # bytes of passes beside weights and keys; 7 to 39 MB were seen for 2 to 25 million numbers
ROWS = 64  # answers whose logits a language model's step holds, in float32
PART = 4  # a language model's keys and values get at most 1 / PART of all memory
CONTEXTS = 32  # and never more than so many full contexts
LEAST_TOKENS, MOST_OF_LEAST = 512, 2048  # of keys and values: a full context, within these; less serves nobody


@dataclass(frozen=True)
class Need:
    """Bytes that a model is predicted to take. Its blocks of keys and values may be fewer than would be best."""

    weights: int
    workspace: int
    least_cache: int = 0
    best_cache: int = 0

    @property
    def least(self) -> int:
        return self.weights + self.workspace + self.least_cache

    @property
    def best(self) -> int:
        return self.weights + self.workspace + self.best_cache


def predict(card: Card, total: int, device: str | None, dtype: str | None) -> Need:
    """What the model of a card will take in the dtype in which it will compute. Raises OptionError; imports torch."""
    from brolly.fill import choose_device, choose_dtype

    size = choose_dtype(dtype, card.header, choose_device(device)).itemsize
    weights = card.header.n_params * size
    if "generate" not in card.verbs:
        return Need(weights, WORKSPACE)
    config: Any = card.recognised.config
    token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * size
    least = token * min(MOST_OF_LEAST, max(config.context, LEAST_TOKENS))
    space = WORKSPACE + 4 * ROWS * config.vocab_size
    return Need(weights, space, least, max(least, min(token * config.context * CONTEXTS, total // PART)))


def budget(device: str | None) -> int:
    """Bytes for models where nobody says how many: most of what is free on their device. Imports torch."""
    import torch

    from brolly.fill import choose_device

    place = choose_device(device)
    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0] * 0.9)
    free = machine.memory()
    return int(free.free * 0.8) if free else 8 << 30


def taken(device: str | None = None) -> int:
    """Bytes of memory that this process holds now: torch's on a CUDA device, else what is resident; 0 if unknown."""
    if device and device.startswith("cuda"):
        import torch

        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def held(model: Any) -> int:
    """Bytes of a loaded model's numbers; what two parameters share counts once."""
    tensors = [*model.network.parameters(), *model.network.buffers()]
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


@cache
def keep_imports() -> None:
    """Once, before a model is here: what was imported stays, so no later collection of garbage looks through it.

    They are 170,000 objects: to look through them stopped every stream for 0.35 s whenever a model went; now 1 ms.
    """
    import brolly.model  # noqa: F401  all that a model needs

    gc.collect()
    gc.freeze()


def give_back(device: str | None = None) -> None:
    """Return to the system what closed models held."""
    gc.collect()
    if device and device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
    trim()


def in_words(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.1f} MB"
