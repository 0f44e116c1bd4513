"""Networks of other libraries and ours of the same file, and their gradients side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from brolly.fill import places
from brolly.verbs import TuneOptions


def options(**given: Any) -> TuneOptions:
    return TuneOptions(**given)


def rows_of(values: Iterable[Any]) -> list[Any]:
    """Rows as a reader makes them."""
    return [SimpleNamespace(number=i, where=f"row {i}", value=value, fields={}) for i, value in enumerate(values)]


def examples(objective: Any, values: Iterable[Any]) -> list[Any]:
    return [objective.example(row) for row in rows_of(values)]


def trainable(model: Any) -> Any:
    """A model whose every parameter is trained."""
    model.network.requires_grad_(True).train()
    return model


def their_names(model: Any) -> dict[str, list[str]]:
    """A file's tensor → the parameters of ours that it fills, in their order."""
    found: dict[str, list[str]] = {}
    for target, (info, _) in places(model.card.recognised, dict(model.network.named_parameters())).items():
        found.setdefault(info.name, []).append(target)
    return found


def gradients(model: Any) -> dict[str, Tensor]:
    """Ours, under the file's names."""
    mine = dict(model.network.named_parameters())
    return {
        name: torch.cat([gradient(mine[target]) for target in targets])
        if len(targets) > 1
        else gradient(mine[targets[0]])
        for name, targets in their_names(model).items()
    }


def gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def check_gradients(mine: Mapping[str, Tensor], reference: nn.Module, within: float = 1e-5, lead: str = "") -> None:
    """Every gradient of a reference equals ours, relative to the largest of its tensor."""
    theirs = {lead + name: p for name, p in reference.named_parameters() if p.grad is not None}
    assert len(theirs) > 10
    for name, parameter in theirs.items():
        if name not in mine:
            assert parameter.grad.abs().max() == 0, f"{name} is not ours and is learnt"
            continue
        scale = max(float(parameter.grad.abs().max()), 1e-3)
        apart = float((mine[name].reshape(parameter.grad.shape) - parameter.grad).abs().max()) / scale
        assert apart < within, f"{name}: {apart:.2e}"
