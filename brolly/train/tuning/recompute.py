"""Activation checkpointing (Chen et al. 2016) from outside: a block keeps its input alone and is computed again when
its gradient is due. The same numbers, bit for bit, in less memory and about a third more time."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from brolly.train.tuning.quick import QuickBlock


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks of every row of blocks in a network, of whatever kind: what is computed again, or sharded, at once."""
    rows = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return [block for row in rows for block in row if any(True for _ in block.children())]


def recompute(network: nn.Module, wanted: bool = True) -> int:
    """Have blocks computed twice, or once again; how many there are. Quick blocks have a way of their own."""
    found = blocks_of(network)
    for block in found:
        vars(block).pop("forward", None)
        if isinstance(block, QuickBlock):
            block.checkpoint = wanted
        elif wanted:
            block.forward = partial(twice, block)
    return len(found)


def twice(block: nn.Module, *given: Any) -> Any:
    """A block's pass, of which its input alone is kept."""
    once = type(block).forward
    if not torch.is_grad_enabled():
        return once(block, *given)
    return checkpoint(once, block, *given, use_reentrant=False)
