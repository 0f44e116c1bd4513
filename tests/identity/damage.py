"""How models are damaged: bytes, lines, JSON by its structure, members of archives, whole files of a folder."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
from contextlib import suppress
from copy import deepcopy
from typing import Any

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "0",
    "none", "true", "\ud800", "\x1b[31mred\x07", "<script>alert(1)</script>", "../../etc/passwd", "/dev/zero",
    "a" * 5000, "\u202emoc", "%s%n{0}", "{{ cycler.__init__.__globals__ }}", [], {}, [[]], [None], [1, "a", {}],
    {"": ""}, ["x"] * 300, {str(i): i for i in range(300)}, "1" * 400, 10**399,
)  # fmt: skip
LINES = (
    "---", "license: ", "license: [mit, apache-2.0", "base_model:", "- - - -", "tags: {a: b", "\tx: y", "a: &a *a",
    "license: !!python/object/apply:os.system [true]", "model-index:\n- name: 5", "FROM .", "FROM Modelfile",
    "FROM ../x", 'SYSTEM """', "a" * 3000, "datasets: [" + "a, " * 400 + "]", "license: \x1b[31m", "x: |\n  y",
    "Trained on 1e999 tokens", "9" * 400 + " billion tokens and " + "9" * 400 + " FLOP", "<layer id='1'>", "</net>",
    "<!DOCTYPE a [<!ENTITY b 'c'>]>", "parameters: " + "9" * 5000, "num_tokens: 1e400",
)  # fmt: skip
TEXTS = (".md", ".xml", ".yaml", ".txt", "Modelfile", "LICENSE", "checkpoint", ".pbtxt")
ODD = ("\u202egnp.bin", "weird <b>&'\" name.bin", "model.safetensors.index.json", "config.json", "modeling_x.py",
       "training_args.bin", "adapter_config.json", "model_index.json", "oci-layout", "saved_model.pb", "Modelfile",
       "0", "tokenizer.json", "LICENSE", "onnx/model.onnx", "m-00001-of-99999.safetensors", "a" * 200)  # fmt: skip


