"""One file of any known format to its Header: told by its first bytes where it has a magic number, else by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from brolly.card import Header
from brolly.checkpoint.bounded import json_object, note, opened
from brolly.errors import CheckpointError
from brolly.place import Where, there

EXPECTED = "expected a model: a folder with weights, or a .safetensors, .gguf, .pt, .pth or .bin file"
HEAD = 512  # bytes looked at: tar's magic stands at 257
# format: the module and function that read it; imported when such a file is met
READERS = {
    "ggml": ("ggml", "read_ggml"),
    "keras-h5": ("keras", "read_keras"),
    "keras": ("keras", "read_keras"),
    "npy": ("npy", "read_npy"),
    "npz": ("npy", "read_npz"),
    "onnx": ("onnx", "read_onnx"),
    "tflite": ("tflite", "read_tflite"),
    "savedmodel": ("tensorflow", "read_savedmodel"),
    "tf-checkpoint": ("tensorflow", "read_tf_checkpoint"),
    "tf-graph": ("tensorflow", "read_graphdef"),
    "flax": ("flax", "read_flax"),
    "coreml": ("coreml", "read_coreml"),
    "openvino": ("openvino", "read_openvino"),
    "tensorrt": ("tensorrt", "read_tensorrt"),
    "nemo": ("nemo", "read_nemo"),
    "orbax": ("orbax", "read_orbax"),
    "modelfile": ("oci", "read_modelfile"),
    "oci": ("oci", "read_oci"),
}
SUFFIXES = {
    ".onnx": "onnx", ".tflite": "tflite", ".msgpack": "flax", ".mlmodel": "coreml", ".engine": "tensorrt",
    ".plan": "tensorrt", ".trt": "tensorrt", ".nemo": "nemo", ".xml": "openvino", ".npz": "npz", ".npy": "npy",
    ".pb": "tf-graph", ".keras": "keras", ".h5": "keras-h5", ".hdf5": "keras-h5", ".index": "tf-checkpoint",
}  # fmt: skip
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")
MODEL_SUFFIXES = (".safetensors", ".gguf", ".ggml", ".zip", ".tar", ".tgz", ".gz", *PICKLED, *SUFFIXES)


def read_file(path: Where, faults: list[CheckpointError] | None = None) -> Header:
    """What one file says. With `faults`, what need not end the reading is put there, and what is told is still true."""
    if path.name.endswith(".index.json"):
        from brolly.checkpoint.folders import indexed

        tensors, files = indexed(path, faults)
        form = "torch" if files and files[0].suffix == ".bin" else "safetensors"
        return Header(path, form, tensors, config_of(path.parent, faults, path.name), files=files)
    with opened(path) as (file, size):
        head = file.read(min(size, HEAD))
    kind = told(head, path.name, lambda: _members(path))
    if kind == "gguf":
        return _gguf(path, faults)
    if kind == "torch":
        return read_torch_file(path, faults)
    if kind == "safetensors":
        from brolly.checkpoint.safetensors import read_safetensors

        tensors, metadata = read_safetensors(path, faults)
        return Header(path, "safetensors", tensors, config_of(path.parent, faults, path.name), metadata, (path,))
    if kind == "llama2c":
        from brolly.checkpoint.llama2c import read_llama2c

        tensors, config = read_llama2c(path)
        return Header(path, "llama2c", tensors, config, files=(path,))
    if kind == "archive":
        from brolly.checkpoint.archives import open_archive
        from brolly.checkpoint.folders import read_folder

        return read_folder(open_archive(path), faults)
    if kind in READERS:
        return with_config(reader(kind)(path), faults)
    if path.suffix in (*MODEL_SUFFIXES, ".gguf"):
        raise CheckpointError(f"{path} does not begin as a {path.suffix} file does; download it again.")
    raise CheckpointError(f"{path} is not a model; {EXPECTED}.", "no-model")


def reader(kind: str) -> Callable[[Where], Header]:
    module, function = READERS[kind]
    found: Callable[[Where], Header] = getattr(import_module(f"brolly.checkpoint.{module}"), function)
    return found


def told(head: bytes, name: str, members: Callable[[], list[str]] = list) -> str:
    """The format of a file of these first bytes and this name, or nothing; `members` lists an archive's, when asked."""
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    if head[:4] == b"GGUF":
        return "gguf"
    if head[:4] in (b"lmgg", b"fmgg", b"tjgg", b"algg"):
        return "ggml"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "keras-h5"
    if head[:6] == b"\x93NUMPY":
        return "npy"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:4] in (b"ftrt", b"ptrt"):
        return "tensorrt"
    if head[:4] == b"PK\x03\x04":
        return _zipped(suffix, members)
    if head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b":
        return "nemo" if suffix == ".nemo" else _tarred(head, suffix, members)
    # A llama2.c file may begin with 0x80 too (dim 128), and have a brace where safetensors has one (123 layers);
    # the bytes after either are nought there, and in no file of the others.
    if suffix in PICKLED and head[2:4] != b"\0\0" and (head[:1] == b"\x80" or suffix in (".pkl", ".pickle")):
        return "torch"
    if suffix == ".safetensors" or (head[8:9] == b"{" and head[9:10] != b"\0" and head[6:8] == b"\0\0"):
        return "safetensors"
    if name == "saved_model.pb":
        return "savedmodel"
    if name == "Modelfile" or head[:5] in (b"FROM ", b"from "):
        return "modelfile"
    if suffix == ".bin":
        return "llama2c"
    if head[:1] == b"{" and b"application/vnd." in head and b"mediaType" in head:
        return "oci"
    if suffix in (".npz", ".keras", ".h5", ".hdf5", ".npy", ".nemo"):
        return ""  # these have magic numbers, and this file has not
    return SUFFIXES.get(suffix, "")


