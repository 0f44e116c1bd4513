"""GGUF in every version and byte order, split and remote; its long arrays; and damaged files of all of them."""

from __future__ import annotations

import io
import random
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brolly.checkpoint import gguf as ours
from brolly.checkpoint.gguf import read_gguf, read_gguf_split
from brolly.errors import BrollyError, CheckpointError
from brolly.place import Place
from tests.checkpoint.test_fuzz import mutated
from tests.identity.hollow import llama_gguf

KINDS = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11, "d": 12}
WORDS = ["", "a", "é☂", "x" * 63, "y" * 64, "z" * 255, "w" * 256, "v" * 40_000, *(f"token {i}" for i in range(3000))]
NUMBERS = {code: [n % 2 == 1 if code == "?" else n % 100 for n in range(1000)] for code in KINDS}


def write(
    pairs: dict[str, tuple[str, Any]],
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] | None = None,
    version: int = 3,
    order: str = "<",
) -> bytes:
    """A GGUF file, by hand; a pair is ("s", text), ("[s", texts), (code, number) or ("[" + code, numbers)."""
    wide = order + ("I" if version == 1 else "Q")

    def text(value: str) -> bytes:
        return struct.pack(wide, len(value.encode())) + value.encode()

    def pair(key: str, kind: str, value: Any) -> bytes:
        if kind == "s":
            return text(key) + struct.pack(order + "I", 8) + text(value)
        if kind == "[s":
            head = struct.pack(order + "II", 9, 8) + struct.pack(wide, len(value))
            return text(key) + head + b"".join(map(text, value))
        if kind[0] == "[":
            head = struct.pack(order + "II", 9, KINDS[kind[1]]) + struct.pack(wide, len(value))
            return text(key) + head + struct.pack(f"{order}{len(value)}{kind[1]}", *value)
        return text(key) + struct.pack(order + "I" + kind, KINDS[kind], value)

    out = b"GGUF" + struct.pack(order + "I" + 2 * wide[1], version, len(tensors or {}), len(pairs))
    out += b"".join(pair(key, *value) for key, value in pairs.items())
    body = b""
    for name, (shape, kind_id, data) in (tensors or {}).items():
        out += text(name) + struct.pack(
            f"{order}I{len(shape)}{wide[1]}IQ", len(shape), *shape[::-1], kind_id, len(body)
        )
        body += data + bytes(-len(data) % 32)
    return out + bytes(-len(out) % 32) + body


def everything() -> dict[str, tuple[str, Any]]:
    found: dict[str, tuple[str, Any]] = {"general.architecture": ("s", "llama"), "words": ("[s", WORDS)}
    found |= {f"one {code}": (code, values[7]) for code, values in NUMBERS.items()}
    found |= {f"few {code}": ("[" + code, values[:5]) for code, values in NUMBERS.items()}
    return found | {f"many {code}": ("[" + code, values) for code, values in NUMBERS.items()}


TENSORS = {"a": ((2, 64), 2, bytes(72)), "b": ((3, 5), 0, bytes(60))}
EVERY = [(1, "<"), (2, "<"), (3, "<"), (1, ">"), (2, ">"), (3, ">")]


@pytest.mark.parametrize("version, order", EVERY)
def test_every_version_and_byte_order_says_the_same(tmp_path: Path, version: int, order: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write(everything(), TENSORS, version, order))
    faults: list[CheckpointError] = []
    tensors, metadata = read_gguf(path, faults)
    assert [e.finding for e in faults] == ([""] if order == ">" else []), "not loaded, and nothing wrong with it"
    assert metadata == {key: value for key, (_, value) in everything().items()}
    assert {n: (t.dtype, t.shape, t.nbytes) for n, t in tensors.items()} == {
        "a": ("Q4_0", (2, 64), 72),
        "b": ("F32", (3, 5), 60),
    }
    assert path.stat().st_size - tensors["b"].offset == 64


def test_a_big_endian_file_is_refused_where_it_would_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write(everything(), TENSORS, order=">"))
    with pytest.raises(CheckpointError, match="big-endian"):
        read_gguf(path)


