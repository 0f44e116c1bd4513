"""People's data → rows: any common file and shape, found out by looking, with every bad row named."""

from __future__ import annotations

from brolly.rows.fault import RowFault
from brolly.rows.rows import Row, Rows, open_rows
from brolly.rows.show import preview
from brolly.rows.split import Overlap, held_out, overlap
from brolly.rows.values import (
    Captioned,
    Completion,
    Conversation,
    Judged,
    Labelled,
    Pair,
    Preference,
    Prompted,
    Spoken,
    Text,
    Value,
    input_of,
    text_of,
)

__all__ = [
    "Captioned", "Completion", "Conversation", "Judged", "Labelled", "Overlap", "Pair", "Preference", "Prompted", "Row",
    "RowFault", "Rows", "Spoken", "Text", "Value", "held_out", "input_of", "open_rows", "overlap", "preview", "text_of",
]  # fmt: skip
