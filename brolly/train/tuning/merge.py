"""A LoRA's numbers added to its base's, as a model of its own, tensor by tensor: no network is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly import hub, models
from brolly.checkpoint import Mapped, read_header
from brolly.errors import OptionError, RecipeError
from brolly.families.peft import Pair, read_lora
from brolly.fill import COMPUTE, check_base, view
from brolly.identity import examine
from brolly.train.tuning.layout import copy_card, write_model


def merge(model: str | Path, adapter: Any, *, out: str | Path, dtype: str | None = None) -> Path:
    """Write base and LoRA as one model in the base's layout, and return its folder; `dtype` is the base's own if None.

    Raises NotFound, CheckpointError, OptionError, RecipeError, DiskFull.
    """
    folder = Path(out).expanduser()
    if dtype is not None and dtype not in COMPUTE:
        raise OptionError(f"dtype {dtype!r} is not known; expected {', '.join(COMPUTE)}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder} is not empty; give a folder that is not there yet.")
    card = examine(hub.resolve(model))
    base, lora_folder = card.recognised, Path(hub.resolve(getattr(adapter, "path", adapter)))
    with torch.device("meta"):
        network = models.build(base.config)
    linear = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    lora = read_lora(lora_folder, base, {name: (m.out_features, m.in_features) for name, m in linear.items()})
    check_base(lora.header, base)
    with Mapped(lora.header) as mapped:

        def changed(name: str, old: Tensor) -> Tensor | None:
            pair = lora.pairs.get(name.removesuffix(".weight"))
            return None if pair is None or not name.endswith(".weight") else added(old, pair, mapped)

        write_model(folder, base, changed, dtype)
    copy_card(Path(base.header.folder), lora_folder, folder)
    return folder


def added(old: Tensor, pair: Pair, mapped: Mapped) -> Tensor:
    """W + scale · B A in float32, each row of the length that DoRA learnt."""
    a, b = view(mapped, pair.a).float(), view(mapped, pair.b).float()
    new = old.float() + pair.scale * (b @ a)
    if pair.magnitude is None:
        return new
    return new * (view(mapped, pair.magnitude).float() / new.norm(dim=1))[:, None]


def rounding(folder: Path) -> str:
    """What was lost by writing a merged model in few bits; "" where nothing was."""
    kinds = {info.dtype for info in read_header(folder).tensors.values()} & {"BF16", "F16"}
    if not kinds:
        return ""
    return (
        f"The sums are rounded to {', '.join(sorted(kinds))}, so answers can differ a little from those of base and "
        "adapter; --dtype float32 keeps them."
    )
