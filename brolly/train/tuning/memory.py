"""How much memory a tuning takes: predicted from one or two small passes before it, and measured after it.

What a pass keeps for the way back grows with its tokens in a line; passes of n and 2 n tokens tell the line, for any
network and any path of its blocks.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from brolly.kernels.pages import available
from brolly.layers.quantized import NF4Linear
from brolly.train.tuning.entropy import N_LOGITS
from brolly.train.tuning.lora import LoraLinear
from brolly.train.tuning.optimizers import bytes_of
from brolly.train.tuning.quick import QuickBlock
from brolly.train.tuning.recompute import blocks_of, recompute


@dataclass(frozen=True)
class Memory:
    """Bytes by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # what the largest part of a step keeps for its way back, and what a block's way back needs
    logits: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        return asdict(self)

    @property
    def to_come(self) -> int:
        """All but the weights, which are there already."""
        return self.total - self.weights

    def shared(self, n: int) -> Memory:
        """In each of n processes that share a network, and have a block of it whole at a time."""
        return replace(
            self, weights=self.weights // n, gradients=self.gradients // n, optimizer=self.optimizer // n
        )  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """Bytes that a pass keeps for its way back: of all blocks, of the largest, of their inputs, and outside them."""

    blocks: float = 0
    largest: float = 0
    inputs: float = 0
    rest: float = 0

    def line(self, twice: Kept, times: float) -> Kept:
        """What so many times this pass keeps, where `twice` is what two keep."""
        pairs = zip(vars(self).values(), vars(twice).values(), strict=True)
        return Kept(*(max(one + (two - one) * (times - 1), 0) for one, two in pairs))


def predict(
    network: nn.Module, once: Callable[[int], None], times: float, n_tokens: int, *, optimizer: str = "adamw",
    checkpointing: bool = False,
) -> Memory:  # fmt: skip
    """What a step takes whose largest part is `times` one pass, of `n_tokens` tokens.

    `once(n)` passes n such things through the network at once, and back; the way back is not gone.
    """
    parameters = list(network.parameters())
    trained = [p for p in parameters if p.requires_grad]
    width = max((p.element_size() for p in parameters if p.dim() > 1), default=4)
    head: Any = getattr(network, "output", None)
    vocab, dim = getattr(head, "base", head).weight.shape if head is not None else (0, 0)  # rows may be learnt apart
    rows = min(n_tokens, max(N_LOGITS // vocab, 16)) if vocab else 0
    logits = rows * vocab * width
    if head is not None and any(p.requires_grad for p in head.parameters()):
        logits += 4 * vocab * dim  # its gradient once more, while it is added up
    with once_each(network):
        kept = passed(network, once, 1).line(passed(network, once, 2), times)
    work = kept.largest
    activations = kept.rest + (kept.inputs + kept.largest if checkpointing else kept.blocks) + work
    return Memory(
        weights_of(network), sum(p.numel() * p.element_size() for p in trained), bytes_of(trained, optimizer),
        int(activations), logits,
    )  # fmt: skip


def weights_of(network: nn.Module) -> int:
    """Bytes of all parameters, those in 4 bits too."""
    packed = sum(m.packed.n_bytes for m in network.modules() if isinstance(m, NF4Linear))
    return packed + sum(p.numel() * p.element_size() for p in network.parameters())


def numbers_of(network: nn.Module) -> int:
    """How many numbers a network has, those in 4 bits too, and those of a LoRA beside it not."""
    packed = sum(m.in_features * m.out_features for m in network.modules() if isinstance(m, NF4Linear))
    beside = sum(p.numel() for m in network.modules() if isinstance(m, LoraLinear) for p in m.parameters(recurse=False))
    return packed + sum(p.numel() for p in network.parameters()) - beside


@contextmanager
def once_each(network: nn.Module) -> Iterator[None]:
    """Blocks that compute once, so that what each keeps is seen; afterwards they are as they were."""
    before = [(block, vars(block).get("forward"), getattr(block, "checkpoint", None)) for block in blocks_of(network)]
    recompute(network, wanted=False)
    try:
        yield
    finally:
        for block, forward, checkpoint in before:
            if forward is not None:
                block.forward = forward
            if isinstance(block, QuickBlock):
                block.checkpoint = bool(checkpoint)


@contextmanager
def no_way_back() -> Iterator[None]:
    """`backward` does nothing: what a pass keeps is all there, and no gradients are made."""
    before = Tensor.backward
    Tensor.backward = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.backward = before  # type: ignore[method-assign]


def passed(network: nn.Module, once: Callable[[int], None], n: int) -> Kept:
    """Pass through a network, and see what is kept."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    own |= {t.untyped_storage().data_ptr() for m in network.modules() if isinstance(m, NF4Linear)
            for t in m.packed if isinstance(t, Tensor)}  # fmt: skip
    seen: dict[int, int] = {}
    by: dict[int, int] = {}
    inputs = 0
    now = [-1]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage.nbytes()
            by[now[0]] = by.get(now[0], 0) + storage.nbytes()
        return tensor.detach()  # the tensor itself would hold what made it, which holds it

    def enter(i: int) -> Callable[..., None]:
        def note(module: nn.Module, given: tuple[Any, ...]) -> None:
            nonlocal inputs
            now[0] = i
            inputs += given[0].nbytes if given and isinstance(given[0], Tensor) else 0

        return note

    def leave(*_: Any) -> None:
        now[0] = -1

    hooks = []
    for i, block in enumerate(blocks_of(network)):
        hooks += [block.register_forward_pre_hook(enter(i)), block.register_forward_hook(leave)]
    try:
        with no_way_back(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            once(n)
    finally:
        for hook in hooks:
            hook.remove()
    rest = by.pop(-1, 0)
    return Kept(sum(by.values()), max(by.values(), default=0), inputs, rest)


def spare(device: torch.device) -> int:
    """Bytes that are free where the network is."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available()


# Measured.


class Watch:
    """The most memory that this process holds from now on."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = int(torch.cuda.memory_allocated(device))
            return
        with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins anew; without the right to, it is that of the whole process
        self.before = told("VmRSS") or 0

    @property
    def peak(self) -> int:
        """Bytes of the device's memory: the GPU's that torch holds, or the process's own."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return told("VmHWM") or whole_life()


def told(name: str) -> int | None:
    """Bytes of a row of /proc/self/status, where there is one."""
    with suppress(OSError), open("/proc/self/status") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:")), None)
    return None


def whole_life() -> int:
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