def _zipped(suffix: str, members: Callable[[], list[str]]) -> str:
    if suffix in (".npz", ".keras"):
        return suffix[1:]
    if suffix in PICKLED:
        return "torch"
    names = members()
    if any(n.count("/") <= 1 and n.endswith("data.pkl") for n in names):
        return "torch"
    if "config.json" in names and "metadata.json" in names and any(n.endswith(".weights.h5") for n in names):
        return "keras"
    if names and all(n.endswith(".npy") for n in names):
        return "npz"
    return "archive"


def _tarred(head: bytes, suffix: str, members: Callable[[], list[str]]) -> str:
    if head[:2] != b"\x1f\x8b" and suffix in PICKLED:
        return "torch"
    names = members()
    if any(n.rpartition("/")[2] == "model_config.yaml" for n in names):
        return "nemo"
    return "torch" if {"pickle", "tensors", "storages"} <= set(names) else "archive"


def _members(path: Where) -> list[str]:
    from brolly.checkpoint.archives import open_archive

    place = open_archive(path)
    return list(place.store.sizes)


def _gguf(path: Where, faults: list[CheckpointError] | None) -> Header:
    from brolly.checkpoint.gguf import read_gguf

    if re.search(r"-\d{5}-of-\d{5}\.gguf$", path.name):
        from brolly.checkpoint.gguf import read_gguf_split

        tensors, metadata, files = read_gguf_split(path, faults)
        return Header(path, "gguf", tensors, metadata=metadata, files=files)
    tensors, metadata = read_gguf(path, faults)
    return Header(path, "gguf", tensors, metadata=metadata, files=(path,))


def read_torch_file(path: Where, faults: list[CheckpointError] | None) -> Header:
    """A torch file; with `faults`, also what loading refuses: programs, and pickles that hold more than tensors."""
    from brolly.checkpoint.torchfile import read_torch, survey_torch

    strict = read_torch(path) if faults is None else None
    tensors, metadata = survey_torch(path)
    form = "torchscript" if metadata.get("container") == "torchscript" else "torch"
    config = config_of(path.parent, faults, path.name)
    if not config and isinstance(dims := metadata["values"].get("dims"), dict):
        config = {"dims": dims}  # OpenAI's Whisper says its shape in the file itself
    if faults is not None:
        _strictly(path, faults)
    return Header(path, form, tensors if strict is None else strict, config, metadata, (path,))


def _strictly(path: Where, faults: list[CheckpointError]) -> None:
    """What loading would say against a pickle; the safety check tells on its own which of it is a finding."""
    from brolly.checkpoint.torchfile import read_torch

    try:
        read_torch(path)
    except CheckpointError as error:
        error.finding = ""
        faults.append(error)


def with_config(header: Header, faults: list[CheckpointError] | None) -> Header:
    """A header whose format has no config of its own, with the config.json beside it."""
    if header.config:
        return header
    return Header(
        header.path, header.format, header.tensors, config_of(header.folder, faults), header.metadata, header.files
    )


CONFIGS = ("config.json", "params.json", "open_clip_config.json")


def config_of(folder: Where, faults: list[CheckpointError] | None, file: str = "") -> dict[str, Any]:
    """config.json, or else params.json or OpenCLIP's, or nothing; beside an open_clip `file`, OpenCLIP's first."""
    for name in reversed(CONFIGS) if file.startswith("open_clip") else CONFIGS:
        if (found := settings(folder / name, faults)) is not None:
            return found
    return {}


def settings(path: Where, faults: list[CheckpointError] | None) -> dict[str, Any] | None:
    """A JSON object if its file is there."""
    if not there(path):
        return None
    try:
        return json_object(path)
    except CheckpointError as error:
        note(faults, error)
        return {}
