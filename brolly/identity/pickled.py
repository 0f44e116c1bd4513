"""Where pickles hide in a model's files, and what the names in them mean, by a list of what is allowed."""

from __future__ import annotations

import io
import re
from time import monotonic
from typing import Any, BinaryIO

from brolly.checkpoint.archives import (
    MAX_UNPACKED,
    Member,
    Part,
    Unpacked,
    is_tar,
    member_file,
    packing,
    read_directory,
    tar_members,
)  # fmt: skip
from brolly.checkpoint.bounded import shown
from brolly.checkpoint.pickles import MAX_SECONDS, MAX_STEPS, Clock, Imports, Name, Stretch, Tape, scan
from brolly.errors import CheckpointError
from brolly.identity.tables import table

SUFFIXES = (
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".nemo", ".dat", ".data", ".p",
    ".sav", ".pyt", ".pt2", ".dill", ".cpkl", ".pck", ".jbl", ".model", ".metadata", ".mar", ".t7", ".distcp", ".keras",
    ".zip",    ".tar", ".tgz", ".gz", ".bz2", ".xz",
)  # fmt: skip
SURE = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".p", ".sav", ".dill", ".cpkl", ".pck", ".jbl", ".pyt")
OPAQUE = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard", b"MSCF": "Cabinet",
    b"\x04\x22\x4d\x18": "LZ4", b"\x02\x21\x4c\x18": "LZ4", b"\x1f\x9d": "compress", b"\x1f\xa0": "compress",
    b"ZF0x": "an old joblib",
}  # fmt: skip
PACKED = (".7z", ".rar", ".lz4")
TEXTS = (".txt", ".md", ".json", ".jinja", ".py")
MAX_LEVELS = 3  # of archives within archives
MAX_SNIFFED = 20_000  # members of one file
MAX_HELD = 32 * 2**20  # bytes of a packed zip that are unpacked to look inside
NUMBERS = re.compile(r"(.*/)?(data|constants|xl_model_data)/\d+|.*\.storage")  # a tensor's numbers in a PyTorch archive
RUNS = re.compile(
    r"(?:^|_)(?:eval|exec|execute|popen|spawn\w*|system|shell|subprocess|command|run|import|urlopen|urlretrieve"
    r"|download|loads?)(?:_|$)|call_function"
)
MODULES = {
    "os", "sys", "subprocess", "builtins", "importlib", "socket", "shutil", "posix", "nt", "pty", "ctypes", "pickle",
    "marshal", "runpy", "popen", "system",
}  # fmt: skip
OLD = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names
# What a TorchScript program must not do to the disk or beyond; its code is text in the archive.
SCRIPT = re.compile(
    rb"\b(?:torch\.(?:save|from_file|load)|(?:ops\.)?aten\.(?:save|from_file|load)|torch\.ops\.load)\w*\s*\("
)


class Told:
    """What was found in one file of the model: names by severity, and sentences by finding."""

    def __init__(self, steps: int = MAX_STEPS, seconds: float = MAX_SECONDS, name: str = "") -> None:
        self.name = name
        self.clock = Clock(steps, seconds)
        self.danger: dict[str, str] = {}  # name → where in the file
        self.unknown: dict[str, str] = {}
        self.others: dict[tuple[str, str], str] = {}  # (finding, severity) → sentence

    def warn(self, finding: str, sentence: str) -> None:
        self.say(finding, "warning", sentence)

    def say(self, finding: str, severity: str, sentence: str) -> None:
        self.others.setdefault((finding, severity), sentence)

    def judge(self, found: Imports, where: str, sure: bool, script: bool) -> None:
        """Sort what a scan found. Of bytes that are hardly a pickle, only dangerous calls count."""
        for name in found.names:
            if script and name.module.startswith("__torch__") or not (sure or name in found.calls):
                continue
            verdict = judged(name)
            if verdict == "danger":
                self.danger.setdefault(_spelt(name), where)
            elif verdict == "warning" and sure:
                self.unknown.setdefault(_spelt(name), where)
        for words in found.odd if sure else ():
            self.danger.setdefault(f"it {words}", where)
        if found.unscanned and sure:
            self.say("unscanned", "warning", f"A pickle was not scanned to its end: {found.unscanned}; do not load it.")


def _spelt(name: Name) -> str:
    return shown(f"{name.module}.{name.name}")[1:-1]


def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = table("pickle_globals.json")
    return rules


