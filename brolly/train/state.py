"""Everything a run needs to go on, in one file that is replaced whole: weights, optimisers, random state, position."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly.errors import RecipeError

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.uint8: "U8", torch.int64: "I64"}


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, atomically."""
    from brolly.checkpoint import write_safetensors

    def rows() -> Iterator[tuple[str, str, tuple[int, ...], memoryview]]:
        for name, tensor in tensors.items():
            flat = tensor.detach().cpu().contiguous()
            yield name, _NAMES[flat.dtype], tuple(flat.shape), memoryview(flat.view(-1).view(torch.uint8).numpy())

    write_safetensors(path, rows(), metadata)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write` wrote."""
    from brolly.checkpoint import Mapped, read_header

    header = read_header(path)
    dtypes = {name: dtype for dtype, name in _NAMES.items()}
    tensors = {}
    with Mapped(header) as mapped:
        for name, info in header.tensors.items():
            data = torch.frombuffer(bytearray(mapped.buffer(info)), dtype=torch.uint8)
            tensors[name] = data.view(dtypes[info.dtype]).view(info.shape)
    return tensors, {key: str(value) for key, value in header.metadata.items()}


def save(path: Path, network: nn.Module, optimizers: list[torch.optim.Optimizer], facts: dict[str, Any]) -> None:
    """Save the run at a step; `facts` is what must agree, or be known, when it goes on."""
    tensors = {f"weights.{name}": p for name, p in network.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for index, entry in optimizer.state_dict()["state"].items():
            for key, value in entry.items():
                tensors[f"optimizer.{number}.{index}.{key}"] = torch.as_tensor(value)
    tensors["random"] = torch.get_rng_state()
    write(path, tensors, {"brolly.run": json.dumps(facts)})


def restore(path: Path, network: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Put a saved run back in place, and return its facts."""
    tensors, metadata = read(path)
    try:
        facts: dict[str, Any] = json.loads(metadata["brolly.run"])
        with torch.no_grad():
            for name, p in network.named_parameters():
                p.copy_(tensors[f"weights.{name}"])
        for number, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                match name.split("."):
                    case ["optimizer", n, index, key] if n == str(number):
                        state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["random"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise RecipeError(f"{path}: not a checkpoint of this recipe's model and optimizer ({error})") from None
    return facts
