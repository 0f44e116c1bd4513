"""NumPy's files as NumPy writes them, and what is made of damaged ones."""

from __future__ import annotations

import io
import random
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from brolly.card import Header
from brolly.checkpoint.npy import read_npy, read_npz
from brolly.errors import BrollyError, CheckpointError
from tests.checkpoint.test_fuzz import mutated

np = pytest.importorskip("numpy")

ARRAYS = {
    "a//w": np.arange(12, dtype="f4").reshape(3, 4),
    "f": np.asfortranarray(np.arange(24, dtype="i2").reshape(2, 3, 4)),
    "scalar": np.float64(2.5),
    "big": np.arange(6, dtype=">f4"),
    "truth": np.array([True, False]),
    "empty": np.zeros((0, 4), "c8"),
    "u8": np.arange(7, dtype="u1"),
}
WORDS = {"f4": "F32", "i2": "I16", "f8": "F64", "b1": "BOOL", "c8": "C64", "u1": "U8"}


def bytes_of(header: Header, name: str) -> bytes:
    info = header.tensors[name]
    if isinstance(info.file, Path):
        return info.file.read_bytes()[info.offset : info.offset + info.nbytes]
    with info.file.open() as file:
        file.seek(info.offset)
        return file.read(info.nbytes)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_an_npz_come_back(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "params.npz"
    (np.savez_compressed if packed else np.savez)(path, **ARRAYS)
    header = read_npz(path)
    assert header.format == "npz" and list(header.tensors) == list(ARRAYS)
    assert header.metadata == {"big_endian_arrays": ["big"]}
    for name, array in ARRAYS.items():
        info = header.tensors[name]
        assert (info.shape, info.dtype, info.nbytes) == (array.shape, WORDS[array.dtype.str[1:]], array.nbytes)
        if packed and "//" in name:
            continue  # such a name is told; its bytes are found through no path
        flat = np.frombuffer(bytes_of(header, name), array.dtype)
        strides = info.strides and [n * array.itemsize for n in info.strides]
        found = np.lib.stride_tricks.as_strided(flat, info.shape, strides) if strides else flat.reshape(info.shape)
        assert np.array_equal(found, array)


@pytest.mark.parametrize("name", [n for n in ARRAYS if n != "a//w"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_one_array_comes_back(tmp_path: Path, name: str, version: tuple[int, int]) -> None:
    path = tmp_path / "one.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.asanyarray(ARRAYS[name]), version)
    header = read_npy(path)
    assert header.format == "npy" and header.tensors["array"].shape == ARRAYS[name].shape
    assert bytes_of(header, "array") == np.asanyarray(ARRAYS[name]).tobytes("A")


def test_what_holds_no_numbers_is_told_and_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "odd.npz"
    mixed = np.zeros(3, dtype=[("x", "f4"), ("name", "U8")])
    when = np.zeros(2, "M8[s]")
    np.savez(path, w=np.ones(2), objects=np.array([{}, 1], dtype=object), words=np.array(["a"]), mixed=mixed, when=when)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "hello")
    header = read_npz(path)
    assert list(header.tensors) == ["w"]
    assert header.metadata == {
        "object_arrays": ["objects"], "text_arrays": ["words"], "structured_arrays": ["mixed"],
        "other_arrays": ["when"], "other_files": ["readme.txt"],
    }  # fmt: skip


def test_an_array_of_objects_alone_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([None, {}], dtype=object), allow_pickle=True)
    header = read_npy(tmp_path / "o.npy")
    assert not header.tensors and header.metadata == {"object_arrays": ["array"]}


def test_alphafold_parameters_are_read(shared: Path) -> None:
    path = shared / "data/alphafold/params_tiny_model_1_ptm.npz"
    header = read_npz(path)
    with np.load(path) as theirs:
        assert {n: t.shape for n, t in header.tensors.items()} == {n: theirs[n].shape for n in theirs.files}
    assert any("//" in name for name in header.tensors)


def npy(text: str, body: bytes = bytes(64), version: int = 1) -> bytes:
    raw = text.encode("latin-1")
    length = struct.pack("<H", len(raw)) if version == 1 else struct.pack("<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + body


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"


@pytest.mark.parametrize(
    "text", [GOOD, GOOD.replace("3", "3L"), "{'shape': (4,), \"descr\": '<f4', 'fortran_order': True}\n"]
)
def test_headers_of_other_writers_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(text))
    assert read_npy(path).tensors["array"].dtype == "F32"


BAD: dict[str, bytes] = {
    "nothing": b"",
    "magic only": b"\x93NUMPY",
    "version 9": npy(GOOD, version=9),
    "a header of 4 GB": b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(100),
    "no header": npy(""),
    "a call": npy("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}"),
    "nested": npy("[" * 30_000),
    "brackets": npy("{'descr': [" + "]" * 60_000),
    "negative": npy(GOOD.replace("3", "-3")),
    "huge": npy(GOOD.replace("3", "9" * 19)),
    "many dimensions": npy(GOOD.replace("3, 4", "1," * 100)),
    "more than the file": npy(GOOD.replace("3", "300")),
    "the same key thrice": npy("{'shape': (1,), 'shape': (1,), 'shape': (1,)}"),
    "no dtype": npy(GOOD.replace("<f4", "")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_headers_are_refused_soon(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(BAD[case])
    start = time.process_time()
    with pytest.raises(CheckpointError, match="bad.npy"):
        read_npy(path)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("kind", ["npy", "npz", "packed"])
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    made = io.BytesIO()
    if kind == "npy":
        np.save(made, ARRAYS["f"])
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(made, **ARRAYS)
    path = tmp_path / ("m.npy" if kind == "npy" else "m.npz")
    read: Any = read_npy if kind == "npy" else read_npz
    refused = 0
    for seed in range(300):
        path.write_bytes(mutated(made.getvalue(), random.Random(seed)))
        start = time.process_time()
        try:
            read(path)
        except BrollyError as error:
            refused += 1
            assert path.name in str(error) and str(error).isprintable()
        assert time.process_time() - start < 1, f"seed {seed}"
    assert refused > 75
