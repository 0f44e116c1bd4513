"""NVIDIA NeMo's `.nemo`: a tar, plain or gzipped, of model_config.yaml and of model_weights.ckpt (PyTorch's zip)."""

from __future__ import annotations

import re
from typing import Any

from brolly.card import Header, TensorInfo
from brolly.checkpoint.archives import TarStore
from brolly.checkpoint.bounded import opened, shown
from brolly.checkpoint.torchfile import survey_torch
from brolly.errors import CheckpointError
from brolly.place import Place, Where

MAX_CONFIG = 2**20  # bytes; tokenizers' words make some long
MAX_KEYS = 5000
LINE = re.compile(r"( *)(- +)?(?:([\w.+/-]+|'[^']*'|\"[^\"]*\"):(?: +(.*))?|(.*))$")


def read_nemo(path: Where) -> Header:
    """The weights' tensors and the configuration. Raises CheckpointError, UnsafeCheckpoint.

    config: the plain values of the YAML's top level, and of the level within it; metadata: "target" (the class in
    NeMo), "weights" (the member's name, or None), and what `survey_torch` tells of it.
    """
    store = TarStore(path)
    configs = [n for n in store.sizes if n.rpartition("/")[2] == "model_config.yaml"]
    if not configs:
        found = ", ".join(list(store.sizes)[:5])
        raise CheckpointError(f"{path} is no NeMo model: it holds {shown(found)}; expected a model_config.yaml.")
    with opened(Place(store, configs[0])) as (file, size):
        config = yaml_values(file.read(min(size, MAX_CONFIG)).decode("utf-8", "replace"))
    weights = next((n for n in store.sizes if n.endswith((".ckpt", ".pt"))), None)
    metadata: dict[str, Any] = {"target": config.get("target"), "weights": weights}
    tensors: dict[str, TensorInfo] = {}
    if weights is not None and not store.kind:  # of a packed tar the weights' directory lies gigabytes away
        tensors, told = survey_torch(Place(store, weights))
        metadata |= told
    return Header(path, "nemo", tensors, config, metadata, (path,))


def yaml_values(text: str) -> dict[str, Any]:
    """The plain values of a block YAML's first two levels: texts, numbers, truth, nothing, and lists in a line."""
    found: dict[str, Any] = {}
    inner: dict[str, Any] | None = None
    key, depth, n_keys = "", 0, 0
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "---", "...")):
            continue
        matched = LINE.match(line)
        if matched is None or n_keys > MAX_KEYS:
            continue
        indent, dash, name, value, item = len(matched[1]), matched[2], matched[3], matched[4], matched[5]
        if indent == 0 and name is not None and not dash:
            key, depth, inner = name.strip("'\""), 0, None
            found[key] = _scalar(value) if value else None
            n_keys += 1
        elif dash and key and (not depth or indent <= depth) and item:
            listed = found[key] if isinstance(found.get(key), list) else []
            if found.get(key) is None or isinstance(found[key], list):
                found[key] = [*listed[:999], _scalar(item)] if len(listed) < 1000 else listed
        elif name is not None and not dash and indent and key and (not depth or indent == depth):
            depth = indent
            if inner is None:
                if found.get(key) is not None:
                    continue
                inner = found[key] = {}
            inner[name.strip("'\"")] = _scalar(value) if value else None
            n_keys += 1
    return found


def _scalar(text: str) -> Any:
    text = text.strip()
    if text[:1] in ("'", '"'):
        return text[1 : text.rfind(text[0])] if text.rfind(text[0]) > 0 else text
    text = text.partition(" #")[0].strip()
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(part) for part in text[1:-1].split(",")[:1000] if part.strip()]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("null", "~", ""):
        return None
    try:
        return int(text) if re.fullmatch(r"[-+]?\d{1,18}", text) else float(text)
    except ValueError:
        return text
