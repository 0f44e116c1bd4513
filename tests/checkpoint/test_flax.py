"""Flax files, written by msgpack as flax.serialization lays them out, and what is made of damaged ones."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint.flax import read_flax
from brolly.errors import BrollyError, CheckpointError
from tests.checkpoint.test_fuzz import mutated

msgpack = pytest.importorskip("msgpack")


class Array:
    """An array of noughts: shape and NumPy's name of its dtype."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "float32", width: int = 4, code: int = 1) -> None:
        self.shape, self.dtype, self.width, self.code = shape, dtype, width, code

    def packed(self) -> Any:
        count = 1
        for n in self.shape:
            count *= n
        raw = msgpack.packb((self.shape, self.dtype, bytes(count * self.width)), use_bin_type=True)
        return msgpack.ExtType(self.code, raw)


def write(tree: Any) -> bytes:
    def pack(value: Any) -> Any:
        if isinstance(value, Array):
            return value.packed()
        return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))

    return msgpack.packb(tree, default=pack, strict_types=True)


TREE = {
    "params": {
        "encoder": {"kernel": Array((3, 5)), "bias": Array((5,), "bfloat16", 2)},
        "layers": {str(i): {"w": Array((300, 2), "int8", 1)} for i in range(20)},
        "long": {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 3, "1": 4},
            "chunks": {"0": Array((8,)), "1": Array((4,))},
        },
        "scalar": Array((), "float16", 2),
        "z": 1j,
        7: Array((2,), "bool", 1),
    },
    "step": 1000,
    "rate": 0.5,
    "name": "tiny",
    "nothing": None,
    "count": Array((), "int32", 4, code=3),
}


def test_a_flax_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(write(TREE))
    header = read_flax(path)
    assert header.format == "flax" and len(header.tensors) == 25
    said = {n: (t.dtype, t.shape, t.nbytes) for n, t in header.tensors.items() if "layers" not in n}
    assert said == {
        "params/encoder/kernel": ("F32", (3, 5), 60),
        "params/encoder/bias": ("BF16", (5,), 10),
        "params/long": ("F32", (3, 4), 48),
        "params/scalar": ("F16", (), 2),
        "params/7": ("BOOL", (2,), 2),
    }
    assert header.metadata["chunked"] == ["params/long"]
    assert header.metadata["values"] == {"step": 1000, "rate": 0.5, "name": "tiny", "nothing": None, "count": None}


def test_arrays_lie_where_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "m.msgpack"
    raw = msgpack.packb(((2, 3), "int8", b"abcdef"), use_bin_type=True)
    path.write_bytes(msgpack.packb({"a": {"b": msgpack.ExtType(1, raw)}, "c": 1}))
    info = read_flax(path).tensors["a/b"]
    assert path.read_bytes()[info.offset : info.offset + info.nbytes] == b"abcdef"


def test_no_array_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.msgpack"
    path.write_bytes(write({"w": Array((2**22,)), "v": Array((2**22,))}))
    read: list[int] = []

    import brolly.checkpoint.flax as module

    original = module._Walk.take

    def counted(self: Any, n: int) -> bytes:
        read.append(n)
        return original(self, n)

    module._Walk.take = counted  # type: ignore[method-assign]
    try:
        assert len(read_flax(path).tensors) == 2
    finally:
        module._Walk.take = original  # type: ignore[method-assign]
    assert sum(read) < 1000


def nested(levels: int) -> bytes:
    return b"\x81\xa1a" * levels + b"\x01"


BAD: dict[str, bytes] = {
    "nothing": b"",
    "a number": b"\x05",
    "a text": b"\xa3abc",
    "no arrays": b"\x81\xa1a\x01",
    "a map of 2^32": b"\xdf\xff\xff\xff\xff",
    "an array of 2^32": b"\x81\xa1a\xdd\xff\xff\xff\xff" + bytes(1000),
    "a value of 4 GB": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "an extension of 4 GB": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "a name of 4 GB": b"\x81\xdb\xff\xff\xff\xff",
    "deep maps": nested(10_000),
    "deep arrays": b"\x81\xa1a" + b"\x91" * 10_000 + b"\x01",
    "an unused byte": b"\x81\xa1a\xc1",
    "more after it": write({"w": Array((2,))}) + b"x",
    "too few bytes": b"\x81\xa1a" + msgpack.packb(msgpack.ExtType(1, msgpack.packb(((3,), "float32", b"abc")))),
    "the same name twice": b"\x82" + write({"w": Array((2,))})[1:] * 2,
    "chunks that do not fit": write(
        {"w": {"__msgpack_chunked_array__": True, "shape": {"0": 9}, "chunks": {"0": Array((8,))}}}
    ),
    "no chunks": write({"w": {"__msgpack_chunked_array__": True, "shape": {"0": 9}, "chunks": {}}}),
    "many values": b"\x81\xa1a\xdd\x00\xff\xff\xff" + b"\x01" * 0xFFFFFF,
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_soon(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.msgpack"
    path.write_bytes(BAD[case])
    start = time.process_time()
    with pytest.raises(CheckpointError, match="bad.msgpack"):
        read_flax(path)
    assert time.process_time() - start < 1


def test_damaged_files(tmp_path: Path) -> None:
    raw = write(TREE)
    path = tmp_path / "m.msgpack"
    refused = 0
    for seed in range(400):
        path.write_bytes(mutated(raw, random.Random(seed)))
        start = time.process_time()
        try:
            read_flax(path)
        except BrollyError as error:
            refused += 1
            assert path.name in str(error) and str(error).isprintable() and len(str(error)) < 600
        assert time.process_time() - start < 1, f"seed {seed}"
    assert refused > 100
