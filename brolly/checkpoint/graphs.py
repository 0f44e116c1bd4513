"""A model in several graphs, as ONNX and OpenVINO are exported: which files are its parts, and one header of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from brolly.card import Header, TensorInfo
from brolly.place import Where

# the same graph again, in another precision or for another machine
AGAIN = re.compile(
    r"[._-](?:quantized|fp16|bf16|fp32|int[48]|uint8|q[48]|q4f16|bnb4|optimized|o[1-4]|quant|arm64|avx\w+|qint8\w*|cpu"
    r"|cuda|gpu|slim|ort)$",
    re.IGNORECASE,
)
PAST = re.compile(r"^(decoder(?:_model)?)(_merged|_with_past(?:_model)?)?(_model)?$")  # the same decoder, with a cache
PART = re.compile(
    r"(?:\w+_)?(?:encoder|decoder|embed_tokens|embeds?|embeddings|lm_head|text_model|vision_model|audio_model|prepare_\w+"
    r"|projector|connector|vision|audio|text|speech\w*|merger|joint\w*)(?:_\w+)?",
    re.IGNORECASE,
)
MAX_PARTS = 16


def parts(names: Iterable[str]) -> list[str]:
    """Of the graphs in a folder those that make up one model: a whole one, or an encoder, a decoder and their kin."""
    bases: dict[str, str] = {}  # what a graph is → the file of it, the plain one before its variants
    for name in sorted(names, key=lambda n: (len(n), n)):
        stem = name.rpartition(".")[0].removeprefix("openvino_")
        while (shorter := AGAIN.sub("", stem)) != stem:
            stem = shorter
        if "tokenizer" not in stem:
            bases.setdefault(stem, name)
    if "model" in bases:
        return [bases["model"]]
    decoders = [stem for stem in bases if PAST.match(stem)]
    merged = next((s for s in decoders if "merged" in s), None) or next((s for s in decoders if "past" not in s), None)
    kept = {s: n for s, n in bases.items() if merged is None or s not in decoders or s == merged}
    chosen = sorted(kept.values())
    return chosen[:MAX_PARTS] if all(PART.fullmatch(stem) for stem in kept) else chosen[:1]


def joined(folder: Where, headers: list[Header]) -> Header:
    """One header of several graphs: tensors are called part/name, and so are they in what their readers noted."""
    if len(headers) == 1:
        return headers[0]._replace(path=folder)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {**headers[0].metadata}
    notes: dict[str, Any] = {"packed": {}, "ops": {}}
    for header in headers:
        part = header.files[0].stem if header.files else header.path.stem
        tensors |= {f"{part}/{n}": info._replace(name=f"{part}/{n}") for n, info in header.tensors.items()}
        for key in ("scales", "integers", "constants"):
            notes.setdefault(key, []).extend(f"{part}/{name}" for name in header.metadata.get(key, ()))
        for key in ("external", "domains", "functions", "faults"):
            notes.setdefault(key, []).extend(header.metadata.get(key, ()))
        notes["packed"] |= {f"{part}/{name}": how for name, how in header.metadata.get("packed", {}).items()}
        for op, times in header.metadata.get("ops", {}).items():
            notes["ops"][op] = notes["ops"].get(op, 0) + times
    files = tuple(dict.fromkeys(file for header in headers for file in header.files))
    return Header(folder, headers[0].format, tensors, headers[0].config, metadata | notes, files)
