"""Whether the files fit each other: shards and index, config and tensors. Only what is wrong is a finding."""

from __future__ import annotations

import re

from brolly.card import Finding
from brolly.checkpoint.folders import SHARD, weight_map
from brolly.errors import BrollyError
from brolly.identity.subject import Subject

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|blk)\.(\d+)\.")


def misfits(subject: Subject) -> list[Finding]:
    """Shards that no index names, an index whose total is not that of its tensors, a config of another shape."""
    said = subject.header.metadata.get("faults")  # of a reader that went on: a part missing or cut short
    found = [
        Finding("missing-file", "warning", subject.where.name, text)
        for text in (said if isinstance(said, list) else [])[:20]
        if isinstance(text, str)
    ]
    if subject.header.path != subject.where or subject.header.format not in ("safetensors", "torch"):
        return found
    top = [n for n in subject.files if "/" not in n]
    for index in [n for n in top if n.endswith(".index.json")]:
        stem = index.removesuffix(".index.json").rpartition(".")[0]
        named = {f.name for f in subject.header.files if (m := SHARD.fullmatch(f.name)) and m[1] == stem}
        try:  # the header has read the index of its own files; those of another upload are not read yet
            named = named or set(weight_map(subject.folder / index).values())
        except BrollyError:
            continue
        for name in top:
            matched = SHARD.fullmatch(name)
            if matched and matched[1] == stem and name not in named and name.endswith(_suffix(named)):
                message = (
                    f"{name} is named by no row of {index}: a file too many, perhaps of another upload; remove it."
                )
                found.append(Finding("extra-shards", "warning", name, message))
        found += _total(subject, index)
    return found + _shape(subject)


def _suffix(named: set[str]) -> str:
    first = next(iter(named), "")
    return first[first.rfind(".") :]


def _total(subject: Subject, index: str) -> list[Finding]:
    metadata = subject.json(index).get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if type(total) is not int or subject.faults or subject.header.format != "safetensors":
        return []
    have = subject.header.n_bytes
    names = len(subject.json(index).get("weight_map", ()))
    # Tied tensors are counted by some writers and left out by others; a whole multiple of a dtype is another rounding.
    if names != len(subject.header.tensors) or have in (total, 2 * total, total // 2) or abs(have - total) < total / 50:
        return []
    message = f"{index} says {total:,} bytes, and its tensors have {have:,}; the index is of another version."
    return [Finding("index-mismatch", "warning", index, message)]


def _shape(subject: Subject) -> list[Finding]:
    """A vocabulary or a number of layers other than the tensors have."""
    config = subject.header.config
    tensors = subject.header.tensors
    packed = "quantization_config" in config or "quantization" in config
    if not config or not tensors or subject.faults or packed or subject.has("adapter_config.json"):
        return []
    width = config.get("hidden_size")
    vocab = config.get("vocab_size")
    embedding = tensors.get("model.embed_tokens.weight") or tensors.get("transformer.wte.weight")
    found = []
    if embedding and type(width) is int and len(embedding.shape) == 2 and embedding.shape[1] != width:
        message = f"config.json says hidden_size {width}, and {embedding.name} has {embedding.shape[1]} columns."
        found.append(Finding("config-mismatch", "warning", "config.json", message))
    elif embedding and type(vocab) is int and len(embedding.shape) == 2 and embedding.shape[0] < vocab:
        message = f"config.json says vocab_size {vocab:,}, and {embedding.name} has {embedding.shape[0]:,} rows."
        found.append(Finding("config-mismatch", "warning", "config.json", message))
    n_layers = config.get("num_hidden_layers")
    prefix = "model.layers."
    have = {int(m[1]) for n in tensors if n.startswith(prefix) and (m := LAYER.search("." + n[6:]))}
    if type(n_layers) is int and have and max(have) + 1 < n_layers and not config.get("text_config"):
        message = f"config.json says {n_layers} layers, and the tensors have {max(have) + 1}."
        found.append(Finding("config-mismatch", "warning", "config.json", message))
    return found