def spoilt(name: str, raw: bytes, other: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """One file's bytes, damaged after its kind half of the time, else without regard to it."""
    if rng.random() < 0.6:
        try:
            if name.endswith((".json", ".zarray", "_METADATA", "manifest")) or raw[:1] == b"{":
                return edited(raw, rng)
            if raw[8:9] == b"{" and raw[6:8] == b"\0\0":
                size = int.from_bytes(raw[:8], "little")
                head = edited(raw[8 : 8 + size], rng)
                return struct.pack("<Q", len(head)) + head + raw[8 + size :]
            if name.endswith(TEXTS):
                return lines(raw, rng)
            if depth < 2 and raw[:4] == b"PK\x03\x04":
                return rezipped(raw, other, rng, depth)
            if depth < 2 and (raw[257:262] == b"ustar" or raw[:2] == b"\x1f\x8b"):
                return retarred(raw, other, rng, depth)
        except (ValueError, OSError, EOFError, RecursionError, zipfile.BadZipFile, tarfile.TarError):
            pass
    return damaged(raw, other, rng)


def damaged(raw: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four changes: cut, flip, a boundary number, a piece repeated, dropped or taken from another format."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at = rng.randrange(min(len(data), rng.choice((64, 1024, 65536, len(data)))))
        match rng.randrange(7):
            case 0:
                del data[at:]
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(NUMBERS) % 2 ** (8 * width)
                data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 3:
                piece = data[at : at + rng.randrange(1, 256)]
                data[at:at] = piece * rng.choice((1, 1, 50))
            case 4:
                del data[at : at + rng.randrange(1, 64)]
            case 5:
                start = rng.randrange(max(1, len(other)))
                data[at:at] = other[start : start + rng.randrange(1, 512)]
            case _:
                data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


def lines(raw: bytes, rng: random.Random) -> bytes:
    """Lines dropped, doubled, cut, and strange ones put in."""
    rows = raw.decode("latin-1").split("\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(rows))
        match rng.randrange(6):
            case 0:
                del rows[at : at + rng.randrange(1, 4)]
            case 1:
                rows[at:at] = rows[at : at + 1] * rng.choice((1, 2, 500))
            case 2:
                rows[at] = rows[at][: rng.randrange(len(rows[at]) + 1)]
            case 3:
                key, mark, _ = rows[at].partition(":")
                rows[at] = f"{key}{mark} {rng.choice(VALUES)}"
            case _:
                rows.insert(at, rng.choice(LINES))
        rows = rows or [""]
    return "\n".join(rows).encode("utf-8", "surrogatepass")


def edited(raw: bytes, rng: random.Random) -> bytes:
    """JSON with values of other types, huge or missing, keys renamed or doubled, deep nesting, long texts."""
    value = json.loads(raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        path = places(value)
        holder, key = rng.choice(path)
        if holder is None:
            continue
        match rng.randrange(9):
            case 0 | 1 | 2 | 3:
                holder[key] = deepcopy(rng.choice(VALUES))
            case 4:
                del holder[key]
            case 5:
                for _ in range(rng.choice((1, 3, 40, 70, 2000))):
                    holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
            case 6:
                old = holder[key]
                holder[key] = str(old) if isinstance(old, (int, float)) else {"weights": old}
                if isinstance(old, str):
                    holder[key] = old * rng.choice((2, 200)) if rng.random() < 0.7 else len(old)
                elif type(old) is int and abs(old) < 2**1000:
                    holder[key] = rng.choice((-old, old * 2**20, old + 0.5, old * 10**9, [old], str(old)))
            case 7:
                source, from_key = rng.choice(path)
                if source is not None and from_key in (source if isinstance(source, dict) else range(len(source))):
                    with suppress(RecursionError):
                        holder[key] = deepcopy(source[from_key])
            case _:
                if isinstance(holder, dict):
                    holder[
                        rng.choice(("", "a.b", "\x00", "../x", "weight_map", "text_config", "__class__", "\ud800"))
                    ] = holder[key]
                else:
                    holder += holder[:50]
    text = dumped(value)
    if rng.random() < 0.05 and text.startswith("{"):  # every key twice
        text = text[:-1] + ", " + text[1:] if len(text) > 2 else text
    return text.encode("utf-8", "surrogatepass")


def dumped(value: Any) -> str:
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return "[" * 3000 + "]" * 3000


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a JSON value, to some depth."""
    found: list[tuple[Any, Any]] = [(None, None)] if not isinstance(value, (dict, list)) or not value else []
    todo = [value]
    while todo and len(found) < 2000:
        inner = todo.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else []
        for key in keys:
            found.append((inner, key))
            todo.append(inner[key])
    return found


def rezipped(raw: bytes, other: bytes, rng: random.Random, depth: int) -> bytes:
    """A zip with one member damaged, whose sums are right again."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        rows = [(info, archive.read(info)) for info in archive.infolist()]
    out, at = io.BytesIO(), rng.randrange(len(rows)) if rows else 0
    with zipfile.ZipFile(out, "w") as archive:
        for i, (info, data) in enumerate(rows):
            if i == at and rng.random() < 0.1:
                if rng.random() < 0.5:
                    continue
                info.filename = rng.choice(ODD)
            elif i == at:
                data = spoilt(info.filename, data, other, rng, depth + 1)
            archive.writestr(info, data)
    return out.getvalue()


def retarred(raw: bytes, other: bytes, rng: random.Random, depth: int) -> bytes:
    """A tar with one member damaged, whose sums are right again."""
    mode = "gz" if raw[:2] == b"\x1f\x8b" else ""
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        rows = [(info, archive.extractfile(info)) for info in archive.getmembers() if info.isfile()]
        held = [(info, file.read() if file else b"") for info, file in rows]
    out, at = io.BytesIO(), rng.randrange(len(held)) if held else 0
    with tarfile.open(fileobj=out, mode=f"w:{mode}") as archive:  # type: ignore[call-overload]
        for i, (info, data) in enumerate(held):
            if i == at and rng.random() < 0.15:
                match rng.randrange(3):
                    case 0:
                        continue
                    case 1:
                        info.name = rng.choice(ODD)
                    case _:
                        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            elif i == at:
                data = spoilt(info.name, data, other, rng, depth + 1)
            info.size = len(data) if info.isfile() else 0
            archive.addfile(info, io.BytesIO(data) if info.isfile() else None)
    return out.getvalue()


class Hollow(bytes):
    """The beginning of a large file; `more` bytes of nought follow."""

    more = 0

    @classmethod
    def of(cls, raw: bytes, more: int) -> Hollow:
        found = cls(raw)
        found.more = more
        return found


def tree(files: dict[str, bytes], other: bytes, rng: random.Random) -> dict[str, bytes]:
    """A folder's files with one or two damaged; now and then one is gone, emptied, moved, or another's."""
    found = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2))):
        name = rng.choice(sorted(found) or [""])
        if not name:
            break
        match rng.randrange(12):
            case 0:
                del found[name]
            case 1:
                found[name] = b"" if rng.random() < 0.5 else other
            case 2:
                found[rng.choice(ODD)] = found[name] if rng.random() < 0.5 else found.pop(name)
            case kind:
                raw = found[name]
                bad = spoilt(name, raw, other, rng)
                found[rng.choice(ODD) if kind == 3 else name] = (
                    Hollow.of(bad, raw.more) if isinstance(raw, Hollow) else bad
                )
    kept: dict[str, bytes] = {}
    for name, raw in found.items():  # no file where another has a folder
        if not any(other_name.startswith(name + "/") or name.startswith(other_name + "/") for other_name in kept):
            kept[name] = raw
    return kept
