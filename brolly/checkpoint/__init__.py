"""Bytes to Header, then tensors lazily. Standard library only, no torch; a header never reads a tensor's bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brolly.card import Header, TensorInfo
from brolly.checkpoint.bounded import exactly, json_object, opened, shown
from brolly.checkpoint.gguf import read_gguf
from brolly.checkpoint.llama2c import read_llama2c
from brolly.checkpoint.mapped import Mapped
from brolly.checkpoint.safetensors import read_safetensors, write_safetensors
from brolly.checkpoint.torchfile import read_torch
from brolly.errors import CheckpointError, NotFound, UnsafeCheckpoint

__all__ = ["Mapped", "json_object", "read_header", "read_index", "write_safetensors"]

EXPECTED = "expected a model: a folder with weights, or a .safetensors, .gguf, .pt, .pth or .bin file"


def read_header(path: Path) -> Header:
    """What a file or a folder of any known format says. Raises NotFound, CheckpointError."""
    path = Path(path)
    if os.path.isdir(path):  # os.path says no where Path would raise: names too long, loops of links
        return _read_folder(path)
    if not os.path.lexists(path):
        raise NotFound(f"{path} does not exist; {EXPECTED}.")
    return _read_file(path)


def _read_file(path: Path) -> Header:
    if path.name.endswith(".index.json"):
        tensors, files = _indexed(path)
        form = "safetensors" if files[0].suffix == ".safetensors" else "torch"
        return Header(path, form, tensors, _config(path.parent), files=files)
    with opened(path) as (file, size):
        head = exactly(file, min(size, 16), path)
    if head[:4] == b"GGUF":
        tensors, metadata = read_gguf(path)
        return Header(path, "gguf", tensors, metadata=metadata, files=(path,))
    # A llama2.c file may begin with 0x80 too (dim 128), and have a brace where safetensors has one (123 layers);
    # the bytes after either are nought there, and in no file of the others.
    pickled = head[:1] == b"\x80" and head[2:4] != b"\0\0" and path.suffix in (".pt", ".pth", ".bin", ".ckpt")
    if head[:4] == b"PK\x03\x04" or pickled:
        return Header(path, "torch", read_torch(path), _config(path.parent), files=(path,))
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and head[9:10] != b"\0"):
        tensors, metadata = read_safetensors(path)
        return Header(path, "safetensors", tensors, _config(path.parent), metadata, (path,))
    if path.suffix == ".bin":
        tensors, config = read_llama2c(path)
        return Header(path, "llama2c", tensors, config, files=(path,))
    if path.suffix in (".pt", ".pth", ".ckpt", ".gguf"):
        raise CheckpointError(f"{path} does not begin as a {path.suffix} file does; download it again.")
    raise CheckpointError(f"{path} is not a model; {EXPECTED}.")


def _read_folder(folder: Path) -> Header:
    """The weights of a folder in the order of preference: safetensors, PyTorch, Meta, GGUF, llama2.c."""
    try:
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror}).") from None

    def ending(*suffixes: str) -> list[str]:
        return [n for n in names if n.endswith(suffixes)]

    config = _config(folder)
    native = [n for n in ending(".safetensors") if n.startswith("consolidated")]
    usual = [n for n in ending(".safetensors") if n not in native and not n.startswith("adapter_")]
    for group in (usual, native):
        if not group:
            continue
        index = next(
            (n for n in ending(".safetensors.index.json") if n.startswith("consolidated") == (group is native)), ""
        )
        settings = _params(folder) or config if group is native else config
        if index:
            tensors, files = _indexed(folder / index)
            return Header(folder, "safetensors", tensors, settings, {}, files)
        chosen = ["model.safetensors"] if "model.safetensors" in group else group
        return _joined(folder, "safetensors", chosen, settings, lambda p: read_safetensors(p)[0])
    if meta := [n for n in ending(".pth") if n.startswith("consolidated.")]:
        return Header(
            folder, "meta", _ranks(folder, meta), _params(folder) or config, {}, tuple(folder / n for n in meta)
        )
    if index := next(iter(ending(".bin.index.json")), ""):
        tensors, files = _indexed(folder / index)
        return Header(folder, "torch", tensors, config, {}, files)
    pickled = [n for n in ending(".bin", ".pt", ".pth") if n.startswith(("pytorch_model", "model", "consolidated"))]
    if pickled:
        return _joined(folder, "torch", pickled, config, read_torch)
    for name in ending(".gguf")[:1]:
        tensors, metadata = read_gguf(folder / name)
        return Header(folder, "gguf", tensors, {}, metadata, (folder / name,))
    for name in ending(".pt", ".pth"):
        return _joined(folder, "torch", [name], config, read_torch)
    if plain := [n for n in ending(".bin") if not n.startswith("tok")]:
        return _read_file(folder / plain[0])
    if lost := [n for n in ending(".index.json")]:
        missing = sorted(set(_weight_map(folder / lost[0]).values()))
        raise CheckpointError(
            f"{folder} has {lost[0]} and none of its {len(missing)} files ({shown(missing[0])} …); pull it again."
        )
    if not names:
        raise CheckpointError(f"{folder} is empty; {EXPECTED}.")
    found = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    raise CheckpointError(f"{folder} holds {found}, and no weights; {EXPECTED}.")


def _joined(
    folder: Path, form: str, names: list[str], config: dict[str, Any], read: Callable[[Path], dict[str, TensorInfo]]
) -> Header:
    tensors: dict[str, TensorInfo] = {}
    for name in names:
        for key, info in read(folder / name).items():
            if key in tensors:
                raise CheckpointError(f"{folder}: {tensors[key].file.name} and {name} both hold {shown(key)}.")
            tensors[key] = info
    return Header(folder, form, tensors, config, {}, tuple(folder / n for n in names))


def read_index(path: Path) -> list[str]:
    """The tensor names of an index file, whether or not its shards are here."""
    return list(_weight_map(path))


def _weight_map(path: Path) -> dict[str, str]:
    found = json_object(path).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(v, str) for v in found.values()):
        raise CheckpointError(f"{path} has no weight_map; expected tensor names and the files that hold them.")
    return found


def _indexed(path: Path) -> tuple[dict[str, TensorInfo], tuple[Path, ...]]:
    """What an index promises, held against its shards, each a plain name beside it; and the shards."""
    weight_map = _weight_map(path)
    names = sorted(set(weight_map.values()))
    for name in names:
        if not re.fullmatch(r"[\w-][\w. +=-]{0,200}", name, re.ASCII):
            raise UnsafeCheckpoint(f"{path} points at {shown(name)}; a shard must be a file beside its index.")
    files = tuple(path.parent / name for name in names)
    if missing := [f.name for f in files if not os.path.exists(f)]:
        raise CheckpointError(f"{path} lacks {len(missing)} of its {len(files)} files ({missing[0]} …); pull it again.")
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        tensors |= read_safetensors(file)[0] if file.suffix == ".safetensors" else read_torch(file)
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise CheckpointError(f"{path} says that {shown(name)} is in {shard}, and it is not; pull it again.")
    return tensors, files


def _ranks(folder: Path, names: list[str]) -> dict[str, TensorInfo]:
    """Meta's model-parallel files: each tensor's pieces under one name, in the order of the ranks."""
    ranks = [read_torch(folder / name) for name in names]
    for name, rank in zip(names[1:], ranks[1:], strict=True):
        if rank.keys() != ranks[0].keys():
            raise CheckpointError(f"{folder}: {name} does not hold the same tensors as {names[0]}; pull it again.")
    if len(ranks) == 1:
        return ranks[0]
    first = ranks[0].items()
    return {
        key: TensorInfo(
            key, t.dtype, t.shape, t.file, t.offset, t.nbytes, t.strides, shards=tuple(rank[key] for rank in ranks)
        )
        for key, t in first
    }


def _config(folder: Path) -> dict[str, Any]:
    """config.json, or else params.json, or nothing."""
    path = folder / "config.json"
    return json_object(path) if os.path.exists(path) else _params(folder)


def _params(folder: Path) -> dict[str, Any]:
    path = folder / "params.json"
    return json_object(path) if os.path.exists(path) else {}