def judged(name: Name) -> str:
    """Nothing for what may be named without a word, "warning" for what is unknown, "danger" for what runs code."""
    module = OLD.get(name.module, name.module)
    rules = _rules()
    for known in (module, *(f"{p}.*" for p in _above(module))):
        listed = rules["allowed"].get(known)
        if listed is None:
            continue
        if isinstance(listed, list) and name.name in listed:
            return ""
        if (
            isinstance(listed, str)
            and re.fullmatch(r"[A-Z][A-Za-z0-9_]*", name.name)
            and name.name.endswith(listed[1:])
        ):
            return ""
    parts = name.name.split(".")
    walked = [p for p in (*module.split("."), *parts) if p.startswith("__") and p.endswith("__")]
    if walked and (module not in ("__main__", "__mp_main__") or any(p.startswith("__") for p in parts)):
        return "danger"
    if listed_as_dangerous(name):
        return "danger"
    if MODULES & set(parts) or len(parts) > 1 and any(rules["dangerous"].get(p) == "*" for p in parts):
        return "danger"
    return "danger" if RUNS.search(parts[-1]) and not parts[-1][:1].isupper() else "warning"


def listed_as_dangerous(name: Name) -> bool:
    """Whether the list names it, or its module, among what runs code."""
    module, first = OLD.get(name.module, name.module), name.name.partition(".")[0]
    for known in _above(module):
        listed = _rules()["dangerous"].get(known)
        if listed == "*" or (listed and known == module and first in listed):
            return True
    return False


def _above(module: str) -> list[str]:
    """A module and those that it lies in: a.b.c, a.b, a."""
    parts = module.split(".")[:20]
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def look(
    file: BinaryIO, size: int, name: str, told: Told, level: int = 0,
    *, shy: bool = False, inside: str = "", zipped: bool = False,
) -> None:  # fmt: skip
    """Scan a file of the model, or a member of one, for pickles. `shy` reads only what its name makes suspicious.

    `zipped` reads it as a zip archive, whatever it begins with. What cannot be read is told as a finding, too; nothing
    is raised but what reading the disk or the network raises.
    """
    file.seek(0)
    head = file.read(min(size, 512))
    try:
        if zipped:
            _zip(file, size, told, level, shy, inside)
        else:
            _look(file, size, head, name, told, level, shy, inside)
    except CheckpointError as error:
        if error.finding in ("opaque-archive", "bomb"):
            told.say(error.finding, "warning", str(error))
        else:
            told.warn("unscanned", f"{inside or name} was not scanned for pickles: {error}")


def _look(file: BinaryIO, size: int, head: bytes, name: str, told: Told, level: int, shy: bool, inside: str) -> None:
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        _zip(file, size, told, level, shy, inside)
    elif is_tar(head):
        for n, member in enumerate(tar_members(file, size, name)):
            if n < MAX_SNIFFED and not member.link:
                part: Any = Part(file, member.start, member.size)
                _member(part, member, told, level, shy, inside)
    elif kind := _packed(head, suffix):
        _unpack(file, size, kind, name, told, level, inside)
    elif head[:6] == b"\x93NUMPY":
        _array(file, size, head, told, inside)
    elif opaque := next((said for magic, said in OPAQUE.items() if head.startswith(magic)), None):
        if suffix in SUFFIXES or suffix in PACKED or not suffix and opaque != "Zstandard":
            told.warn(
                "opaque-archive",
                f"It is packed by {opaque}, so what loading it would run is not seen; unpack it and identify that.",
            )
    else:
        _pickle(file, size, head, name, suffix, told, inside)


def _packed(head: bytes, suffix: str) -> str | None:
    kind = packing(head)
    return None if kind == "zlib" and suffix in TEXTS else kind


PLAIN = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)
WEIGHTS = (".gguf", ".safetensors")  # nobody unpickles what is called so and begins so


def _pickle(file: BinaryIO, size: int, head: bytes, name: str, suffix: str, told: Told, inside: str) -> None:
    declared = head[:1] == b"\x80" and len(head) > 1 and head[1:2] <= b"\x05"
    likely = declared or suffix in SURE
    if suffix in WEIGHTS and (head[:4] == b"GGUF" or head[6:9] == b"\0\0{"):
        return
    found = scan(Tape(file, 0, size), told.clock)
    whole = found.n_pickles > 0
    numbers = bool(NUMBERS.fullmatch(name))
    if likely:
        sure = whole or len(found.names) > 0 or found.unscanned != ""
    else:  # pickles before protocol 2 say nothing of themselves; weights hardly spell a name by chance
        sure = suffix in SUFFIXES and any(PLAIN.fullmatch(f"{n.module}.{n.name}") for n in found.names)
        sure = sure or not suffix and any(PLAIN.fullmatch(f"{n.module}.{n.name}") for n in found.calls)
        sure = sure or suffix in SUFFIXES and found.unscanned != ""
    sure = sure and not numbers
    told.judge(found, inside, sure, False)
    if sure and not whole and found.broken:
        told.warn(
            "pickle-broken",
            f"A pickle breaks off ({found.broken}), and Python would run what stands before; download it again.",
        )
    for stretch in found.zips:
        part = Part(file, stretch.start, stretch.size)
        look(part, stretch.size, "bytes", told, MAX_LEVELS - 1, inside=inside)  # type: ignore[arg-type]


