"""Zips and tars as folders: the bytes that Python's own libraries put in, lazily, bounded, and no way out."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import tarfile
import time
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from brolly.checkpoint.archives import (
    Part,
    TarStore,
    Unpacked,
    ZipStore,
    is_tar,
    open_archive,
    packing,
    read_directory,
    tar_members,
)  # fmt: skip
from brolly.checkpoint.bounded import opened
from brolly.errors import CheckpointError, UnsafeCheckpoint
from brolly.place import Place

RNG = random.Random(2)
INSIDE = {f"top/sub/f{n}.bin": RNG.randbytes(n**4) for n in range(1, 12)} | {
    "top/é ☂.txt": b"hello " * 1000,
    "top/empty": b"",
}
TARS = {"w": ".tar", "w:gz": ".tar.gz", "w:bz2": ".tar.bz2", "w:xz": ".tar.xz"}


def zipped(path: Path, inside: dict[str, bytes], method: int = zipfile.ZIP_STORED, before: bytes = b"") -> Path:
    with open(path, "wb") as file:
        file.write(before)
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, body in inside.items():
                archive.writestr(name, body)
    return path


def tarred(path: Path, inside: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, body in inside.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def assert_holds(place: Place, inside: dict[str, bytes], prefix: str = "top/") -> None:
    assert {f"{prefix}{n.removeprefix(prefix)}" for n in place.store.sizes} == inside.keys()
    for name, body in inside.items():
        with opened(place / name.removeprefix(prefix)) as (file, size):
            assert size == len(body)
            assert file.read(size) == body
            file.seek(len(body) // 2)
            assert file.read(10) == body[len(body) // 2 :][:10]
            file.seek(3)
            assert (file.read(4), file.tell()) == (body[3:7], min(7, len(body)) if len(body) > 3 else 3)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_is_a_folder(tmp_path: Path, method: int) -> None:
    place = open_archive(zipped(tmp_path / "m.zip", INSIDE, method))
    assert place.name == "top" and (place / "sub").is_dir() and not place.store.problems  # type: ignore[attr-defined]
    assert sorted(p.name for p in place.iterdir()) == ["empty", "sub", "é ☂.txt"]
    assert_holds(place, INSIDE)


@pytest.mark.parametrize("mode", TARS)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_a_folder(tmp_path: Path, mode: str, form: int) -> None:
    inside = dict(INSIDE) if form == tarfile.USTAR_FORMAT else INSIDE | {"top/" + "long/" * 50 + "é": b"deep"}
    place = open_archive(tarred(tmp_path / f"m{TARS[mode]}", inside, mode, form))
    assert place.name == "top" and not place.store.problems  # type: ignore[attr-defined]
    assert_holds(place, inside)


def test_files_at_the_top_keep_their_root(tmp_path: Path) -> None:
    place = open_archive(zipped(tmp_path / "m.zip", {"config.json": b"{}", "a/b": b"x"}))
    assert str(place) == str(tmp_path / "m.zip") and (place / "config.json").is_file()
    assert (open_archive(tarred(tmp_path / "m.tar", {"./config.json": b"{}"})) / "config.json").n_bytes == 2


def test_an_archive_in_an_archive_is_a_folder_too(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "i.zip", {"a.txt": b"inside", "b.txt": b"too"}).read_bytes()
    outer = open_archive(tarred(tmp_path / "o.tar", {"x/i.zip": inner, "x/y": b""}))
    with opened(open_archive(outer / "i.zip") / "a.txt") as (file, _):
        assert file.read() == b"inside"


def test_a_zip_with_more_than_four_gigabytes_is_read_by_its_wide_fields(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("wide", "w", force_zip64=True) as member:
        member.write(b"abc")
    raw = (tmp_path / "m.zip").read_bytes()
    assert ZipStore(tmp_path / "m.zip").sizes == {"wide": 3}
    at = raw.index(b"PK\x01\x02")
    entry = bytearray(raw[at : raw.index(b"PK\x05\x06")])
    entry[20:28] = b"\xff" * 8
    entry[42:46] = b"\xff" * 4
    extra = b"\x01\x00\x18\x00" + (3).to_bytes(8, "little") * 2 + bytes(8)
    entry[30:32] = len(extra).to_bytes(2, "little")
    directory = bytes(entry[: 46 + 4]) + extra
    ends = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(4) + bytes(8) + (1).to_bytes(8, "little") * 2
    ends += len(directory).to_bytes(8, "little") + at.to_bytes(8, "little")
    locator = b"PK\x06\x07" + bytes(4) + (at + len(directory)).to_bytes(8, "little") + (1).to_bytes(4, "little")
    last = b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    (tmp_path / "w.zip").write_bytes(raw[:at] + directory + ends + locator + last)
    store = ZipStore(tmp_path / "w.zip")
    with store.open("wide") as file2:
        assert store.sizes == {"wide": 3} and file2.read() == b"abc"


OUT = ["../x", "a/../../x", "/etc/passwd", "C:/x", "\\\\host\\x", "..\\x", "a/../x"]


@pytest.mark.parametrize("name", OUT)
def test_names_that_leave_the_folder_are_told_and_not_listed(tmp_path: Path, name: str) -> None:
    inside = {name: b"x", "ok": b""}
    for store in (ZipStore(zipped(tmp_path / "m.zip", inside)), TarStore(tarred(tmp_path / "m.tar", inside))):
        assert list(store.sizes) == ["ok"]
        assert [(p.id, p.severity) for p in store.problems] == [("path-escape", "danger")]


def test_links_and_doubles_are_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("dev", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    store = TarStore(tmp_path / "m.tar")
    assert not store.sizes and [p.id for p in store.problems] == ["archive-link", "archive-link"]
    info2 = zipfile.ZipInfo("soft")
    info2.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive, pytest.warns(UserWarning):
        archive.writestr(info2, "/etc/passwd")
        archive.writestr("twice", b"1")
        archive.writestr("twice", b"2")
    found = ZipStore(tmp_path / "m.zip")
    assert list(found.sizes) == ["twice"] and {p.id for p in found.problems} == {"archive-link", "archive-twice"}


def test_what_stands_before_a_zip_moves_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.zip", {"a": b"abc"})
    path.write_bytes(b"x" * 100 + path.read_bytes())
    with opened(path) as (file, size):
        directory = read_directory(file, size, "m.zip")
    assert (directory.first, directory.last) == (100, size)
    with ZipStore(path).open("a") as member:
        assert member.read() == b"abc"


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.zip", {"a": bytes(400 * 2**20)}, zipfile.ZIP_DEFLATED)
    start = time.process_time()
    with ZipStore(path).open("a") as file, pytest.raises(UnsafeCheckpoint):
        file.seek(390 * 2**20)
        file.read(10)
    raw = gzip.compress(bytes(100 * 2**20), 1)
    (tmp_path / "m.gz").write_bytes(raw)
    with pytest.raises(CheckpointError):
        TarStore(tmp_path / "m.gz")
    assert time.process_time() - start < 4
    tracemalloc.start()
    with suppress(UnsafeCheckpoint), ZipStore(path).open("a") as file:
        file.seek(100 * 2**20)
        file.read(10)
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A stored member of an archive of gigabytes is its own bytes and nothing else."""
    path = tmp_path / "big.tar"
    tarred(path, {"a/config.json": b"{}"})
    head = bytearray(512)
    head[:6] = b"a/huge"
    head[100:108], head[124:136], head[156] = b"0000644\0", b"\x80" + (3 * 2**30).to_bytes(11, "big"), ord("0")
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    with open(path, "r+b") as file:
        file.seek(1024)
        file.write(head)
        file.truncate(1024 + 512 + 3 * 2**30 + 1024)
    start = time.process_time()
    place = open_archive(path)
    assert (place / "huge").n_bytes == 3 * 2**30
    with opened(place / "huge") as (file2, size):
        file2.seek(size - 5)
        assert file2.read(10) == bytes(5)
    assert time.process_time() - start < 0.5


