"""Hand-made pickles and the three envelopes that a PyTorch reader opens: zip, legacy, and a bare pickle."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

PROTO, STOP, MARK = b"\x80\x02", b".", b"("
MAGIC = 0x1950A86A20F9469CFC6C


def data(value: Any) -> bytes:
    """The opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def name(module: str, leaf: str) -> bytes:
    return b"c" + f"{module}\n{leaf}\n".encode()


def tensor(start: Any = 0, shape: Any = (4,), strides: Any = (1,), key: Any = "0", count: Any = 4) -> bytes:
    """The opcodes of one float32 tensor."""
    storage = MARK + data("storage") + name("torch", "FloatStorage") + data(key) + data("cpu") + data(count) + b"tQ"
    hooks = name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + (
        MARK + storage + data(start) + data(shape) + data(strides) + data(False) + hooks + b"tR"
    )


def state(inner: bytes) -> bytes:
    """A pickle of {"w": inner}."""
    return PROTO + b"}" + data("w") + inner + b"s" + STOP


def in_zip(body: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """A PyTorch archive around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", body)
        for key, raw in (storages or {"0": bytes(16)}).items():
            archive.writestr(f"archive/data/{key}", raw)
    return buffer.getvalue()


def in_legacy(body: bytes) -> bytes:
    """A PyTorch file from before 1.6 around any pickle."""
    head = pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    return head + body + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)


ENVELOPES = {"zip": in_zip, "legacy": in_legacy, "bare": bytes}


def torch_zip(path: Path, start: Any, shape: Any, strides: Any) -> Path:
    """One tensor "w" as a view of four float32 numbers."""
    path.write_bytes(in_zip(state(tensor(start, shape, strides))))
    return path
