"""Files made to hurt: lying lengths, bombs, deep nesting; each is refused by name within two seconds and 100 MB."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint.bounded import MAX_PARSED, weight
from brolly.errors import BrollyError, CheckpointError, UnsafeCheckpoint
from tests.checkpoint.files import WRITERS
from tests.checkpoint.hostile import survives
from tests.checkpoint.pickles import ENVELOPES, MARK, PROTO, STOP, data, in_legacy, in_zip, name, state, tensor

F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def safetensors(header: Any, body: bytes = bytes(4), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def entry(**changed: Any) -> bytes:
    return safetensors({"w": F32 | changed})


SAFETENSORS = {
    "empty file": b"",
    "length only": bytes(8),
    "length 0": safetensors({"w": F32}, length=0),
    "length 1": safetensors({"w": F32}, length=1),
    "length 2^63 - 1": safetensors({"w": F32}, length=2**63 - 1),
    "length 2^64 - 1": safetensors({"w": F32}, length=2**64 - 1),
    "length one past the end": safetensors({"w": F32}, b"", len(json.dumps({"w": F32})) + 1),
    "not JSON": safetensors(b"{'w': 1}"),
    "a list": safetensors([1]),
    "blanks before the object": safetensors(b"  {}", b""),
    "cut inside": safetensors(b'{"w": {"dtype": "F32", "shape": [1'),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "deep lists": safetensors(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep objects": safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep and never closed": safetensors(b'{"w":' + b"[" * 1_000_000),
    "deep behind a quote": safetensors(b'{"\\"":' + b"[" * 100_000),
    "the same name twice": safetensors(f'{{"w":{json.dumps(F32)},"w":{json.dumps(F32)}}}'.encode()),
    "half a surrogate in a name": safetensors({"\ud800": F32}),
    "half a surrogate in the metadata": safetensors({"w": F32, "__metadata__": {"a": "\udfff"}}),
    "metadata a list": safetensors({"w": F32, "__metadata__": []}),
    "metadata a number": safetensors({"w": F32, "__metadata__": 0}),
    "metadata of numbers": safetensors({"w": F32, "__metadata__": {"a": 1}}),
    "an entry that is text": safetensors({"w": "F32"}),
    "an entry that is nothing": safetensors({"w": None}),
    "no shape": safetensors({"w": {"dtype": "F32", "data_offsets": [0, 4]}}),
    "unknown dtype": entry(dtype="F31"),
    "dtype a list": entry(dtype=["F32"]),
    "dtype of 100,000 letters": entry(dtype="F" * 100_000),
    "negative shape": entry(shape=[-1, -1]),
    "fractional shape": entry(shape=[1.0]),
    "true shape": entry(shape=[True]),
    "NaN shape": safetensors(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}'),
    "shape of 5,000 digits": safetensors(b'{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 5000)),
    "shape of 4,000 digits": safetensors(b'{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 4000)),
    "shape that wraps to 1": entry(shape=[2**32 + 1, 2**32 - 1]),
    "shape that wraps to 0": entry(shape=[2**32, 2**32], data_offsets=[0, 0]),
    "a million dimensions": entry(shape=[1] * 1_000_000),
    "offsets backwards": entry(data_offsets=[4, 0]),
    "offsets before the start": entry(data_offsets=[-4, 0]),
    "offsets of 2^64": entry(data_offsets=[2**64, 2**64 + 4]),
    "offsets of 4,000 digits": entry(data_offsets=[10**3999, 10**3999 + 4]),
    "one offset": entry(data_offsets=[4]),
    "a hole": entry(data_offsets=[4, 8]),
    "overlap": safetensors({"a": F32, "b": F32}),
    "bytes behind the last tensor": safetensors({"w": F32}, bytes(5)),
    "bytes missing": safetensors({"w": F32}, bytes(3)),
    "half a byte": entry(dtype="F4", data_offsets=[0, 1]),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_bad_safetensors_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(SAFETENSORS[case])
    assert isinstance(survives(path), CheckpointError)


# About n bytes' worth of JSON, each time of a kind that takes much memory for its bytes.
JSON_BOMBS = {
    "empty lists": lambda n: b"[" + b"[]," * (n // 136) + b"[]]",
    "empty objects": lambda n: b"[" + b"{}," * (n // 200) + b"{}]",
    "small objects": lambda n: b"[" + b'{"a":{"b":1}},' * (n // 600) + b"1]",
    "one key again and again": lambda n: b"{" + b'"":0,' * (n // 242) + b'"":0}',
    "keys": lambda n: b"{" + b",".join(b'"%x":{}' % i for i in range(n // 380)) + b"}",
    "fractions": lambda n: b"[" + b"1.5," * (n // 80) + b"1]",
    "numbers": lambda n: b"[" + b"999," * (n // 80) + b"1]",
    "texts": lambda n: b"[" + b",".join(b'"%06x"' % i for i in range(n // 90)) + b"]",
    "texts of 60 letters": lambda n: b"[" + (b'"' + b"a" * 60 + b'",') * (n // 260) + b"1]",
    "one text": lambda n: b'["' + b"a" * (n // 2) + b'"]',
    "one wide text": lambda n: b'["' + "☂".encode() + b"a" * (n // 8) + b'"]',
    "one escaped text": lambda n: b'["' + b"\\u2602" * (n // 30) + b'"]',
    "one escape in a long text": lambda n: b'["\\ud83d\\ude00' + b"a" * (n // 5) + b'"]',
    "quotes": lambda n: b'["' + b'\\"' * (n // 4) + b'"]',
    "an open text": lambda n: b'{"a": "' + b'\\"[' * (n // 6),
    "brackets in texts": lambda n: b'["' + b"[" * (n // 66) + b'"]',
}


LARGEST = ["small objects", "texts of 60 letters", "one escape in a long text"]
IN_FILES = [(case, "bomb.safetensors") for case in JSON_BOMBS] + [(case, "bomb.bin.index.json") for case in LARGEST]


@pytest.mark.parametrize("case, filename", IN_FILES)
def test_json_bombs_stay_small(tmp_path: Path, case: str, filename: str) -> None:
    worth = MAX_PARSED * 2**20 // weight(JSON_BOMBS[case](2**20))
    raw = JSON_BOMBS[case](int(0.97 * worth))
    assert 0.9 * MAX_PARSED < weight(raw) < MAX_PARSED - 10_000, "as much as just passes"
    path = tmp_path / filename
    path.write_bytes(
        b'{"weight_map":' + raw + b"}" if filename.endswith("json") else safetensors(b'{"w":' + raw + b"}")
    )
    assert isinstance(survives(path), CheckpointError)


@pytest.mark.parametrize("case", ["empty lists", "fractions", "one text", "one wide text", "an open text"])
def test_more_json_than_any_file_has_is_not_parsed(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(safetensors(b'{"w":' + JSON_BOMBS[case](200 * 2**20) + b"}"))
    error = survives(path)
    assert isinstance(error, CheckpointError) and ("more than any real file" in str(error) or "at most" in str(error))


def test_the_largest_header_that_passes_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    refused = []
    for count in (60_000, 90_000):
        rows = (b'"%x":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}' % (i, i, i + 1) for i in range(count))
        path.write_bytes(safetensors(b"{" + b",".join(rows) + b"}", bytes(count)))
        refused.append(survives(path) is not None)
    assert refused == [False, True]


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, "x", {"w": 1}, {"w": None}, {"w": ["model.safetensors"]}, {"w": {}}]
)
def test_bad_indexes_are_refused(tmp_path: Path, weight_map: Any) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    assert isinstance(survives(path), CheckpointError)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"nul", b"1", b'"text"', b"{" * 10_000, b"\xff\xfe{}", b'{"a": 1', bytes(64)]
)
@pytest.mark.parametrize("filename", ["config.json", "params.json", "model.safetensors.index.json"])
def test_bad_settings_beside_good_weights_are_refused(tmp_path: Path, filename: str, raw: bytes) -> None:
    WRITERS["model.safetensors"](tmp_path / "model.safetensors")
    (tmp_path / filename).write_bytes(raw)
    error = survives(tmp_path)
    assert isinstance(error, CheckpointError) and filename in str(error)


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, body: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + body


def row(
    label: bytes = b"w", dims: tuple[int, ...] = (1,), kind: int = 0, at: int = 0, n_dims: int | None = None
) -> bytes:
    return text(label) + struct.pack(f"<I{len(dims)}QIQ", len(dims) if n_dims is None else n_dims, *dims, kind, at)


def gguf(
    pairs: tuple[bytes, ...] = (),
    rows: tuple[bytes, ...] = (),
    body: bytes = bytes(64),
    n_pairs: int | None = None,
    n_tensors: int | None = None,
    version: int = 3,
) -> bytes:
    head = struct.pack(
        "<4sIQQ",
        b"GGUF",
        version,
        len(rows) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    raw = head + b"".join(pairs) + b"".join(rows)
    return raw + bytes(-len(raw) % 32) + body


GGUF = {
    "magic only": b"GGUF",
    "version 1": gguf(version=1),
    "version 4": gguf(version=4),
    "big-endian": gguf(version=3 << 24),
    "2^64 - 1 tensors": gguf(n_tensors=2**64 - 1),
    "2^64 - 1 pairs": gguf(n_pairs=2**64 - 1),
    "65,536 tensors that are not there": gguf(n_tensors=65_536),
    "65,536 pairs that are not there": gguf(n_pairs=65_536, body=b""),
    "key of 2^64 - 1": gguf((text(b"", 2**64 - 1),)),
    "key of 2^63": gguf((text(b"k", 2**63),)),
    "text of 2^62": gguf((pair(b"k", 8, text(b"", 2**62)),)),
    "unknown type": gguf((pair(b"k", 13, b""),)),
    "type 2^32 - 1": gguf((pair(b"k", 2**32 - 1, b""),)),
    "array of 2^64 - 1 bytes": gguf((pair(b"k", 9, array(0, 2**64 - 1)),)),
    "array of 2^61 numbers of 8 bytes": gguf((pair(b"k", 9, array(10, 2**61)),)),
    "array of 2^60 texts": gguf((pair(b"k", 9, array(8, 2**60)),)),
    "array of 2^62 arrays": gguf((pair(b"k", 9, array(9, 2**62)),)),
    "array of unknown type": gguf((pair(b"k", 9, array(77, 1)),)),
    "deep arrays": gguf((pair(b"k", 9, array(9, 1) * 10_000),)),
    "the same key twice": gguf((pair(b"k", 0, b"1"), pair(b"k", 0, b"1"))),
    "alignment 0": gguf((pair(b"general.alignment", 4, bytes(4)),)),
    "alignment 3": gguf((pair(b"general.alignment", 4, struct.pack("<I", 3)),)),
    "alignment 2^63": gguf((pair(b"general.alignment", 10, struct.pack("<Q", 2**63)),)),
    "alignment -32": gguf((pair(b"general.alignment", 5, struct.pack("<i", -32)),)),
    "alignment true": gguf((pair(b"general.alignment", 7, b"\1"),)),
    "alignment text": gguf((pair(b"general.alignment", 8, text(b"32")),)),
    "2^32 - 1 dimensions": gguf((), (row(n_dims=2**32 - 1),)),
    "17 dimensions": gguf((), (row(dims=(1,) * 17),)),
    "dimension 2^64 - 1": gguf((), (row(dims=(2**64 - 1,)),)),
    "dimensions that wrap to 0": gguf((), (row(dims=(2**32, 2**32)),)),
    "dimensions of 2^47": gguf((), (row(dims=(2**47,) * 16),)),
    "unknown tensor type": gguf((), (row(kind=99),)),
    "removed tensor type": gguf((), (row(kind=4),)),
    "half a block": gguf((), (row(dims=(16,), kind=2),)),
    "offset 2^64 - 32": gguf((), (row(at=2**64 - 32),)),
    "offset past the end": gguf((), (row(at=64),)),
    "offset not aligned": gguf((), (row(at=4),)),
    "overlap": gguf((), (row(b"a"), row(b"b"))),
    "the same tensor twice": gguf((), (row(at=0), row(at=32))),
    "no data": gguf((), (row(),), b""),
}


@pytest.mark.parametrize("case", GGUF)
def test_bad_gguf_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(GGUF[case])
    assert isinstance(survives(path), CheckpointError)


def test_the_gguf_written_here_is_sound_where_nothing_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(gguf((pair(b"k", 9, array(0, 3, b"abc")),), (row(b"a"), row(b"b", at=32))))
    assert survives(path) is None


# Whole and honest, and made of whatever takes the most memory for its bytes.
GGUF_BOMBS = {
    "long numbers": lambda: (pair(b"k", 9, array(10, 2_500_000, b"\xff" * 20_000_000)),),
    "fractions": lambda: (pair(b"k", 9, array(6, 2_500_000, struct.pack("<f", 1.5) * 2_500_000)),),
    "bytes": lambda: (pair(b"k", 9, array(0, 2_500_000, bytes(2_500_000))),),
    "numbers again and again": lambda: tuple(
        pair(b"%d" % i, 9, array(4, 100_000, b"\xff" * 400_000)) for i in range(40)
    ),
    "empty texts": lambda: (pair(b"k", 9, array(8, 1_300_000, bytes(8 * 1_300_000))),),
    "short texts": lambda: (pair(b"k", 9, array(8, 900_000, text("é☂".encode()) * 900_000)),),
    "wide texts": lambda: (pair(b"k", 9, array(8, 4, text("😀".encode() + b"a" * 4_000_000) * 4)),),
    "broken texts": lambda: (pair(b"k", 9, array(8, 9, text(b"\xff" * 4_000_000) * 9)),),
    "empty arrays": lambda: (pair(b"k", 9, array(9, 1_100_000, array(0, 0) * 1_100_000)),),
    "arrays of one": lambda: (pair(b"k", 9, array(9, 600_000, array(10, 1, b"\xff" * 8) * 600_000)),),
    "long keys": lambda: tuple(pair(b"%06d" % i + bytes(1000), 7, b"\1") for i in range(65_536)),
    "keys of arrays": lambda: tuple(pair(b"%d" % i, 9, array(10, 9, b"\xff" * 72)) for i in range(65_536)),
}


@pytest.mark.parametrize("case", GGUF_BOMBS)
def test_gguf_bombs_stay_small(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bomb.gguf"
    path.write_bytes(gguf(GGUF_BOMBS[case]()))
    survives(path)  # small enough to pass, or refused


def test_as_many_gguf_tensors_as_pass_stay_small(tmp_path: Path) -> None:
    rows = tuple(row(b"%06d" % i + b"x" * 200, (1,) * 16, at=32 * i) for i in range(65_536))
    (tmp_path / "wide.gguf").write_bytes(gguf((), rows, bytes(32 * 65_536)))
    survives(tmp_path / "wide.gguf")


@pytest.mark.parametrize(
    "numbers",
    [
        (0,) * 7,
        (-1,) * 7,
        (2**31 - 1,) * 7,
        (-(2**31),) * 7,
        (8, 12, 2, 3, 1, 10, 6),
        (8, 12, 2, 4, 3, 10, 6),
        (8, 12, 2, 4, 8, 10, 6),
        (8, 12, 2, 4, 2, -(2**31), 6),
        (8, 12, 2**31 - 1, 4, 2, 10, 6),
        (8, 12, 3, 4, 2, 10, 6),
        (8, 12, 2, 4, 2, 10, 2**24),
        (65536, 2**18, 1000, 1024, 1024, 2**20, 2**24),
        (0x616B3432, 1, 0, 0, 0, 0, 0),
        (0x616B3432, 2, 0, 0, 0, 0, 0),
    ],
)
def test_bad_llama2c_is_refused(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(struct.pack("<7i", *numbers) + bytes(4000))
    assert isinstance(survives(path), CheckpointError)


def archive(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        for label, raw in members.items():
            file.writestr(label, raw)
    return buffer.getvalue()


GOOD = {"a/data.pkl": state(tensor()), "a/data/0": bytes(16)}


def patched(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new + raw[at + len(new) :]


def directory(field: int, new: bytes) -> bytes:
    """The good archive with a lie in its directory's first entry, data.pkl's."""
    raw = archive(GOOD)
    return patched(raw, raw.index(b"PK\1\2") + field, new)


def end(field: int, new: bytes) -> bytes:
    """The good archive with a lie in its last record."""
    raw = archive(GOOD)
    return patched(raw, raw.index(b"PK\5\6") + field, new)


def zip64(size: int, offset: int) -> bytes:
    """The good archive with a second end in 64 bits, which says where the directory is."""
    raw = archive(GOOD)
    at = raw.index(b"PK\5\6")
    big = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    return raw[:at] + big + locator + patched(raw[at:], 8, b"\xff" * 12)


ZIPS = {
    "an empty archive": archive({}),
    "no data.pkl": archive({"a/data/0": bytes(16)}),
    "two of data.pkl": archive(GOOD | {"b/data.pkl": b"N."}),
    "a member twice": archive(GOOD).replace(b"a/data/0", b"a/data.p"),
    "compressed": archive(GOOD, zipfile.ZIP_DEFLATED),
    "a bomb of 1 GB": archive({"a/data.pkl": bytes(2**20)}, zipfile.ZIP_DEFLATED),
    "compressed data": archive(GOOD, zipfile.ZIP_BZIP2),
    "compressed with LZMA": archive(GOOD, zipfile.ZIP_LZMA),
    "no storage": archive({"a/data.pkl": state(tensor())}),
    "a short storage": archive({"a/data.pkl": state(tensor()), "a/data/0": bytes(15)}),
    "big-endian": archive(GOOD | {"a/byteorder": b"big"}),
    "pickle of 9 MB": archive(GOOD | {"a/data.pkl": bytes(9 * 2**20)}),
    "size 2^32 - 1": directory(20, b"\xff" * 8),
    "size 2^31": directory(20, struct.pack("<2L", 2**31, 2**31)),
    "sizes that differ": directory(20, struct.pack("<2L", 1, 2**31)),
    "offset 2^32 - 1": directory(42, b"\xff" * 4),
    "offset 2^32 - 2": directory(42, b"\xfe\xff\xff\xff"),
    "offset of another record": directory(42, struct.pack("<L", 1)),
    "name of 2^16 - 1": directory(28, b"\xff\xff"),
    "extra of 2^16 - 1": directory(30, b"\xff\xff"),
    "method 99": directory(10, b"\x63\0"),
    "version 255": directory(6, b"\xff\xff"),
    "local name of 2^16 - 1": patched(archive(GOOD), 26, b"\xff\xff"),
    "directory of 2^32 - 1": end(12, b"\xff" * 4),
    "directory at 2^32 - 1": end(16, b"\xff" * 4),
    "2^16 - 1 members": end(8, b"\xff" * 4),
    "zip64 directory of 2^64 - 1": zip64(2**64 - 1, 0),
    "zip64 directory at 2^64 - 1": zip64(0, 2**64 - 1),
    "zip64 directory of 2^63 at 2^63": zip64(2**63, 2**63),
    "header only": b"PK\3\4" + bytes(100),
    "two headers": b"PK\3\4" * 2,
}


@pytest.mark.parametrize("case", ZIPS)
def test_bad_archives_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(ZIPS[case])
    error = survives(path)
    if case == "2^16 - 1 members":  # a count that nobody needs
        return
    assert isinstance(error, CheckpointError)


@pytest.mark.parametrize("length", [1, 30, 200])
def test_archives_of_many_members_stay_small(tmp_path: Path, length: int) -> None:
    """A directory as long as is read, of members that share one local header."""
    path = tmp_path / "many.pt"
    raw = archive(GOOD)
    at = raw.index(b"PK\1\2")
    first = raw[at : at + 46]
    count = 4 * 2**20 // (46 + length + 4)
    rows = b"".join(
        patched(first, 28, struct.pack("<HH", length + 4, 0)) + b"%x" % (i + 2**16) + b"x" * (length - 1)
        if i >= 2**16
        else patched(first, 28, struct.pack("<HH", length + 4, 0)) + b"%04x" % i + b"x" * length
        for i in range(count)
    )
    count %= 2**16
    path.write_bytes(raw[:at] + rows + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(rows), at, 0))
    assert isinstance(survives(path), CheckpointError)


STEPS, MOST = 499_000, 8 * 2**20 - 2000
LONG = b"X" + struct.pack("<I", 1000)
# As many steps or bytes as are read, each of what takes the most time or memory.
FLOODS = {
    "more steps than any": lambda: b"N0" * STEPS,
    "dictionaries of one": lambda: b"}NNs" * (STEPS // 4),
    "marks and tuples": lambda: b"(t" * (STEPS // 2),
    "one deep tuple": lambda: b")" + b"\x85" * STEPS,
    "one deep list": lambda: b"]" * (STEPS // 2) + b"a" * (STEPS // 2 - 1),
    "one wide tuple": lambda: MARK + b"N" * STEPS + b"t",
    "one tuple doubled as a key": lambda: b"}" + b")" + b"2\x86" * 1000 + b"Ns",
    "one tuple doubled as a shape": lambda: tensor(shape=1).replace(data(1), b")" + b"2\x86" * 1000, 1),
    "a thousand laughs": lambda: b"]" + data(1) + b"a" + b"q\0]h\0ah\0a" * 1000,
    "a list in itself": lambda: b"]2a",
    "a dictionary in itself": lambda: b"}q\0" + data("x") + b"h\0s",
    "a memo of many": lambda: b"}" + b"".join(b"r" + struct.pack("<I", i) for i in range(STEPS)),
    "memoised texts": lambda: b"".join(b"\x8c\1a\x94" for _ in range(STEPS // 2)),
    "fractions": lambda: b"G" + (b"?" + bytes(7) + b"G") * (STEPS // 2) + bytes(8),
    "one text of 8 MB": lambda: b"X" + struct.pack("<I", MOST) + b"a" * MOST,
    "one wide text of 8 MB": lambda: b"X" + struct.pack("<I", MOST) + b"\xf0\x9f\x98\x80" + b"a" * (MOST - 4),
    "one line of 8 MB": lambda: b"V" + b"a" * MOST + b"\n",
    "one wide line of 8 MB": lambda: b"V" + b"\\U0001F600" + b"a" * (MOST - 10) + b"\n",
    "one number of 8 MB": lambda: b"\x8b" + struct.pack("<I", MOST) + b"\x7f" * MOST,
    "one number of 8 MB digits": lambda: b"L" + b"9" * MOST + b"L\n",
    "one unquoted string of 8 MB": lambda: b"S" + b"\1" * MOST + b"\n",
    "one half-quoted string of 8 MB": lambda: b"S'" + b"\1" * MOST + b"\n",
    "one quoted string of 8 MB": lambda: b"S'" + b"\\\\" * (MOST // 2) + b"'\n",
    "one name of 8 MB": lambda: b"c" + b"a" * MOST + b"\nb\n",
    "one broken text of 8 MB": lambda: b"X" + struct.pack("<I", MOST) + b"\xff" * MOST,
    "text of 2^64 - 1": lambda: b"\x8d" + b"\xff" * 8,
    "text of 2^63": lambda: b"\x8d" + struct.pack("<Q", 2**63),
    "bytes of 2^62": lambda: b"\x8e" + struct.pack("<Q", 2**62),
    "bytes of 2^32 - 1": lambda: b"B" + b"\xff" * 4,
    "string of -1": lambda: b"T" + b"\xff" * 4,
    "number of -1 bytes": lambda: b"\x8b" + b"\xff" * 4,
    "frame of 2^64 - 1": lambda: b"\x95" + b"\xff" * 8,
    "a million tensors": lambda: b"}" + tensor() + b"q\0" + b"".join(data(i)[:5] + b"h\0s" for i in range(100_000)),
    "a million names": lambda: MARK + tensor() + b"q\0" + b"h\0" * 400_000 + b"l",
    "pairs of one list": lambda: (
        name("collections", "OrderedDict") + b"](" + data(("a", 1)) + b"2" * 400_000 + b"e\x85R"
    ),
    "long names of a long list": lambda: (
        b"".join(b"}" + LONG + b"%060d" % i + b"a" * 940 for i in range(60))
        + (b"]" + MARK + b"N" * 60_000 + b"e" + b"s" * 60)
    ),
    "long names of the same list": lambda: b"](" + b"N" * 60_000 + b"eq\0" + b"}" + LONG + b"b" * 1000 + b"h\0s",
    "a storage of a number of 1 MB": lambda: tensor(count=2 ** (8 * 2**20)),
    "a start of 1 MB": lambda: tensor(start=2 ** (8 * 2**20)),
    "a dimension of 1 MB": lambda: tensor(shape=(2 ** (8 * 2**20),)),
    "a key of 1 MB": lambda: b"}" + data(2 ** (8 * 2**20)) + tensor() + b"s",
    "a storage called by 8 MB": lambda: tensor(key="k" * (MOST - 1000)),
}


@pytest.mark.parametrize("case", FLOODS)
def test_floods_of_opcodes_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "flood.pt"
    wrap = in_zip if len(case) % 2 else in_legacy  # the same machine reads both
    path.write_bytes(wrap(PROTO + FLOODS[case]() + STOP))
    error = survives(path)
    assert isinstance(error, CheckpointError) or "million" in case or "in itself" in case


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("body", [b"", b".", PROTO, PROTO + b".", b"\x80\xff.", b"N.", b"(.", b"q\0.", b"h\0.", b"\0"])
def test_pickles_of_nothing_are_refused(tmp_path: Path, envelope: str, body: bytes) -> None:
    path = tmp_path / "nothing.pt"
    path.write_bytes(ENVELOPES[envelope](body))
    assert isinstance(survives(path), BrollyError)


def test_control_letters_of_a_file_never_reach_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\x07\n"
    files = {
        "name.pt": in_zip(state(name("torch", evil.replace("\n", "")))),
        "escape.pt": in_zip(PROTO + b"S'\\\x1b'\n."),
        "opcode.pt": in_zip(PROTO + b"\x1b."),
        "storage.pt": in_zip(state(tensor(key=evil))),
        "tensor.safetensors": safetensors({evil: F32 | {"dtype": evil}}),
        "tensor.gguf": gguf((), (row(evil.encode(), kind=99),)),
    }
    for filename, raw in files.items():
        (tmp_path / filename).write_bytes(raw)
        assert isinstance(survives(tmp_path / filename), CheckpointError)


def test_unsafe_is_said_only_of_what_asks_for_more_than_tensors(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(archive(GOOD)[:-3])
    assert not isinstance(survives(tmp_path / "cut.pt"), UnsafeCheckpoint)
    (tmp_path / "big.pt").write_bytes(archive(GOOD, zipfile.ZIP_DEFLATED))
    assert isinstance(survives(tmp_path / "big.pt"), UnsafeCheckpoint)