@pytest.mark.parametrize("big", [False, True])
def test_the_gguf_package_says_the_same(tmp_path: Path, big: bool) -> None:
    gguf, np = pytest.importorskip("gguf"), pytest.importorskip("numpy")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE)
    words = [w for w in WORDS if w]
    writer.add_array("tokenizer.ggml.tokens", words)
    writer.add_array("tokenizer.ggml.scores", [0.5 * n for n in range(len(words))])
    writer.add_tensor("a", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("b", np.arange(5, dtype=np.float16))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    tensors, metadata = read_gguf(path, [])
    theirs = gguf.GGUFReader(path)
    assert {n: (t.shape, t.offset) for n, t in tensors.items()} == {
        t.name: (tuple(int(n) for n in t.shape[::-1]), t.data_offset) for t in theirs.tensors
    }
    assert metadata["tokenizer.ggml.tokens"] == theirs.fields["tokenizer.ggml.tokens"].contents()
    assert metadata["tokenizer.ggml.scores"] == theirs.fields["tokenizer.ggml.scores"].contents()


@pytest.mark.parametrize("key, expected", [("words", WORDS), ("many i", NUMBERS["i"]), ("many ?", NUMBERS["?"])])
def test_a_long_array_is_as_good_as_its_list(tmp_path: Path, key: str, expected: list[Any]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write(everything()))
    found = read_gguf(path)[1][key]
    assert type(found) in (ours.Texts, ours.Numbers) and isinstance(found, Sequence)
    assert len(found) == len(expected) and found == expected and expected == found
    assert list(found) == expected and list(found) == expected, "a second time as well"
    assert [found[i] for i in (0, 6, 127, 128, -1, 500)] == [expected[i] for i in (0, 6, 127, 128, -1, 500)]
    assert found[5:200:3] == expected[5:200:3] and found[-3:] == expected[-3:]
    assert expected[40] in found and found.index(expected[20]) == expected.index(expected[20])
    assert found != expected[:-1] and found != [*expected[:-1], "other"] and found != "text"
    with pytest.raises(IndexError):
        found[len(expected)]
    assert len(repr(found)) < 300


def test_short_arrays_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write({"tags": ("[s", ["a", "b"]), "heads": ("[i", [8, 4])}))
    assert {type(v) for v in read_gguf(path)[1].values()} == {list}


@pytest.mark.parametrize("n_bytes", [7, 8, 63, 64, 300])
def test_texts_of_any_length_are_walked_exactly(tmp_path: Path, n_bytes: int) -> None:
    words = ["\0" * (n_bytes + i % 2) for i in range(1000)]  # noughts, as the lengths' own
    path = tmp_path / "m.gguf"
    path.write_bytes(write({"words": ("[s", words), "after": ("s", "it")}))
    metadata = read_gguf(path)[1]
    assert metadata["words"] == words and metadata["after"] == "it"


def test_a_real_vocabulary_becomes_a_tokenizer(shared: Path) -> None:
    from brolly.media.text.load import load_tokenizer

    tokenizer = load_tokenizer(shared / "data/tokenizers/ggml-vocab-gpt-2.gguf")
    assert tokenizer.decode(tokenizer.encode("Hello world")) == "Hello world"


class Counted:
    """A store that counts the bytes read from it."""

    title = "store"

    def __init__(self, **files: bytes) -> None:
        self.files = {f"{name}.gguf": raw for name, raw in files.items()}
        self.n_bytes = self.n_reads = 0

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(raw) for name, raw in self.files.items()}

    def open(self, name: str) -> Any:
        store, raw = self, self.files[name]

        class Reading(io.BytesIO):
            def read(self, n: int | None = -1) -> bytes:
                found = super().read(n)
                store.n_bytes, store.n_reads = store.n_bytes + len(found), store.n_reads + 1
                return found

        return Reading(raw)


@pytest.mark.parametrize("version, order", EVERY)
def test_elsewhere_little_more_than_the_header_is_fetched(version: int, order: str) -> None:
    words = [f"word {i}" for i in range(200_000)]
    pairs = {"words": ("[s", words), "kinds": ("[i", [1] * 200_000), "merges": ("[s", words), "last": ("s", "x")}
    raw = write(pairs, {"t": ((2**22,), 0, bytes(2**24))}, version, order)
    header = len(raw) - 2**24
    store = Counted(m=raw)
    tensors, metadata = read_gguf(Place(store, "m.gguf"), [])
    assert tensors["t"].offset == header and metadata["last"] == "x"
    assert metadata["words"][150_000:150_002] == words[150_000:150_002] and metadata["merges"][-1] == words[-1]
    assert store.n_bytes < 1.4 * header + ours.FIRST and store.n_reads < 10


def test_a_small_file_elsewhere_is_read_once() -> None:
    store = Counted(m=write(everything(), TENSORS))
    read_gguf(Place(store, "m.gguf"))
    assert store.n_reads == 1 and store.n_bytes <= len(store.files["m.gguf"])


def parts(n_tensors: int = 3) -> dict[str, bytes]:
    split = {"split.count": ("H", 3), "split.tensors.count": ("i", n_tensors)}
    tensor = ((4,), 0, bytes(16))
    return {
        "m-00001-of-00003": write({"general.name": ("s", "m"), "split.no": ("H", 0), **split}, {"a": tensor}),
        "m-00002-of-00003": write({"split.no": ("H", 1), **split}, {"b": tensor}),
        "m-00003-of-00003": write({"split.no": ("H", 2), **split}, {"c": tensor}),
    }


