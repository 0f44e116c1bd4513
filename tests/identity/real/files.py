"""A row of real_models.jsonl as a folder on disk: real configs and headers, and holes for the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.identity import hollow
from tests.identity.real import decoders, packings, pictures, towers
from tests.identity.real.decoders import Tensors

LAYOUTS = decoders.LAYOUTS | towers.LAYOUTS | pictures.LAYOUTS
hollow.BYTES.setdefault("BOOL", 1)
hollow.BYTES.setdefault("F8_E8M0", 1)
Row = dict[str, Any]


def cached(root: Path, name: str) -> Path:
    """Where the hub's cache keeps a repository's files; a name without organisation gets a plain folder."""
    return root / f"models--{name.replace('/', '--')}" / "snapshots" / "main" if name.count("/") == 1 else root / "x"


def written(row: Row, folder: Path) -> Path:
    """The folder of a row; its one file where that is a GGUF."""
    folder.mkdir(parents=True)
    for name, content in row.get("texts", {}).items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    if row.get("layout") == "llama_gguf":
        return hollow.llama_gguf(folder / row["file"])
    if row.get("layout") == "deepseek_gguf":
        tensors = pictures.deepseek_gguf(row["shape"])
        return pictures.gguf(folder / row["file"], row["pairs"], tensors)
    if "parts" in row:
        (folder / "model_index.json").write_text(json.dumps(row["model_index"]))
        for name, part in row["parts"].items():
            _part(folder / name, part)
        return folder
    if "adapter" in row:
        save(folder, decoders.lora(row["adapter"]), "adapter_model.safetensors")
        return folder
    config = row.get("config")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if row.get("layout"):
        save(folder, tensors_of(row), "model.safetensors", row.get("shards", 1), row.get("index_metadata", {}))
    return folder


def tensors_of(row: Row) -> Tensors:
    tensors = LAYOUTS[row["layout"]](row["config"])
    if row.get("packing"):
        tensors = packings.packed(tensors, *packings.PACKINGS[row["packing"]])
    return packings.cast(tensors, row["dtype"]) if "dtype" in row else tensors


def _part(folder: Path, part: Row) -> None:
    folder.mkdir()
    (folder / part.get("text", "config.json")).write_text(json.dumps(part["config"]))
    if "layout" not in part:
        return
    tensors = LAYOUTS[part["layout"]](part["config"])
    if "dtype" in part:
        tensors = {n: (part["dtype"] if kind == "F32" else kind, shape) for n, (kind, shape) in tensors.items()}
    transformers = "text_encoder" in folder.name or folder.name == "safety_checker"
    save(folder, tensors, "model.safetensors" if transformers else "diffusion_pytorch_model.safetensors")


def save(folder: Path, tensors: Tensors, name: str, shards: int = 1, metadata: Mapping[str, Any] | None = None) -> None:
    """One file, or shards with their index; only the headers take room."""
    shapes = {n: shape for n, (_, shape) in tensors.items()}
    dtypes = {n: kind for n, (kind, _) in tensors.items()}
    parts = hollow.shards(shapes, shards)
    stem, _, suffix = name.rpartition(".")
    weight_map, total = {}, 0
    for number, part in enumerate(parts, 1):
        file = f"{stem}-{number:05d}-of-{shards:05d}.{suffix}" if shards > 1 else name
        head, size = hollow.safetensors_header(part, dtypes)
        hollow.write_hollow(folder, {file: (head, size)})
        weight_map |= dict.fromkeys(part, file)
        total += size - len(head)
    if shards > 1:
        index = {"metadata": {"total_size": total, **(metadata or {})}, "weight_map": weight_map}
        (folder / f"{name}.index.json").write_text(json.dumps(index))
