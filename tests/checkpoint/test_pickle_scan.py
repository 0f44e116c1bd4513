"""The scanner sees every global that Python's own readers would import: compared with them on streams by chance."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
import time
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from brolly.checkpoint import pickles
from brolly.checkpoint.pickles import Clock, Imports, Name, Tape, scan
from tests.checkpoint.pickles import MARK, PROTO, STOP, data, name


def scanned(raw: bytes, steps: int = 1_000_000) -> Imports:
    return scan(Tape(io.BytesIO(raw), 0, len(raw)), Clock(steps))


def names(raw: bytes) -> set[tuple[str, str]]:
    return set(map(tuple, scanned(raw).names))


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


class Inert:
    """Stands for whatever a pickle imports: may be called, built and added to, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return object.__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return Inert()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __reduce__(self) -> Any:
        raise AssertionError("nobody pickles this")

    append = extend = add = __setstate__


class Recorder(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's own reader in Python, importing nothing: it notes the names."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw))
        self.seen: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.seen.add((module, name))
        return Inert

    def persistent_load(self, pid: Any) -> Any:
        return None


class Fast(pickle.Unpickler):
    """The same of the reader in C."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw))
        self.seen: set[tuple[str, str]] = set()

    find_class = Recorder.find_class
    persistent_load = Recorder.persistent_load


def imported(raw: bytes, reader: Any) -> set[tuple[str, str]]:
    """What Python imports before it stops, by an error or at the end."""
    it = reader(raw)
    with suppress(Exception):
        it.load()
    return it.seen


class Holder:
    """An object with a state, a reduction and slots."""

    def __init__(self, value: Any) -> None:
        self.value = value


VALUES: list[Any] = [
    {"a": [1, 2.5, None, True], "b": ("x", b"y" * 300, 2**90, -5)}, {1, 2}, frozenset({"q"}), bytearray(b"abc"),
    Holder([Holder(1), {"k": Holder("é")}]), complex(1, 2), [ValueError("no"), range(3), slice(1), Ellipsis],
    "x" * 5000,
    [["nested"] * 300] * 3, {i: str(i) for i in range(1000)}, ("\ud800", "\n", "'"), OSError, len, int,
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read_to_its_end(protocol: int) -> None:
    for value in VALUES:
        raw = pickle.dumps(value, protocol)
        found = scanned(raw)
        assert (found.broken, found.unscanned, found.odd, found.n_pickles) == ("", "", {}, 1)
        assert set(map(tuple, found.names)) == imported(raw, Recorder)


def test_every_opcode_of_python_is_known() -> None:
    assert {ord(o.code) for o in pickletools.opcodes} == set(pickles.KINDS)


TRICKS = {
    "GLOBAL": name("os", "system"),
    "INST": MARK + b"ios\nsystem\n",
    "STACK_GLOBAL": text("os") + text("system") + b"\x93",
    "memo": text("os") + b"\x94" + text("system") + b"\x94" + b"00" + text("a") + text("b") + b"00h\x00h\x01\x93",
    "memo by line": text("os") + b"p7\n" + b"0" + text("system") + b"p007\n0g7\n" + b"h\x07\x93",
    "memo by far": text("os")
    + (b"r\x00\x01\x00\x00" + text("system") + b"r\x01\x01\x00\x00" + b"00j\x00\x01\x00\x00j\x01\x01\x00\x00\x93"),
    "mixed texts": b"Vo\\u0073\n" + b"S'syst\\x65m'\n" + b"\x93",
    "long lengths": b"X\x02\x00\x00\x00os" + b"\x8d\x06" + bytes(7) + b"system" + b"\x93",
    "old texts": b"U\x02osT\x06\x00\x00\x00system\x93",
    "duplicated": text("system") + text("os") + b"200" + text("os") + b"0" + text("os") + text("system") + b"\x93",
    "popped marks": MARK + text("x") + b"1" + text("os") + text("system") + b"\x93",
    "through a tuple": text("os") + text("system") + b"\x86" + b"0" + text("os") + text("system") + b"\x93",
    "frames": b"\x95" + struct.pack("<Q", 12) + text("os") + text("system") + b"\x93",
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_a_name_is_found_however_it_is_put_together(trick: str) -> None:
    raw = b"\x80\x04" + TRICKS[trick] + b"0N" + STOP
    wanted = imported(raw, Recorder)
    assert wanted and wanted <= names(raw) or trick == "memo by line" and scanned(raw).names
    assert names(raw) >= imported(raw, Fast)


def test_a_name_that_is_computed_is_told() -> None:
    joined = name("builtins", "str") + text("os") + b"\x85R"
    assert "computes the name of what it imports" in scanned(b"\x80\x04" + joined + text("system") + b"\x93.").odd
    assert "calls something that it has computed" in scanned(b"\x80\x04" + name("m", "f") + b")R)R.").odd
    assert "changes m.f itself" in scanned(b"\x80\x04" + name("m", "f") + b"}b.").odd


def test_what_stands_before_a_break_counts() -> None:
    for tail in (b"", b"\xff", b"\x00\x00", b"X\xff\xff\xff\x7f", b"cos", b"\x8c\x05ab", b"I1", b"\x95\x01"):
        raw = PROTO + name("os", "system") + data("x") + b"\x85R" + tail
        assert ("os", "system") in names(raw)
        assert scanned(raw).broken


def test_pickles_one_after_the_other_are_all_read() -> None:
    first, evil = pickle.dumps({"a": 1}, 2), PROTO + name("os", "system") + data("x") + b"\x85R."
    assert ("os", "system") in names(first + evil)
    assert ("os", "system") in names(first * 5 + evil)
    assert ("os", "system") in names(first + evil[2:])  # without saying that it is one
    assert ("os", "system") in names(first + evil[2:-1] + b"\xff")
    assert names(first + random.Random(1).randbytes(100_000)) == set()


def test_pickles_within_bytes_are_read() -> None:
    evil = PROTO + name("os", "system") + data("x") + b"\x85R."
    for protocol in (2, 3, 4, 5):
        for wrapped in (evil, pickle.dumps(evil, 4), pickle.dumps([evil], protocol)):
            assert ("os", "system") in names(pickle.dumps({"data": wrapped}, protocol)), protocol
    assert ("os", "system") in names(pickle.dumps(bytearray(evil), 5))
    deep = evil
    for _ in range(6):
        deep = pickle.dumps(deep, 4)
    assert scanned(deep).odd


def test_an_extension_code_is_told() -> None:
    for raw in (b"\x82\x07", b"\x83\x07\x00", b"\x84\x07\x00\x00\x00"):
        assert ("copyreg", "extension 7") in names(b"\x80\x02" + raw + STOP)


def test_joblib_puts_arrays_between_opcodes() -> None:
    joblib, np = pytest.importorskip("joblib"), pytest.importorskip("numpy")
    value = {
        "w": np.arange(10.0),
        "o": np.array([Holder(1), "x"], dtype=object),
        "z": np.float32(1),
        "u": np.array(["é"]),
    }
    raw = io.BytesIO()
    joblib.dump({"a": value, "b": [value, Holder(2)]}, raw)
    found = scanned(raw.getvalue())
    assert (found.broken, found.odd) == ("", {})
    assert (__name__, "Holder") in set(map(tuple, found.names))
    evil = raw.getvalue()[:-1] + name("os", "system") + b"0."
    assert ("os", "system") in names(evil)


NAMED = [
    text("os") + text("system") + b"\x93", name("m", "f"), name("os.path", "join"), b"(ios\nsystem\n",
    text("a.b") + b"h\x00\x93",
    b"h\x01h\x00\x93", b"h\x05h\x01\x93", b"Vo\\u0073\nS'x'\n\x93", b"g3\nj\x01\x00\x00\x00\x93", b"2\x93",
]  # fmt: skip
PUSHED = [
    text("os"), text("system"), text(""), b"X\x02\x00\x00\x00os", b"\x8d\x02" + bytes(7) + b"os", b"U\x02os", b"(",
    b")", b"]",
    b"}", b"N", b"K\x05", b"J\xff\xff\xff\xff", b"S'os'\n", b"\x8f", b"\x88", b"C\x03abc", b"B\x02\x00\x00\x00xy",
    b"I01\n",
    b"F1.5\n", b"L5L\n", b"G" + struct.pack(">d", 0.5), b"\x8a\x02\x01\x02", b"Px\n", b"\x96\x01" + bytes(7) + b"x",
]  # fmt: skip
TAKEN = [
    b"\x94", b"q\x00", b"q\x01", b"q\x05", b"p3\n", b"p 3\n", b"r\x01\x00\x00\x00", b"h\x00", b"h\x05", b"g3\n",
    b"2", b"t", b"l",
    b"d", b"e", b"u", b"s", b"a", b"0", b"1", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"\x92", b"o", b"b", b"\x90",
    b"\x91",
    b"\x80\x04", b"Q", b"\x82\x01", b".",
]  # fmt: skip


def stream(rng: random.Random) -> bytes:
    """Opcodes by chance, most of which agree with the stack."""
    start = b"\x80" + bytes([rng.choice([2, 3, 4, 5])]) if rng.random() < 0.7 else b""
    first = (
        text("os") + b"\x94" + text("system") + b"q\x01" + b"p5\n" + text("x") + b"p3\n" if rng.random() < 0.5 else b""
    )
    kinds = rng.choices((PUSHED, TAKEN, NAMED), (5, 4, 2), k=rng.randrange(1, 30))
    return start + first + b"".join(map(rng.choice, kinds)) + (b"." if rng.random() < 0.8 else b"")


def test_whatever_python_would_import_is_seen_or_told() -> None:
    """Python's readers, importing nothing, against the scanner: on 6,000 streams by chance."""
    rng = random.Random(7)
    n_imports = 0
    for _ in range(6000):
        raw = stream(rng)
        found = scanned(raw)
        seen = set(map(tuple, found.names))
        for reader in (Recorder, Fast):
            wanted = imported(raw, reader)
            n_imports += len(wanted)
            assert wanted <= seen or found.odd, raw
    assert n_imports > 5000


def test_a_frame_that_cuts_an_opcode_is_told() -> None:
    """Python's reader in C then drops what the frame held of it: here it imports os.system,
    and not numpy.core.system."""
    cut = b"\x80\x04\x95" + struct.pack("<Q", 12) + b"cnumpy.core." + b"os\nsystem\n."
    assert imported(cut, Fast) == {("os", "system")}
    assert scanned(cut).odd
    whole = pickle.dumps([b"x" * 70_000, "y" * 70_000, list(range(70_000))], 4)
    assert not scanned(whole).odd and not scanned(whole).broken


def test_damaged_pickles_are_taken_as_far_as_they_go() -> None:
    rng = random.Random(3)
    for value in VALUES:
        for protocol in (0, 2, 4):
            raw = bytearray(pickle.dumps(value, protocol))
            for _ in range(20):
                spoilt = bytearray(raw)
                for _ in range(rng.randrange(1, 4)):
                    spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
                spoilt = spoilt[: rng.randrange(1, len(spoilt) + 1)]
                found = scanned(bytes(spoilt))
                assert imported(bytes(spoilt), Recorder) <= set(map(tuple, found.names)) or found.odd or found.unscanned


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x04" + b"N" * 3_000_000, b"\x80\x04" + b"}\x94" * 1_000_000, b"\x80\x04" + b"(" * 3_000_000,
        b"\x80\x04]" + b"2" * 3_000_000,
        b"\x80\x04" + b"".join(b"cm\n%d\n0" % i for i in range(300_000)), b"\x80\x04I" + b"1" * 3_000_000,
        b"N." * 1_000_000,
        b"\x80\x04" + (b"\x8c\xff" + b"a" * 255 + b"\x94") * 20_000, b"\x80\x04" + (text("x") + b"\x85") * 500_000,
    ],
    ids=range(9),
)  # fmt: skip
def test_a_hostile_pickle_takes_little_time_and_memory(raw: bytes) -> None:
    start = time.process_time()
    scanned(raw)
    assert time.process_time() - start < 1.5
    tracemalloc.start()
    try:
        scan(Tape(io.BytesIO(raw), 0, len(raw)), Clock(seconds=60, steps=50_000))  # a twentieth of what it may take
        assert tracemalloc.get_traced_memory()[1] < 15 * 2**20
    finally:
        tracemalloc.stop()


def test_a_scan_that_ends_early_says_so() -> None:
    raw = b"\x80\x04" + b"N0" * 1000 + name("os", "system") + b"."
    assert scanned(raw, steps=100).unscanned
    assert Name("os", "system") in scanned(raw).names
