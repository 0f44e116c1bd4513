"""Late interaction: a vector a token, of queries filled up with masks, of documents without their punctuation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brolly.configs import LateConfig
from brolly.errors import UnsupportedTask
from brolly.layers.transformer import Spans
from brolly.media.text import Tokenizer


def late_of(config: Any) -> LateConfig | None:
    """The settings of late interaction, where the network has it."""
    found: LateConfig | None = getattr(getattr(config, "pool", None), "late", None)
    return found


def longest(config: Any, role: str | None) -> int:
    """Most tokens of a text of this role."""
    late = late_of(config)
    most = (late.query_length if role == "query" else late.document_length) if late else None
    return min(config.context, most or config.context)


def queries(model: Any, late: LateConfig, rows: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, Tensor]]:
    """Each query's vectors: its own tokens', and those of the masks that fill it up, which stand for what it leaves
    unsaid. Where tokens do not see these, queries of one length would still differ, so that each passes alone."""
    tokenizer: Tokenizer = model.tokenizer
    names = (late.expand_token, *(tokenizer.special_tokens.get(role) for role in ("mask_token", "eos_token")))
    mask = next((i for name in names if (i := tokenizer.token_id(name)) is not None), None)
    if mask is None and late.expand:
        raise UnsupportedTask(f"{tokenizer.source} has no mask, with which this model fills up queries.")
    for i, row in rows.items():
        full = [*row, *[mask or 0] * (min(late.expand, model.network.config.context) - len(row))]
        ids, spans = torch.tensor(full, device=model.device), Spans([len(full)], model.device)
        seen = None if late.attend or len(full) == len(row) else len(row)
        with torch.inference_mode():
            yield i, model.network.texts(ids, spans, seen)[0].float()


def kept(tokenizer: Tokenizer, late: LateConfig, ids: Sequence[int]) -> list[bool]:
    """Which tokens of a document keep their vectors."""
    unknown = tokenizer.token_id(tokenizer.special_tokens.get("unk_token"))
    skipped = {tokenizer.token_id(word) for word in late.skip} - {unknown}
    return [i not in skipped for i in ids]
