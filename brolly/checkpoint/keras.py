"""Keras: version 2 in HDF5 (`.h5`), version 3 in a zip (`.keras`); the model's config, its layers, and its weights."""

from __future__ import annotations

from collections import Counter
from typing import Any, BinaryIO

from brolly.card import Header
from brolly.checkpoint.bounded import MAX_JSON, opened, parse_json, shown
from brolly.errors import CheckpointError
from brolly.place import Place, Where

MAX_UNPACKED = 64 * 2**20  # bytes of packed weights that are unpacked to look at them
MAX_NAMES = 1000
WEIGHTS = "model.weights.h5"
LAYERS = ("layers", "layer", "cell", "cells", "forward_layer", "backward_layer")  # keys that hold layers in a config


def read_keras(path: Where) -> Header:
    """A Keras model, or the weights of one; HDF5 that nothing marks as Keras's has the format "hdf5".

    The metadata: "keras_version", "layers" (class → how many), "lambda_layers" (names of those that hold a program),
    "registered" (classes that the publisher registered), "modules" (where the config's classes are to be found),
    "optimizer" (whether an optimizer's state lies with the weights), "attributes" (HDF5's). Raises CheckpointError.
    """
    with opened(path) as (file, size):
        zipped = file.read(2) == b"PK"
    return _zip(path) if zipped else _hdf5(path)


def _hdf5(path: Where) -> Header:
    from brolly.checkpoint.hdf5 import read_hdf5

    header = read_hdf5(path)
    said = header.metadata
    text, version = said.get("model_config"), said.get("keras_version") or _inner(said).get("keras_version")
    config = _config(text.encode(), f"{path}: model_config") if isinstance(text, str) else {}
    marked = config or version or "layer_names" in said or "layer_names" in _inner(said)
    if not marked and not any(_is_keras(name) for name in header.tensors):
        return header._replace(metadata={"attributes": said})
    metadata = _told(config) | {"keras_version": version if isinstance(version, str) else None, "attributes": said}
    metadata["optimizer"] = _optimizer(header.tensors)
    return Header(path, "keras-h5", header.tensors, config, metadata, (path,))


def _inner(said: dict[str, Any] | Any) -> dict[str, Any]:
    found = said.get("/model_weights")
    return found if isinstance(found, dict) else {}


def _is_keras(name: str) -> bool:
    """Whether Keras 3 calls a variable so: layers/dense/vars/0."""
    parts = name.split("/")
    return len(parts) > 1 and parts[-2] == "vars" and parts[-1].isdecimal()


def _optimizer(names: Any) -> bool:
    return any(name.startswith(("optimizer_weights/", "optimizer/", "_optimizer/")) for name in names)


def _zip(path: Where) -> Header:
    from brolly.checkpoint.archives import ZipStore

    store = ZipStore(path)
    sizes = store.sizes
    if "config.json" not in sizes:
        raise CheckpointError(f"{path} has no config.json; expected a Keras model: a zip of config and weights.")
    config = _config(_member(store, "config.json", path), f"{path}: config.json")
    metadata = _told(config) | {"keras_version": None, "attributes": {}}
    if "metadata.json" in sizes:
        said = _config(_member(store, "metadata.json", path), f"{path}: metadata.json")
        version = said.get("keras_version")
        metadata["keras_version"] = version if isinstance(version, str) else None
    header = _weights(store, path)
    if header is None:
        return Header(path, "keras", {}, config, metadata | {"optimizer": None}, (path,))
    metadata |= {"optimizer": _optimizer(header.tensors), "attributes": header.metadata}
    return Header(path, "keras", header.tensors, config, metadata, (path,))


def _member(store: Any, name: str, path: Where) -> bytes:
    if store.sizes[name] > MAX_JSON:
        raise CheckpointError(
            f"{path}: {name} has {store.sizes[name]:,} bytes; a configuration has at most {MAX_JSON:,}."
        )
    with store.open(name) as file:
        found: bytes = file.read(MAX_JSON + 1)
    return found


def _weights(store: Any, path: Where) -> Header | None:
    """The weights' header, wherever they lie in the zip; None where they are absent or packed too large."""
    from brolly.checkpoint.archives import STORED, data_start

    name = next((n for n in (WEIGHTS, "model.weights.npz") if n in store.sizes), "")
    if not name:
        return None
    if name.endswith(".npz"):
        from brolly.checkpoint.npy import read_npz

        return read_npz(Place(store, name))
    from brolly.checkpoint.hdf5 import read_open

    member = store.members[name]
    place = Place(store, name)
    if member.method == STORED:
        with opened(path) as (file, size):
            start = data_start(file, member, size, str(path))
        with store.open(name) as part:
            header = read_open(part, member.packed, place)
        moved = {n: t._replace(file=path, offset=start + t.offset) for n, t in header.tensors.items()}
        return header._replace(tensors=moved)
    if member.size > MAX_UNPACKED:
        return None
    from io import BytesIO

    with store.open(name) as packed:
        raw = _all(packed, place)
    return read_open(BytesIO(raw), len(raw), place)


def _all(file: BinaryIO, place: Where) -> bytes:
    raw = file.read(MAX_UNPACKED + 1)
    if len(raw) > MAX_UNPACKED:
        raise CheckpointError(f"{place} unpacks to more bytes than its zip says; the file is made up.")
    return raw


def _config(raw: bytes, source: str) -> dict[str, Any]:
    found = parse_json(raw, source)
    if not isinstance(found, dict):
        raise CheckpointError(f"{source} is {shown(found)}; expected an object of key and value.")
    return found


def _told(config: dict[str, Any]) -> dict[str, Any]:
    """What a config's classes are, without making any of them."""
    layers: Counter[str] = Counter()
    lambdas: dict[str, None] = {}
    registered: dict[str, None] = {}
    modules: dict[str, None] = {}
    waiting: list[tuple[Any, str, bool]] = [(config, "", False)]  # value, the layer that it lies in, is it a layer
    while waiting:
        value, layer, is_layer = waiting.pop()
        if isinstance(value, list):
            waiting += [(inner, layer, is_layer) for inner in reversed(value) if isinstance(inner, (dict, list))]
        if not isinstance(value, dict):
            continue
        kind, inside = value.get("class_name"), value.get("config")
        if isinstance(kind, str) and ("config" in value or is_layer):
            kind = kind[:200]
            if is_layer:
                layers[kind] += 1 if kind in layers or len(layers) < MAX_NAMES else 0
                layer = str(inside.get("name") or kind)[:200] if isinstance(inside, dict) else kind
            if kind in ("Lambda", "__lambda__") or (kind.endswith(">Lambda")):
                lambdas[layer or kind] = None
            for key, found in (("registered_name", registered), ("module", modules)):
                if isinstance(value.get(key), str) and len(found) < MAX_NAMES:
                    found[value[key][:200]] = None
        for key in reversed(list(value)):
            if isinstance(value[key], (dict, list)):
                waiting.append((value[key], layer, key in LAYERS))
    custom = [name for name in registered if ">" in name]
    return {
        "layers": dict(layers.most_common()),
        "lambda_layers": list(lambdas)[:MAX_NAMES],
        "registered": custom,
        "modules": list(modules),
    }