def _zip(file: BinaryIO, size: int, told: Told, level: int, shy: bool, inside: str) -> None:
    if level >= MAX_LEVELS:
        told.warn(
            "unscanned",
            "Archives lie in it deeper than any real model's, and were not opened; do not load it.",
        )
        return
    directory = read_directory(file, size, inside or "the archive")
    names = {m.name for m in directory.members}
    script = any(n.endswith("constants.pkl") for n in names) and any("/code/" in n for n in names)
    if directory.others:
        told.say(
            "two-directories",
            "danger",
            "The zip has two lists of what it holds, and readers differ in which they believe; do not load it.",
        )
    for member in (*directory.members, *directory.others)[:MAX_SNIFFED]:
        if shy and NUMBERS.fullmatch(member.name) or member.name.endswith("/"):
            continue
        if member.locked:
            told.warn(
                "opaque-archive",
                f"{shown(member.name)} says that it is encrypted, as no model is; do not load it.",
            )
        try:
            part = member_file(file, member, size, inside or "the archive")
            _member(part, member, told, level, shy, inside, script)
        except CheckpointError as error:
            told.say(
                error.finding if error.finding == "opaque-archive" else "unscanned",
                "warning",
                f"{str(error)[:300]} It was not scanned.",
            )
    if len(directory.members) + len(directory.others) > MAX_SNIFFED:
        told.warn("unscanned", f"It holds more than {MAX_SNIFFED:,} files, and not all were scanned.")


def _member(
    part: BinaryIO, member: Member, told: Told, level: int, shy: bool, inside: str, script: bool = False
) -> None:
    where = f"{inside}/{member.name}" if inside else member.name
    if monotonic() > told.clock.end:
        told.warn("unscanned", "It takes too long to look at all that it holds; not all was scanned.")
        return
    if script and member.name.endswith((".pkl", ".py")):
        if member.name.endswith(".py"):
            if SCRIPT.search(part.read(2**20)):
                told.say(
                    "script-file-op",
                    "danger",
                    f"The program in {shown(where)} reads or writes files when it runs; do not run it.",
                )
            return
        told.judge(scan(Tape(part, 0, member.size), told.clock), where, True, True)
        return
    if part.read(4) == b"\x7fELF":
        told.warn(
            "executable", f"{shown(where)} is a program or a library (ELF) that loading may run; trust its source."
        )
    elif member.name.endswith(".py") and told.name.endswith(".mar"):
        told.warn("remote-code", f"TorchServe runs {shown(where)}; read that code first.")
    look(part, member.size, member.name, told, level + 1, shy=shy, inside=where)


def _unpack(file: BinaryIO, size: int, kind: str, name: str, told: Told, level: int, inside: str) -> None:
    if level >= MAX_LEVELS:
        told.warn(
            "unscanned",
            "Archives lie in it deeper than any real model's, and were not opened; do not load it.",
        )
        return
    unpacked: Any = Unpacked(Part(file, 0, size), kind, inside or name)  # type: ignore[arg-type]
    unpacked.end = told.clock.end
    head = unpacked.read(512)
    inner = re.sub(r"\.(gz|bz2|xz|lzma|z)$", "", name, flags=re.I)
    if head[:2] == b"PK":
        unpacked.seek(0)
        raw = unpacked.read(MAX_HELD + 1)
        if len(raw) > MAX_HELD:
            told.warn(
                "unscanned",
                f"It is a packed zip of more than {MAX_HELD:,} bytes, and was not opened; unpack it first.",
            )
        else:
            look(io.BytesIO(raw), len(raw), inner, told, level + 1, inside=inside)
        return
    look(unpacked, MAX_UNPACKED, inner, told, level + 1, inside=inside)


NUMERIC = re.compile(
    rb"\{'descr': '[<>|=][biufcSUVMm]\d{1,9}(?:\[\w{1,9}\])?', 'fortran_order': (?:True|False),"
    rb" 'shape': \([\d, L]*\), \}\s*"
)


def _array(file: BinaryIO, size: int, head: bytes, told: Told, inside: str) -> None:
    """An .npy of objects is its header, then a pickle."""
    wide = head[6:7] >= b"\x02"
    n = int.from_bytes(head[8 : 12 if wide else 10], "little")
    start = (12 if wide else 10) + n
    file.seek(0)
    header = file.read(min(start, 2**16))
    if NUMERIC.fullmatch(header[12 if wide else 10 :]):
        return
    found = scan(Tape(file, min(start, size), max(0, size - start)), told.clock)
    objects = re.search(rb"[O\\]|object", header) is not None or start > 2**16
    told.judge(found, inside, objects and (found.n_pickles > 0 or len(found.names) > 0), False)


__all__ = ["SUFFIXES", "Stretch", "Told", "judged", "listed_as_dangerous", "look"]
