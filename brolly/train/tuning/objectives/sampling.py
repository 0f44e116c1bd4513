"""Answers by a network that is being trained, through the engine; its LoRA is merged in where a kernel takes the sum.

A merged weight is rounded to the network's dtype, so that what is written may be less likely or more, by a little, than
the trained network says; what is learnt from it is computed by the trained one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from brolly import models
from brolly.engine.engine import Engine, blocks_for
from brolly.engine.job import Job
from brolly.engine.pages import Pages
from brolly.kernels.pages import available
from brolly.layers.quantized import NF4Linear
from brolly.train.tuning.lora import LoraLinear
from brolly.verbs import Piece

AT_ONCE = 128  # answers written together


class Written(NamedTuple):
    """An answer as it was written; `tokens` with the one that ended it."""

    text: str
    tokens: list[int]
    ended: bool


def written(model: Any, jobs: Sequence[Job], context: int) -> list[list[Written]]:
    """All answers to some jobs, in order, by a model's network as it is now. Raises what ended any of them."""
    config, ticks = model.network.config, count()
    pages = fast(model.network, context) or pages_of(model.network, context)
    engine = Engine(
        pages, model.tokenizer, context=context, stop_ids=model.stop_ids, queue=len(jobs) + 1, most=AT_ONCE, least=64,
        window=None if None in config.windows else max(config.windows),
        clock=lambda: next(ticks) * 1e-3,  # steps alone: how a prompt is cut is no matter of a machine's speed
    )  # fmt: skip
    try:
        return write(engine, jobs)
    finally:
        engine.close()


def pages_of(network: nn.Module, context: int) -> Pages:
    device = next(network.parameters()).device
    return Pages(network, blocks_for(context, Pages.block_bytes(network), device))


def fast(network: nn.Module, context: int) -> Pages | None:
    """Pages of the network with its LoRA merged in, where a kernel takes them and memory holds them."""
    dtype, layers = next(network.parameters()).dtype, loras(network)
    if dtype != torch.bfloat16 or not layers or any(isinstance(one.base, NF4Linear) for one in layers.values()):
        return None
    if available() < 2 * sum(one.base.weight.nbytes for one in layers.values()):
        return None  # memory holds no second copy of what is adapted
    plain = merged(network, layers)
    pages = None if plain is None else pages_of(plain, context)
    return None if pages is None or isinstance(pages.fused, str) else pages


def loras(network: nn.Module) -> dict[str, LoraLinear]:
    return {name: module for name, module in network.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def merged(network: nn.Module, layers: dict[str, LoraLinear]) -> nn.Module | None:
    """A network whose adapted weights are sums, over the same numbers elsewhere; None where more than these changed."""
    given: dict[str, Tensor] = dict(network.named_parameters())
    for name, layer in layers.items():
        for part in ("lora_A", "lora_B", "magnitude"):
            given.pop(f"{name}.{part}", None)
        for part in ("weight", "bias"):
            if (own := given.pop(f"{name}.base.{part}", None)) is not None:
                given[f"{name}.{part}"] = own
        given[f"{name}.weight"] = whole(layer)
    with torch.device("meta"):
        plain = models.build(network.config)
    if given.keys() != dict(plain.named_parameters()).keys():
        return None
    for name, tensor in given.items():
        owner, _, leaf = name.rpartition(".")
        plain.get_submodule(owner).register_parameter(leaf, nn.Parameter(tensor.detach(), requires_grad=False))
    return plain.eval()


def whole(layer: LoraLinear) -> Tensor:
    """W + scale · B A, with DoRA's lengths where it has them, in W's dtype."""
    found = torch.addmm(layer.base.weight.float(), layer.lora_B, layer.lora_A, alpha=layer.scale)
    if layer.magnitude is not None:
        found *= (layer.magnitude / found.norm(dim=1))[:, None]
    return found.to(layer.base.weight.dtype)


def write(engine: Engine, jobs: Sequence[Job]) -> list[list[Written]]:
    """All answers to some jobs, in order. Raises what ended any of them."""
    heard: SimpleQueue[tuple[int, Piece | BaseException]] = SimpleQueue()
    for k, job in enumerate(jobs):
        engine.submit(job, lambda piece, k=k: heard.put((k, piece)))  # type: ignore[misc]
    pieces: list[list[list[Piece]]] = [[[] for _ in range(job.n)] for job in jobs]
    left = sum(job.n for job in jobs)
    while left:
        k, piece = heard.get()
        if isinstance(piece, BaseException):
            raise piece
        pieces[k][piece.index].append(piece)
        left -= piece.finish_reason is not None
    return [[gathered(one) for one in answers] for answers in pieces]


def gathered(pieces: Sequence[Piece]) -> Written:
    end = pieces[-1].end
    tokens = [token for piece in pieces for token in piece.tokens] + ([] if end is None else [end.token])
    return Written("".join(piece.text for piece in pieces), tokens, end is not None)
