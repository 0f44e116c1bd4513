"""How a new classifier is written: beside a LoRA as modules_to_save, or in a whole model as transformers has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brolly.checkpoint import write_safetensors
from brolly.families.heads import Headed
from brolly.families.saved import LABELS
from brolly.train.export import as_bytes

Row = tuple[str, str, tuple[int, ...], Callable[[], Any]]
SENTENCES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")  # of an embedder


def whole_rows(head: Headed, numbers: Callable[[str], Tensor], before: str = "") -> list[Row]:
    """The classifier's tensors by transformers' names, with something before them; `numbers` has them by ours."""
    found: list[Row] = []
    for ours, theirs in head.names.items():
        tensor = numbers(ours).detach()
        found.append((before + theirs, "F32", tuple(tensor.shape), partial(as_bytes, tensor, torch.float32)))
    return found


def settings(head: Headed) -> dict[str, Any]:
    """What adapter_config.json says of it."""
    texts = head.architecture.endswith("ForSequenceClassification")
    return {"modules_to_save": list(head.modules), "task_type": "SEQ_CLS" if texts else None}


def metadata(head: Headed) -> dict[str, str]:
    return {LABELS: json.dumps(head.labels)}


def of_body(rows: Iterable[Row], targets: Mapping[str, tuple[str, ...]], head: Headed) -> list[Row]:
    """A base's tensors as the class with the classifier calls them, without those that make way for it."""
    found: list[Row] = []
    for name, dtype, shape, data in rows:
        if not any(target in head.names or target.startswith(("head.", "pool.")) for target in targets[name]):
            found.append((head.theirs(name), dtype, shape, data))
    return found


def write_modules(base: Path, folder: Path, rows: Iterable[Row]) -> list[Row]:
    """The folders of an embedder's modules, with the tensors that lie in them; returns the other rows."""
    apart: dict[str, list[Row]] = {}
    rest = []
    for row in rows:
        place, _, name = row[0].rpartition("/")
        if place:
            apart.setdefault(place, []).append((name, *row[1:]))
        else:
            rest.append(row)
    for path in sorted(base.glob("[0-9]_*/config.json")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / "config.json").write_bytes(path.read_bytes())
    for place, tensors in apart.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / place / "model.safetensors", tensors, {"format": "pt"})
    return rest
