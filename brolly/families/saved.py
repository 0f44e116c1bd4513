"""Modules that a LoRA's folder holds whole beside its pairs (PEFT's modules_to_save): a classifier and its labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from brolly.card import Header, TensorInfo
from brolly.checkpoint.bounded import shown
from brolly.errors import CheckpointError

LABELS = "brolly.labels"  # in the file's metadata: PEFT has no place for them
MOST_MODULES, MOST_LABELS = 16, 1 << 16
DTYPES = ("F64", "F32", "F16", "BF16")
LAST = re.compile(r"(?:^|\.)classifier(?:\.out_proj)?\.weight")  # the layer that has a row a label


class Saved(NamedTuple):
    """Tensors by transformers' names, the labels, and the file without them."""

    tensors: Mapping[str, TensorInfo]
    labels: tuple[str, ...]
    rest: Header


def saved(header: Header, settings: Path, config: Mapping[str, Any]) -> Saved:
    """What modules_to_save names in an adapter's file; nothing where it names nothing. Raises CheckpointError."""
    modules = config.get("modules_to_save")
    if not modules:
        return Saved({}, (), header)
    if not isinstance(modules, list) or len(modules) > MOST_MODULES or not all(isinstance(m, str) for m in modules):
        raise CheckpointError(f"{settings}: modules_to_save is {shown(modules)}; expected a few names.")
    found: dict[str, TensorInfo] = {}
    rest: dict[str, TensorInfo] = {}
    for name, info in header.tensors.items():
        told = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.(weight|bias)", name)
        if told and ".lora_" not in name and any(f".{module}." in f".{told[1]}." for module in modules):
            found[f"{told[1]}.{told[2]}"] = info
        else:
            rest[name] = info
    if odd := next((info for info in found.values() if info.dtype not in DTYPES or info.shards), None):
        raise CheckpointError(f"{header.path}: {shown(odd.name)} is {odd.dtype}; expected one of {', '.join(DTYPES)}.")
    rows = next((info.shape[0] for name, info in found.items() if LAST.search(name) and info.shape), 0)
    if not 0 < rows <= MOST_LABELS:
        raise CheckpointError(
            f"{header.path} has a classifier of {rows:,} labels among {shown(modules)}; expected 1 to {MOST_LABELS:,}: "
            "other modules than a classifier are not replaced here; merge it with PEFT."
        )
    return Saved(found, labels_of(header, rows), header._replace(tensors=rest))


def labels_of(header: Header, n_labels: int) -> tuple[str, ...]:
    """A classifier's labels, or their numbers where nobody names them. Raises CheckpointError."""
    said = header.metadata.get(LABELS)
    if said is None:
        return tuple(f"LABEL_{i}" for i in range(n_labels))
    try:
        labels = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        labels = None
    if not isinstance(labels, list) or len(labels) != n_labels or not all(isinstance(text, str) for text in labels):
        raise CheckpointError(f"{header.path}: its labels are {shown(said)}; expected a list of {n_labels:,} texts.")
    return tuple(labels)
