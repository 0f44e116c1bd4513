"""Thousands of damaged files from fixed seeds: each is refused with an error of ours or read soundly, and soon."""

from __future__ import annotations

import json
import pickletools
import random
import struct
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, deserialize

from tests.checkpoint.files import WRITERS
from tests.checkpoint.hostile import survives
from tests.checkpoint.pickles import ENVELOPES, PROTO, STOP, data, name, tensor
from tests.checkpoint.test_gadgets import gadgets

LENGTHS = [
    0,
    1,
    2,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**47,
    2**48,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """One to four blows: bits flipped, cut off, cut out, doubled, moved, or a length that lies."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        span = rng.choice((1, 2, 4, 8, 40))
        match rng.randrange(7):
            case 0:
                for _ in range(rng.choice((1, 3, 8))):
                    if out:
                        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                del out[at : at + span]
            case 3:
                out[at:at] = out[at : at + span] * rng.choice((1, 2, 1000))
            case 4:
                lie = rng.choice(LENGTHS).to_bytes(8, rng.choice(("little", "big")))
                width = rng.choice((1, 2, 4, 8))
                out[at : at + width] = lie[:width] if rng.random() < 0.8 else lie[-width:]
            case 5:
                out[at : at + span] = rng.randbytes(span)
            case 6:
                elsewhere = rng.randrange(len(out) + 1)
                out[at : at + span] = out[elsewhere : elsewhere + span]
    return bytes(out)


@pytest.mark.parametrize("filename", WRITERS)
def test_damaged_files(tmp_path: Path, filename: str) -> None:
    path = tmp_path / filename
    WRITERS[filename](path)
    damage(path, range(200))


def damage(path: Path, seeds: range) -> None:
    """The same file with each seed's damage, spread over its header."""
    raw = path.read_bytes()
    refused = 0
    for seed in seeds:
        path.write_bytes(mutated(raw, random.Random(seed)))
        try:
            refused += survives(path) is not None
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert refused > len(seeds) // 4, "the damage hits nothing that a reader looks at"


@pytest.mark.parametrize("filename", WRITERS)
def test_every_truncation_is_refused(tmp_path: Path, filename: str) -> None:
    path = tmp_path / filename
    WRITERS[filename](path)
    raw = path.read_bytes()
    for n_bytes in [*range(60), *random.Random(0).sample(range(60, len(raw)), 60), len(raw) - 1]:
        path.write_bytes(raw[:n_bytes])
        assert survives(path) is not None, f"cut to {n_bytes} bytes"


def safetensors_header(rng: random.Random) -> Any:
    """A header of one to three tensors, some of whose parts are replaced by something else."""
    odd = [None, True, -1, 0, 1.5, 2**47, 2**63, "", "F32", "F4", [], {}, [0], [0, 4], [4, 0], [[]]]
    header: Any = {}
    end = 0
    for i in range(rng.randrange(1, 4)):
        shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
        dtype, bits = rng.choice((("F32", 32), ("BF16", 16), ("BOOL", 8), ("F4", 4), ("F6_E2M3", 6), ("C64", 64)))
        count = 1
        for n in shape:
            count *= n
        nbytes = count * bits // 8
        header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    for _ in range(rng.randrange(3)):
        entry = header[rng.choice(list(header))]
        match rng.randrange(5):
            case 0:
                header[rng.choice(("t0", "__metadata__", "", "é"))] = copy(rng.choice(odd))
            case 1 if isinstance(entry, dict):
                entry[rng.choice(("dtype", "shape", "data_offsets", "more"))] = copy(rng.choice(odd))
            case 2 if isinstance(entry, dict) and entry:
                entry.pop(rng.choice(list(entry)))
            case 3 if isinstance(entry, dict) and isinstance(entry.get("data_offsets"), list):
                ends = [n for n in (*entry["data_offsets"], 0, 0) if isinstance(n, int)][:2]
                entry["data_offsets"] = [n + rng.choice((-1, 0, 1, 4)) for n in ends]
            case 4 if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
                entry["shape"] = [*entry["shape"], rng.choice((0, 1, 2, 2**40))]
    return header, end


def test_odd_safetensors_headers_are_taken_only_if_the_library_takes_them(tmp_path: Path) -> None:
    taken = compare_headers(tmp_path / "odd.safetensors", range(600))
    assert 100 < taken < 500


def compare_headers(path: Path, seeds: range) -> int:
    taken = 0
    for seed in seeds:
        header, end = safetensors_header(random.Random(seed))
        raw = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))
        if survives(path) is None:
            taken += 1
            try:
                deserialize(path.read_bytes())
            except SafetensorError as error:
                raise AssertionError(f"seed {seed}: the library says {error} of {raw!r}") from None
    return taken


PIECES = [
    tensor(), tensor((), (), ()), name("torch", "FloatStorage"), name("torch", "float32"), name("torch", "Size"),
    name("torch._utils", "_rebuild_tensor_v2"), name("torch._utils", "_rebuild_tensor_v3"),
    name("torch._utils", "_rebuild_parameter"), name("collections", "OrderedDict"), data("storage"), data("0"),
    data((1, 2)), data([1]), data({"a": 1}), data("w"), data(-1), data(2**70), b"(", b"Q", b"R", b"t", b"\x85", b"s",
    b"u", b"e", b"a", b"l", b"d", b"0", b"1", b"2", b"}", b"]", b")", b"\x94", b"q\x00", b"h\x00", b"b",
]  # fmt: skip


def opcodes(rng: random.Random) -> bytes:
    """A pickle of opcodes drawn at random, with arguments of about the right form."""
    out = [b"}", data("w"), tensor()] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(1, 40)):
        if rng.random() < 0.7:
            out.append(rng.choice(PIECES))
            continue
        opcode = rng.choice(pickletools.opcodes)
        out.append(opcode.code.encode("latin-1"))
        if opcode.arg is not None:
            n = rng.choice((0, 1, 3))
            match opcode.arg.n:
                case -1:  # up to a newline, or two
                    out.append(rng.choice((b"1\n", b"x y\n", b"os\nsystem\n", b"'\\q'\n", b"\n", b"9" * 5000 + b"\n")))
                case width if width > 0:
                    out.append(rng.choice((bytes(width), rng.randbytes(width), b"\xff" * width)))
                case _:
                    width = {"1": 1, "4": 4, "8": 8}.get(opcode.arg.name[-1], 4)
                    size = n if rng.random() < 0.8 else rng.choice(LENGTHS) % 256**width
                    out.append(size.to_bytes(width, "little") + rng.randbytes(n))
    if out and rng.random() < 0.3:
        out.append(b"s")
    return PROTO + b"".join(out) + STOP


def test_random_opcodes(tmp_path: Path) -> None:
    walk_opcodes(tmp_path, range(800))


def walk_opcodes(folder: Path, seeds: range) -> None:
    path = folder / "random.pt"
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes(rng.choice(list(ENVELOPES.values()))(opcodes(rng)))
        try:
            survives(path)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_damaged_gadgets_run_nothing(tmp_path: Path) -> None:
    damage_gadgets(tmp_path, range(400))


def damage_gadgets(folder: Path, seeds: range) -> None:
    canary, path = folder / "canary", folder / "gadget.pt"
    bodies = list(gadgets(canary).values())
    for seed in seeds:
        rng = random.Random(seed)
        path.write_bytes(mutated(rng.choice(list(ENVELOPES.values()))(rng.choice(bodies)), rng))
        try:
            survives(path)
            assert not canary.exists(), "something was executed"
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