def test_the_magic_of_packed_files_is_known() -> None:
    import lzma
    import zlib

    for raw, kind in ((gzip.compress(b"x"), "gz"), (bz2.compress(b"x"), "bz2"), (lzma.compress(b"x"), "xz"),
    (zlib.compress(b"x"), "zlib"),
                      (lzma.compress(b"x", lzma.FORMAT_ALONE), "xz"), (b"GGUF", None), (b"", None)):  # fmt: skip
        assert packing(raw) == kind
        if kind:
            unpacked = Unpacked(Part(io.BytesIO(raw), 0, len(raw)), kind, "x")  # type: ignore[arg-type]
            assert unpacked.read() == b"x" and unpacked.read() == b""
    several = gzip.compress(b"ab") + gzip.compress(b"cd")
    assert Unpacked(io.BytesIO(several), "gz", "x").read() == b"abcd"


@pytest.mark.parametrize(
    "raw", [b"", b"PK", b"PK\x03\x04" + bytes(100), b"hello" * 200, bytes(2000), b"\x1f\x8b\x08" + bytes(100)]
)
def test_what_is_no_archive_is_said(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.zip").write_bytes(raw)
    with pytest.raises(CheckpointError) as error:
        open_archive(tmp_path / "m.zip")
    assert str(tmp_path) in str(error.value)


def test_damaged_archives_are_errors_of_ours(tmp_path: Path) -> None:
    rng = random.Random(8)
    small = {"top/a": b"x" * 700, "top/b/c": b"", "top/" + "n" * 120: b"y" * 10}
    seeds = [zipped(tmp_path / "s", small, m).read_bytes() for m in (0, 8, 12)]
    seeds += [tarred(tmp_path / "s", small, m).read_bytes() for m in TARS]
    for _ in range(1500):
        raw = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(raw))
            if rng.random() < 0.7:
                raw[at] = rng.choice([0, 1, 0x20, 0x37, 0x7F, 0x80, 0xFF])
            elif rng.random() < 0.5:
                raw[at : at + 4] = rng.choice([b"\xff" * 4, bytes(4), b"PK\x01\x02", b"PK\x05\x06"])
            else:
                del raw[at:]
                raw = raw or bytearray(b"P")
        (tmp_path / "m").write_bytes(bytes(raw))
        start = time.process_time()
        with suppress(CheckpointError):
            place = open_archive(tmp_path / "m")
            for name in list(place.store.sizes):
                with suppress(CheckpointError), opened(Place(place.store, name)) as (file, size):
                    file.read(min(size, 10_000))
                    file.seek(max(0, size - 5))
                    file.read(5)
        assert time.process_time() - start < 1.0


def test_a_tar_header_is_told_by_its_checksum(tmp_path: Path) -> None:
    raw = tarred(tmp_path / "m.tar", {"a": b"x"}).read_bytes()
    assert is_tar(raw[:512]) and not is_tar(bytes(512)) and not is_tar(b"a" * 512)
    with pytest.raises(CheckpointError):
        list(tar_members(io.BytesIO(raw[:512]), 512, "m.tar"))
