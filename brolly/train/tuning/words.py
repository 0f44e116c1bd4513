"""Rows of an embedding that are learnt beside a LoRA: those of tokens that the base has never been taught.

All such tokens of a base lie about where they began, next to each other: no change of the layers between can tell one
from another, and no LoRA can make the model write it. PEFT calls them trainable tokens. V vocabulary, C dim, n rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from brolly.fill import table_shapes

NEAR = 0.03  # of a row's length: trained rows of the models looked at lie at least ten times as far from any other
SKETCH, CHUNK = 32, 256
MOST = 4096  # rows that are learnt at most: more are no exception


class LearntRows(nn.Module):
    """An Embedding or a head (V, C) of which some rows are learnt, in float32; the others stay."""

    def __init__(self, base: Any, ids: Tensor, rows: Tensor | None = None) -> None:
        super().__init__()
        self.base = base
        table: Tensor = base.weight
        ids = ids.to(table.device)
        place = torch.full((len(table),), -1, dtype=torch.int64, device=table.device)
        place[ids] = torch.arange(len(ids), device=table.device)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.rows = nn.Parameter((table.detach()[ids] if rows is None else rows.to(table.device)).float().clone())

    @property
    def weight(self) -> Tensor:
        """The whole table, as `logits` and losses multiply by it."""
        table: Tensor = self.base.weight
        return table.index_copy(0, self.ids, self.rows.to(table.dtype))  # type: ignore[arg-type]

    def forward(self, ids: Tensor) -> Tensor:
        """ids (…) → (…, C)."""
        found: Tensor = self.base(ids)
        place: Tensor = self.place[ids]  # type: ignore[index]
        return torch.where((place >= 0)[..., None], self.rows.to(found.dtype)[place.clamp(min=0)], found)


def untaught(table: Tensor, ids: Iterable[int]) -> list[int]:
    """Those of some tokens whose row of a table (V, C) lies next to another token's. Sketches first, then the rows."""
    wanted = torch.tensor(sorted(set(ids)), dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    table = table.detach().to("cpu", torch.float32)
    short = table @ torch.randn(table.shape[1], SKETCH, generator=generator) / SKETCH**0.5  # (V, 32)
    found = []
    for part in wanted.split(CHUNK):
        near = torch.cdist(short[part], short) < 2 * NEAR * table[part].norm(dim=1, keepdim=True)
        near[torch.arange(len(part)), part] = False
        for i, others in zip(part.tolist(), near, strict=True):
            if bool(others.any()):
                apart = (table[others] - table[i]).norm(dim=1).min()
                if float(apart) < NEAR * float(table[i].norm()):
                    found.append(i)
    return found


def learn_rows(network: Any, ids: list[int]) -> None:
    """Let a causal network learn these tokens' rows, of its embedding and, where that is another, of its head."""
    which = torch.tensor(ids)
    for name in table_shapes(network):
        network.set_submodule(name, LearntRows(network.get_submodule(name), which))
