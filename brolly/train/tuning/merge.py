"""A LoRA's numbers added to its base's, as a model of its own, tensor by tensor: no network is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly import hub, models
from brolly.checkpoint import Mapped, read_header
from brolly.checkpoint.nf4 import is_nf4
from brolly.errors import CheckpointError, OptionError, RecipeError
from brolly.families.heads import with_head
from brolly.families.peft import read_lora
from brolly.fill import COMPUTE, added, check_base, table_shapes, view
from brolly.identity import examine
from brolly.train.tuning.four_bits import learnt_beside
from brolly.train.tuning.layout import copy_card, write_model


def merge(
    model: str | Path, adapter: Any = None, *, out: str | Path, dtype: str | None = None, bits: int | None = None
) -> Path:  # fmt: skip
    """Write base and LoRA as one model in the base's layout, and return its folder; `dtype` is the base's own if None.

    With `bits` (4) the blocks are packed, as bitsandbytes has it, and without they are whole, whatever the base's are.
    Without an adapter the base is written so. Raises NotFound, CheckpointError, OptionError, RecipeError, DiskFull.
    """
    folder = Path(out).expanduser()
    if bits not in (None, 4):
        raise OptionError(f"bits is {bits!r:.20}; expected 4, or nothing.")
    if dtype is not None and dtype not in COMPUTE:
        raise OptionError(f"dtype {dtype!r} is not known; expected {', '.join(COMPUTE)}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder} is not empty; give a folder that is not there yet.")
    card = examine(hub.resolve(model))
    base = card.recognised
    if adapter is None:
        write_model(folder, base, lambda name, old: None, dtype, bits)
        copy_card(Path(base.header.folder), None, folder)
        return folder
    lora_folder = Path(hub.resolve(getattr(adapter, "path", adapter)))
    with torch.device("meta"):
        network = models.build(base.config)
    linear = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    sizes = {name: (m.out_features, m.in_features) for name, m in linear.items()}
    lora = read_lora(lora_folder, base, sizes, table_shapes(network), heads="generate" not in base.tasks)
    headed = with_head(base, lora.labels) if lora.whole else None
    check_base(lora.header, base)
    with Mapped(lora.header) as mapped:

        def changed(name: str, old: Tensor) -> Tensor | None:
            if rows := lora.rows.get(name.removesuffix(".weight")):
                return old.float().index_copy(0, torch.tensor(rows.ids), view(mapped, rows.info).float())
            pair = lora.pairs.get(name.removesuffix(".weight"))
            return None if pair is None or not name.endswith(".weight") else added(old, pair, mapped)

        def numbers(name: str) -> Tensor:
            assert headed
            info = lora.whole.get(headed.names[name])
            if info is None:
                raise CheckpointError(f"{lora.header.path} lacks {headed.names[name]} of its classifier.")
            return view(mapped, info)

        write_model(folder, base, changed, dtype, bits, (headed, numbers) if headed else None)
    copy_card(Path(base.header.folder), lora_folder, folder)
    return folder


def rounding(folder: Path, adapter: Any = None) -> str:
    """What was lost by writing a merged model in few bits; "" where nothing was."""
    header = read_header(folder)
    kinds = {info.dtype for info in header.tensors.values()}
    if is_nf4(header):
        return "The sums are packed to 4 bits, so answers differ a little from those of base and adapter."
    path = None if adapter is None else Path(hub.resolve(getattr(adapter, "path", adapter)))
    if path and learnt_beside(path):
        return (
            "The adapter was learnt beside a base in 4 bits and is added to the base's whole numbers, so answers can "
            "differ a little from those seen in tuning; --bits 4 packs the sum."
        )
    kinds &= {"BF16", "F16"}
    if not kinds:
        return ""
    return (
        f"The sums are rounded to {', '.join(sorted(kinds))}, so answers can differ a little from those of base and "
        "adapter; --dtype float32 keeps them."
    )