@pytest.mark.parametrize("named", [1, 2, 3])
def test_a_split_model_is_joined_from_any_part(named: int) -> None:
    store = Counted(**parts())
    tensors, metadata, files = read_gguf_split(Place(store, f"m-0000{named}-of-00003.gguf"))
    assert [t.file.name for t in tensors.values()] == list(store.files) and list(tensors) == ["a", "b", "c"]
    assert [f.name for f in files] == list(store.files)
    assert metadata["general.name"] == "m" and metadata["split.no"] == 0


def test_a_missing_part_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    for name, raw in parts().items():
        if "00002" not in name:
            (tmp_path / f"{name}.gguf").write_bytes(raw)
    first = tmp_path / "m-00001-of-00003.gguf"
    with pytest.raises(CheckpointError, match="lacks 1 of its 3 parts") as raised:
        read_gguf_split(first)
    assert raised.value.finding == "missing-shards"
    faults: list[CheckpointError] = []
    tensors, _, files = read_gguf_split(first, faults)
    assert set(tensors) == {"a", "c"} and len(files) == 2
    assert [(e.finding, e.file) for e in faults] == [("missing-shards", "m-00002-of-00003.gguf")]


@pytest.mark.parametrize(
    "change, finding",
    [
        (lambda p: p.update({"m-00002-of-00003": p["m-00002-of-00003"][:90]}), "broken-file"),
        (lambda p: p.update({"m-00002-of-00003": p["m-00001-of-00003"]}), "duplicate-tensors"),
        (lambda p: p.update(parts(n_tensors=4)), "index-mismatch"),
        (
            lambda p: p.update({"m-00003-of-00003": write({"split.count": ("H", 2)}, {"c": ((4,), 0, bytes(16))})}),
            "index-mismatch",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_told(change: Any, finding: str) -> None:
    files = parts()
    change(files)
    first = Place(Counted(**files), "m-00001-of-00003.gguf")
    with pytest.raises(CheckpointError):
        read_gguf_split(first)
    faults: list[CheckpointError] = []
    assert "a" in read_gguf_split(first, faults)[0]
    assert finding in [e.finding for e in faults] and all(e.file for e in faults)


@pytest.mark.parametrize("kind, named", [(31, "Q4_0_4_4"), (38, "IQ4_NL_8_8"), (42, "Q2_0")])
def test_types_that_the_gguf_package_forgot_are_named(tmp_path: Path, kind: int, named: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write({"k": ("s", "v")}, {"t": ((64,), kind, bytes(36))}))
    assert read_gguf(path)[0]["t"].dtype == named


def test_a_type_given_up_before_gguf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write({"k": ("s", "v")}, {"t": ((64,), 4, bytes(40))}))
    with pytest.raises(CheckpointError, match="Q4_2"):
        read_gguf(path)


def test_more_texts_than_any_header_has_are_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    count = 50_000_000
    head = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, count)
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + 8 * count)  # a sparse file: 50 million empty texts
    start = time.process_time()
    with pytest.raises(CheckpointError, match="4,000,000 texts"):
        read_gguf(path)
    assert time.process_time() - start < 1


def test_texts_that_would_fill_the_memory_are_refused_when_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(write({"words": ("[s", ["x" * 1000] * 1000)}))
    words = read_gguf(path)[1]["words"]
    monkeypatch.setattr(ours, "MAX_PARSED", 500_000)
    with pytest.raises(CheckpointError, match="no real"):
        list(words)


@pytest.mark.parametrize("version, order", EVERY)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_damaged_files_of_every_version(tmp_path: Path, version: int, order: str, elsewhere: bool) -> None:
    pairs = everything()
    pairs["words"] = ("[s", [w for w in WORDS if len(w) < 1000][:600])
    raw = write(pairs, TENSORS, version, order)
    path = tmp_path / "m.gguf"
    refused = 0
    for seed in range(120):
        rng = random.Random(seed)
        bad = mutated(raw, rng)
        if not elsewhere:
            path.write_bytes(bad)
        start = time.process_time()
        try:
            _, metadata = read_gguf(Place(Counted(m=bad), "m.gguf") if elsewhere else path, [])
            for value in metadata.values():
                if isinstance(value, Sequence):
                    assert len(list(value)) == len(value)
        except BrollyError as error:
            refused += 1
            assert len(str(error)) < 600 + len(str(path)) and str(error).isprintable()
        assert time.process_time() - start < 1, f"seed {seed}"
    assert refused > 20


def test_a_file_cut_short_is_told_and_not_loaded(tmp_path: Path) -> None:
    path = llama_gguf(tmp_path / "m.gguf", n_vocab=32, n_merges=4)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5000)
    with pytest.raises(CheckpointError, match="incomplete"):
        read_gguf(path)
    faults: list[CheckpointError] = []
    assert read_gguf(path, faults)[0], "its header is whole"
    assert [e.finding for e in faults] == ["broken-file"]
