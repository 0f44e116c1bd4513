"""TensorBoard's event files: TFRecord's frames around protobuf messages, of which a scalar needs four fields."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path


class Events:
    """An event file in a folder; `tensorboard --logdir` shows it."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("ab")
        self._write(_bytes(3, b"brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name at a step."""
        parts = [_bytes(1, name.encode()) + b"\x15" + struct.pack("<f", value) for name, value in values.items()]
        self._write(b"\x10" + _varint(step) + _bytes(5, b"".join(_bytes(1, part) for part in parts)))

    def _write(self, message: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + message
        length = struct.pack("<Q", len(event))
        self.file.write(length + _checked(length) + event + _checked(event))
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def _bytes(field: int, data: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


@cache
def _table() -> list[int]:
    """CRC-32C (Castagnoli) of each byte."""
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


def _checked(data: bytes) -> bytes:
    """TFRecord's masked CRC-32C."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
