"""HDF5 as h5py writes it, in every layout that it chooses, and what is made of damaged files."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint.hdf5 import read_hdf5
from brolly.errors import BrollyError, CheckpointError
from brolly.place import Place
from tests.checkpoint.test_fuzz import LENGTHS, mutated
from tests.checkpoint.test_gguf_formats import Counted

h5py, np = pytest.importorskip("h5py"), pytest.importorskip("numpy")

WORDS = {
    "f2": "F16", "f4": "F32", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16",
    "u4": "U32", "u8": "U64", "c8": "C64", "c16": "C128", "b1": "BOOL",
}  # fmt: skip
VERSIONS = ["earliest", "v108", "v110", "latest"]


def write(path: Path, version: str = "earliest", tracked: bool = False, n_layers: int = 3, block: int = 0) -> None:
    """Groups, links, attributes and datasets of every kind that a model's file may have."""
    with h5py.File(path, "w", libver=(version, "latest"), track_order=tracked, userblock_size=block) as file:
        said = {
            "model_config": b'{"class_name": "Sequential"}', "long": "x" * 100_000, "n": 5, "half": np.float32(0.5),
            "yes": True, "fixed": np.bytes_("abc"), "numbers": np.arange(5), "names": [b"dense", b"dense_1"],
            "unicode": ["é", "☂"], "below": np.int16(-3), "big": np.array([1.5, 2.5], ">f8"),
        }  # fmt: skip
        file.attrs.update(said)
        file.attrs["nothing"] = h5py.Empty("f4")
        inner = file.create_group("model_weights", track_order=tracked)
        inner.attrs["layer_names"] = np.array([b"a", b"bcd"])
        for i in range(n_layers):
            layer = inner.create_group(f"layer_{i}", track_order=tracked)
            layer["kernel"] = np.arange(6, dtype="f4").reshape(2, 3) + i
            layer["bias"] = np.arange(3, dtype="f2")
        for code in WORDS:
            file[f"as_{code}"] = np.ones((2, 2), code)
        file["big_endian"] = np.ones(4, ">f4")
        file.create_dataset("packed", (100, 10), "f4", chunks=(10, 10), compression="gzip", data=np.ones((100, 10)))
        file.create_dataset("unwritten", (4,), "f4")
        file["text"], file["scalar"] = "hello", np.float32(3)
        file["soft"], file["elsewhere"] = h5py.SoftLink("/packed"), h5py.ExternalLink("o.h5", "/x")
        file["again"] = file["scalar"]  # a second name of the same data
        file["type"] = np.dtype("f4")
        file.create_dataset("typed", (3,), dtype=file["type"], data=np.ones(3))
        file.create_dataset("outside", (4,), "f4", external=[(str(path) + ".raw", 0, 16)])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("n_layers, block", [(3, 0), (40, 1024)])
def test_every_dataset_comes_back(tmp_path: Path, version: str, tracked: bool, n_layers: int, block: int) -> None:
    path = tmp_path / "m.h5"
    write(path, version, tracked, n_layers, block)
    header = read_hdf5(path)
    raw = path.read_bytes()
    with h5py.File(path) as theirs:
        names: list[str] = []
        theirs.visititems(lambda name, _: names.append(name))
        datasets = {n: theirs[n] for n in names if isinstance(theirs[n], h5py.Dataset) and n != "text"}
        assert datasets.keys() | {"scalar", "again"} == header.tensors.keys() | {"scalar", "again"}
        for name, info in header.tensors.items():
            dataset = theirs[name]
            code = dataset.dtype.kind + str(dataset.dtype.itemsize)
            assert (info.dtype, info.shape, info.nbytes) == (WORDS[code], dataset.shape, dataset.nbytes)
            if dataset.id.get_offset() is not None and name != "unwritten":
                assert info.offset == dataset.id.get_offset()
                assert raw[info.offset : info.offset + info.nbytes] == dataset[()].tobytes()
    told = header.metadata["/"]
    assert told == {
        "chunked": ["packed"], "external_links": ["elsewhere"], "soft_links": ["soft"], "big_endian": ["big_endian"],
        "other_types": ["text"], "external_files": ["outside"], "unwritten": ["unwritten"],
    }  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tracked", [False, True])
