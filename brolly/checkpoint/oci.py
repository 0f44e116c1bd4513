"""Models packed as OCI images and Ollama's own store: a manifest names blobs by their hash; and Modelfiles."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import json_object, opened, shown
from brolly.errors import CheckpointError, NotFound, UnsafeCheckpoint
from brolly.place import Where, is_folder

MAX_NESTED = 4  # Modelfiles and manifests that name each other
NESTED: ContextVar[int] = ContextVar("nested", default=0)
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
MAX_LAYERS = 256
MAX_TEXT = 2**20  # bytes
MODEL = ("image.model", "ai.gguf", "model.weight", "safetensors", "model.v1", "+gguf")
INSTRUCTION = re.compile(r"^\s*(FROM|ADAPTER|LICENSE|TEMPLATE|SYSTEM|PARAMETER|MESSAGE|REQUIRES)\s+(.*)$", re.I)


def read_modelfile(path: Where) -> Header:
    """A Modelfile: the model beside it that its FROM names. Raises CheckpointError where that is a name elsewhere."""
    if path.name != "Modelfile" and not path.name.endswith(".Modelfile"):
        raise CheckpointError(f"{path} is not a model; a Modelfile must be called Modelfile.", "no-model")
    with opened(path) as (file, size):
        text = file.read(min(size, MAX_TEXT)).decode("utf-8", "replace")
    said: dict[str, Any] = {}
    for line in text.splitlines():
        if matched := INSTRUCTION.match(line):
            key = matched[1].lower()
            said.setdefault(key, matched[2].strip().strip('"')[:500])
    source = said.get("from", "")
    if not source:
        raise CheckpointError(f"{path} has no FROM; expected the model that it builds on.")
    target = _within(path.parent, source, path)
    if target is None:
        raise NotFound(f"{path} builds on {shown(source)}, which is not beside it; identify that model.")
    header = _named(target, path)
    return header._replace(path=path, metadata={**header.metadata, "modelfile": said})


def _within(folder: Where, name: str, path: Where) -> Where | None:
    """A path that a Modelfile names, if it lies in the Modelfile's own folder."""
    name = name.removeprefix("./")
    if name.startswith(("/", "~")) or ".." in name.split("/"):
        raise UnsafeCheckpoint(
            f"{path} points at {shown(name)}, outside its folder; identify that file by its own path.", "external-path"
        )
    target = folder / name
    return target if target.exists() else None


def read_oci(path: Where) -> Header:
    """The model of an OCI layout (a folder with oci-layout, index.json, blobs/) or of a manifest in Ollama's store."""
    folder = path if is_folder(path) else path.parent
    manifest = json_object(path / "index.json") if is_folder(path) else json_object(path)
    for _ in range(3):  # an index may name an index
        inner = manifest.get("manifests")
        if not isinstance(inner, list) or not inner or not isinstance(inner[0], dict):
            break
        manifest = json_object(_blob(path, folder, inner[0].get("digest")))
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise CheckpointError(f"{path} is an OCI manifest without a list of layers; expected one that holds a model.")
    config = manifest.get("config")
    about: dict[str, Any] = {}
    if isinstance(config, dict):
        try:
            about = json_object(_blob(path, folder, config.get("digest")))
        except CheckpointError:
            about = {}
    texts: dict[str, str] = {}
    model: Header | None = None
    for layer in layers:
        kind = layer.get("mediaType", "") if isinstance(layer, dict) else ""
        if not isinstance(kind, str):
            continue
        if model is None and any(word in kind for word in MODEL) and "license" not in kind:
            model = _named(_blob(path, folder, layer.get("digest")), path)
        elif "license" in kind:
            texts["license"] = _text(_blob(path, folder, layer.get("digest")))
        elif "template" in kind:
            texts["template"] = _text(_blob(path, folder, layer.get("digest")))
    if model is None:
        raise CheckpointError(
            f"{path} is an OCI image without a model's layer; expected weights in GGUF or safetensors."
        )
    return model._replace(path=path, metadata={**model.metadata, "oci": {"config": about, **texts}})


def _named(target: Where, path: Where) -> Header:
    """The model that a Modelfile or a manifest names, unless that leads round in a circle."""
    from brolly.checkpoint import read_header

    if NESTED.get() >= MAX_NESTED:
        raise CheckpointError(f"{path} builds on itself; expected a file of weights.", "no-model")
    before = NESTED.set(NESTED.get() + 1)
    try:
        return read_header(target)
    finally:
        NESTED.reset(before)


def _blob(path: Where, folder: Where, digest: Any) -> Where:
    """A blob's file: in the layout's blobs/sha256/, or in Ollama's blobs/sha256-…, somewhere above the manifest."""
    matched = DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if not matched:
        raise CheckpointError(f"{path} names a blob by {shown(digest)}; expected sha256 and 64 hexadecimal digits.")
    above = folder
    for _ in range(7):
        for place in (above / "blobs" / "sha256" / matched[1], above / "blobs" / f"sha256-{matched[1]}"):
            if place.exists():
                return place
        above = above.parent
    raise CheckpointError(f"{path} lacks its blob {digest[:19]}…; pull it again.", "missing-shards", digest[:19])


def _text(path: Where) -> str:
    with opened(path) as (file, size):
        return file.read(min(size, MAX_TEXT)).decode("utf-8", "replace")
