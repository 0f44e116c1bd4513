"""TensorRT engines: opaque by design. Told is that it is one, which version built it, and what stands around it.

The plan's tag and version: github.com/NVIDIA/TensorRT, samples/common/sampleEngines.cpp (read 2026-11).
"""

from __future__ import annotations

from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import exactly, json_object, opened, parse_json
from brolly.checkpoint.gathered import size_there
from brolly.errors import CheckpointError
from brolly.place import Where

PLAN = b"ftrt"
MAX_PREFIX = 2**20  # bytes of JSON that Ultralytics writes before the plan
SETTINGS = ("pretrained_config", "build_config", "builder_config", "plugin_config")  # of a TensorRT-LLM config.json


def read_tensorrt(path: Where) -> Header:
    """A Header without tensors: an engine keeps its weights and layers in a form that only TensorRT reads.

    metadata: opaque (True), magic, serialization (of the plan; None where it does not begin as one), tensorrt
    (the version that built it, where the plan tells), written_by and model (Ultralytics' JSON before the plan).
    config is TensorRT-LLM's config.json beside it, where there is one. Raises NotFound, CheckpointError.
    """
    says: dict[str, Any] = {"opaque": True, "magic": None, "serialization": None, "tensorrt": None}
    with opened(path) as (file, size):
        head = exactly(file, min(size, 32), path)
        length = int.from_bytes(head[:4], "little")
        if head[:4] != PLAN and head[4:5] == b"{" and 2 <= length <= min(MAX_PREFIX, size - 4):
            file.seek(4)
            says |= {
                "written_by": "Ultralytics",
                "model": parse_json(exactly(file, length, path), f"{path}: its notes"),
            }
            head = exactly(file, min(size - 4 - length, 32), path)
    if head[:4] == PLAN:
        says["magic"], says["serialization"] = "ftrt", int.from_bytes(head[4:8], "little")
        if says["serialization"] == 0 and len(head) >= 28:
            says["tensorrt"] = ".".join(str(n) for n in head[24:28])
    elif head[:4] == b"ptrt":
        says["magic"] = "ptrt"
    elif size < 64 or not head.strip(b"\0"):
        raise CheckpointError(f"{path} does not begin as a TensorRT engine does; build it again.")
    return Header(path, "tensorrt", {}, _settings(path.parent), says, (path,))


def _settings(folder: Where) -> dict[str, Any]:
    """TensorRT-LLM's config.json; nothing where the file beside is another's."""
    if size_there(folder / "config.json") is None:
        return {}
    try:
        found = json_object(folder / "config.json")
    except CheckpointError:
        return {}
    return found if any(key in found for key in SETTINGS) else {}