def test_attributes_come_back(tmp_path: Path, version: str, tracked: bool) -> None:
    write(tmp_path / "m.h5", version, tracked)
    metadata = read_hdf5(tmp_path / "m.h5").metadata
    assert {k: v for k, v in metadata.items() if k[0] != "/"} == {
        "model_config": '{"class_name": "Sequential"}', "long": "x" * 100_000, "n": 5, "half": 0.5, "yes": True,
        "fixed": "abc", "numbers": [0, 1, 2, 3, 4], "names": ["dense", "dense_1"], "unicode": ["é", "☂"], "below": -3,
        "big": [1.5, 2.5], "nothing": None,
    }  # fmt: skip
    assert metadata["/model_weights"] == {"layer_names": ["a", "bcd"]}


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_large_groups_and_attributes_come_back(tmp_path: Path, version: str) -> None:
    path = tmp_path / "wide.h5"
    with h5py.File(path, "w", libver=version) as file:
        for i in range(5000):
            file.create_group(f"{i}" + "x" * 150)
        file["w"] = np.ones(3, "f4")
        if version == "latest":
            for i in range(12):
                file.attrs[f"a{i}"] = np.arange(3000) + i  # too large for a header: "huge" objects of a fractal heap
    start = time.process_time()
    header = read_hdf5(path)
    assert list(header.tensors) == ["w"] and time.process_time() - start < 1
    if version == "latest":
        assert header.metadata["a7"] == list(range(7, 3007))


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_elsewhere_no_contents_are_fetched(tmp_path: Path, version: str) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w", libver=version) as file:
        for i in range(3):
            file[f"layer_{i}/kernel"] = np.ones((1000, 500), "f4")
    store = Counted(m=path.read_bytes())
    assert len(read_hdf5(Place(store, "m.gguf")).tensors) == 3
    assert store.n_bytes < path.stat().st_size / 6 and store.n_reads < 30


def test_bfloat16_is_known_by_the_mark_that_keras_sets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["marked"] = np.zeros(4, "V2")
        file["marked"].attrs["dtype"] = "bfloat16"
        file["unmarked"] = np.zeros(4, "V2")
    header = read_hdf5(tmp_path / "m.h5")
    assert {n: t.dtype for n, t in header.tensors.items()} == {"marked": "BF16"}
    assert header.metadata["/"] == {"other_types": ["unmarked"]}


def test_groups_that_hold_each_other_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("a")
        group["root"], group["self"] = file["/"], group
        group["w"] = np.ones(2, "f4")
    assert list(read_hdf5(tmp_path / "m.h5").tensors) == ["a/w"]


def test_a_file_cut_short_is_incomplete(tmp_path: Path) -> None:
    write(tmp_path / "m.h5")
    raw = (tmp_path / "m.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(raw[:-100])
    with pytest.raises(CheckpointError, match="incomplete"):
        read_hdf5(tmp_path / "cut.h5")


def test_what_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    for raw in (b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\x09" * 100, bytes(10_000)):
        (tmp_path / "m.h5").write_bytes(raw)
        with pytest.raises(CheckpointError, match="m.h5"):
            read_hdf5(tmp_path / "m.h5")


def spoilt(raw: bytes, seed: int) -> bytes:
    """The common blows, or, as headers lie scattered in HDF5: lies written over a signature's neighbourhood."""
    rng = random.Random(seed)
    if seed % 3 == 0:
        return mutated(raw, rng)
    magics = [m for m in (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF")]
    places = [i for m in magics for i in find_all(raw, m)] + [0]
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.choice(places) + rng.randrange(4, 120)
        width = rng.choice((1, 2, 4, 8))
        lie = rng.choice((*LENGTHS, rng.choice(places), rng.randrange(len(raw))))
        out[at : at + width] = struct.pack("<Q", lie % 2**64)[:width]
    return bytes(out)


def find_all(raw: bytes, what: bytes) -> list[int]:
    found, at = [], raw.find(what)
    while at >= 0:
        found.append(at)
        at = raw.find(what, at + 1)
    return found


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_damaged_files(tmp_path: Path, version: str) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.attrs.update({f"a{i}": "text" * i for i in range(10)})
        for i in range(10):
            file[f"layer_{i}/kernel"] = np.ones((2, 3), "f4")
        file.create_dataset("packed", (20, 10), "f4", chunks=(10, 10), compression="gzip")
    raw = path.read_bytes()
    refused = damage(path, raw, range(300))
    assert refused > 60


def damage(path: Path, raw: bytes, seeds: range) -> int:
    refused = 0
    for seed in seeds:
        path.write_bytes(spoilt(raw, seed))
        start = time.process_time()
        try:
            read: Any = read_hdf5(path)
            assert all(t.nbytes >= 0 for t in read.tensors.values())
        except BrollyError as error:
            refused += 1
            assert path.name in str(error) and str(error).isprintable() and len(str(error)) < 600
        assert time.process_time() - start < 1, f"seed {seed}"
    return refused
