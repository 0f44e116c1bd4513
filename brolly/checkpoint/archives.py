"""Zip and tar archives as stores of files: members are read where they lie, or unpacked as far as one asks, bounded.

A zip's directory is read as PyTorch's reader does: encryption bits, checksums and members' own headers decide nothing.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any, BinaryIO, NamedTuple

from brolly.card import Finding
from brolly.checkpoint.bounded import opened, shown
from brolly.errors import CheckpointError, UnsafeCheckpoint
from brolly.place import Place, Seekable, Where

MAX_MEMBERS = 100_000
MAX_DIRECTORY = 16 * 2**20  # bytes
MAX_UNPACKED = 256 * 2**20  # bytes that one reader of a packed member may get
MAX_RATIO = 200  # times that weights or texts shrink; deflate reaches 1032 on noughts
FREE = 16 * 2**20  # bytes that may be unpacked at any ratio
MAX_SECONDS = 0.8  # for unpacking a whole packed tar
MAX_KEPT = 32 * 2**20  # bytes, of small members of a packed tar
SMALL = 2**20  # bytes
STORED, DEFLATED, BZIP2 = 0, 8, 12


class Member(NamedTuple):
    """One file of an archive: `start` is where its bytes (of a zip: its header) lie, `packed` how many they are."""

    name: str
    start: int
    size: int
    packed: int
    method: int = STORED
    link: bool = False
    locked: bool = False  # says that it is encrypted


class Directory(NamedTuple):
    """What a zip's directory lists; `first` and `last` are where the archive begins and ends in the file.

    `others` are the members of a second directory, which readers find who go by its absolute place (PyTorch's does).
    """

    members: list[Member]
    others: list[Member]
    first: int
    last: int


class Part(Seekable):
    """Bytes [start, start + size) of a file; `closing` is closed with it."""

    def __init__(self, file: BinaryIO, start: int, size: int, closing: ExitStack | None = None) -> None:
        super().__init__(size)
        self.file, self.start, self.closing = file, start, closing

    def read(self, n_bytes: int | None = -1) -> bytes:
        left = max(0, self.size - self.at)
        n_bytes = left if n_bytes is None or n_bytes < 0 else min(n_bytes, left)
        if not n_bytes:
            return b""
        self.file.seek(self.start + self.at)
        raw = self.file.read(n_bytes)
        self.at += len(raw)
        return raw

    def readinto(self, buffer: Any) -> int:
        raw = self.read(len(buffer))
        buffer[: len(raw)] = raw
        return len(raw)

    def close(self) -> None:
        if self.closing is not None:
            self.closing.close()
        super().close()


class Unpacked(io.RawIOBase):
    """A packed stream read forwards; going back begins again. Raises CheckpointError, UnsafeCheckpoint."""

    def __init__(self, packed: BinaryIO, kind: str, title: str, size: int | None = None) -> None:
        self.packed, self.kind, self.title, self.size = packed, kind, title, size
        self.end = monotonic() + MAX_SECONDS
        self.damaged = False
        self._begin()

    def _begin(self) -> None:
        self.packed.seek(0)
        self.fed, self.made, self.at = 0, 0, 0
        self.rest, self.done = b"", False
        self.machine = _machine(self.kind)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 2:
            if self.size is None:
                raise CheckpointError(f"{self.title}: the length of packed data is known at its end only.")
            offset += self.size
        self.at = max(0, offset + (self.at if whence == 1 else 0))
        return self.at

    def read(self, n_bytes: int | None = -1) -> bytes:
        wanted = 2**26 if n_bytes is None or n_bytes < 0 else n_bytes
        if self.at < self.made - len(self.rest):
            self._begin_at(self.at)
        while (skipped := self.at - (self.made - len(self.rest))) > 0:
            if len(self.rest) > skipped:
                self.rest = self.rest[skipped:]
            else:
                self.rest = b""
                if not self._make():
                    return b""
        pieces, have = [self.rest], len(self.rest)
        while have < wanted and self._make():
            pieces.append(self.rest)
            have += len(self.rest)
        raw = b"".join(pieces)
        self.rest = raw[wanted:]
        self.at += min(wanted, len(raw))
        return raw[:wanted]

    def readinto(self, buffer: Any) -> int:
        raw = self.read(len(buffer))
        buffer[: len(raw)] = raw
        return len(raw)

    def _begin_at(self, at: int) -> None:
        self._begin()
        self.at = at

    def _make(self) -> bool:
        """Unpack some more into `rest`; whether there was more."""
        self.rest = b""
        while not self.rest and not self.done:
            if monotonic() > self.end:
                raise UnsafeCheckpoint(f"{self.title}: unpacking it takes too long; unpack it yourself.", "unscanned")
            try:
                if self.machine.eof:
                    unused = self.machine.unused_data.lstrip(b"\0")
                    if not unused and not (unused := self._feed()):
                        self.done = True
                        break
                    self.machine = _machine(self.kind)  # gzip, xz and bzip2 files may be several, end to end
                    raw = unused
                elif self.kind in ("bz2", "xz"):
                    raw = self._feed() if self.machine.needs_input else b""
                else:
                    raw = self.machine.unconsumed_tail or self._feed()
                self.rest = self.machine.decompress(raw, 2**18)
            except CheckpointError:
                raise
            except Exception:  # each of the three libraries has its own for damaged data
                self.done = self.damaged = True
                break
            if not raw and not self.rest and not self.machine.eof:
                self.done = True
        self.made += len(self.rest)
        if self.made > MAX_UNPACKED:
            raise UnsafeCheckpoint(f"{self.title} unpacks to more than {MAX_UNPACKED:,} bytes; unpack it yourself.")
        if self.made > FREE and self.made > MAX_RATIO * max(self.fed, 1):
            raise UnsafeCheckpoint(f"{self.title} unpacks to {MAX_RATIO} times its size, as only a bomb does.", "bomb")
        return bool(self.rest)

    def _feed(self) -> bytes:
        raw = self.packed.read(2**16)
        self.fed += len(raw)
        return raw

    def close(self) -> None:
        self.packed.close()
        super().close()


def _machine(kind: str) -> Any:
    if kind == "bz2":
        import bz2

        return bz2.BZ2Decompressor()
    if kind == "xz":
        import lzma

        return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=96 * 2**20)
    import zlib

    return zlib.decompressobj({"deflate": -15, "gz": 31, "zlib": 15}[kind])


def packing(head: bytes) -> str | None:
    """How a file is packed, by its first bytes."""
    for magic, kind in (
        (b"\x1f\x8b\x08", "gz"),
        (b"BZh", "bz2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x5d\0\0", "xz"),
        (b"\x5d\0\x80\0\0", "xz"),
    ):
        if head.startswith(magic):
            return kind
    return "zlib" if head[:2] in (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda") else None


def read_directory(file: BinaryIO, size: int, title: str) -> Directory:
    """A zip's members, as its directory at the end lists them. Raises CheckpointError, UnsafeCheckpoint."""
    tail_at = max(0, size - 22 - 2**16)
    file.seek(tail_at)
    tail = file.read(size - tail_at)
    at = fitting = tail[: max(0, len(tail) - 18)].rfind(b"PK\x05\x06")
    while fitting >= 0 and fitting + 22 + int.from_bytes(tail[fitting + 20 : fitting + 22], "little") > len(tail):
        fitting = tail.rfind(b"PK\x05\x06", 0, fitting)
    if at < 0:
        raise CheckpointError(f"{title} has no zip directory at its end; it is incomplete.")
    last = min(size, tail_at + at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little"))
    # Most readers take the last end, some the last whose comment fits; and two places may be meant where it is Zip64.
    places = _places(file, tail_at + at, size)
    places += _places(file, tail_at + fitting, size) if 0 <= fitting < at else []
    for _, length, n, _ in places:
        if length > MAX_DIRECTORY or n > MAX_MEMBERS:
            raise UnsafeCheckpoint(
                f"{title}: its zip directory has {length:,} bytes and {n:,} members; no real one does."
            )
    above, length, _, start = places[0]
    shift = above - length - start  # bytes before the archive
    if shift < 0 or start + shift < 0:
        raise CheckpointError(f"{title}: its zip directory lies outside of the file; it is damaged.")
    others = _entries(file, start, length, 0) if shift else []
    for above_too, length_too, _, start_too in places[1:]:
        shift_too = above_too - length_too - start_too
        if shift_too >= 0 and (above_too, length_too) != (above, length):
            others += _entries(file, above_too - length_too, length_too, shift_too)
    return Directory(_entries(file, above - length, length, shift), others, shift, last)


def _places(file: BinaryIO, end: int, size: int) -> list[tuple[int, int, int, int]]:
    """Of a directory that the record at `end` tells of: where it ends, its bytes, its members and where it begins."""
    file.seek(max(0, end - 20))
    raw = file.read(20 + 20)[-40:]
    n, length, start = struct.unpack("<10xHLL", raw[-20:])
    found = []
    if end >= 20 and raw[:4] == b"PK\x06\x07":  # Zip64
        where = int.from_bytes(raw[8:16], "little")
        for place in dict.fromkeys((where, end - 20 - 56)):  # the second, where something was put before the archive
            if 0 <= place <= size - 56:
                file.seek(place)
                record = file.read(56)
                if record[:4] == b"PK\x06\x06":
                    n, length, start = struct.unpack("<32xQQQ", record)
                    found.append((place, length, n, start))
    return found or [(end, length, n, start)]


def _entries(file: BinaryIO, start: int, length: int, shift: int) -> list[Member]:
    file.seek(start)
    raw, at = file.read(length), 0
    members: list[Member] = []
    while raw[at : at + 4] == b"PK\x01\x02" and len(raw) - at >= 46 and len(members) < MAX_MEMBERS:
        member, at = _listed(raw, at, shift)
        members.append(member)
    return members


def _listed(raw: bytes, at: int, shift: int) -> tuple[Member, int]:
    """One entry of a zip's directory, and where the next one begins."""
    flags, method, packed, full = struct.unpack_from("<8xHH8xLL", raw, at)
    n_name, n_extra, n_comment, attributes, start = struct.unpack_from("<28xHHH4xLL", raw, at)
    name = raw[at + 46 : at + 46 + n_name]
    extra = raw[at + 46 + n_name : at + 46 + n_name + n_extra]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            whole = min(length, len(extra) - 4) // 8
            wide = iter(struct.unpack_from(f"<{whole}Q", extra, 4))
            full = next(wide, full) if full == 2**32 - 1 else full
            packed = next(wide, packed) if packed == 2**32 - 1 else packed
            start = next(wide, start) if start == 2**32 - 1 else start
        extra = extra[4 + length :]
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = name.decode("cp437")
    link = attributes >> 16 & 0o170000 == 0o120000
    return Member(
        text, start + shift, full, packed, method, link, bool(flags & 1)
    ), at + 46 + n_name + n_extra + n_comment


def data_start(file: BinaryIO, member: Member, size: int, title: str) -> int:
    """Where the bytes of a zip's member begin: after its own header. Raises CheckpointError."""
    file.seek(min(member.start, size))
    local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise CheckpointError(f"{title}: {shown(member.name)} is not where the zip directory says; it is damaged.")
    n_name, n_extra = struct.unpack("<26xHH", local)
    start = member.start + 30 + n_name + n_extra
    if start + member.packed > size:
        raise CheckpointError(f"{title}: {shown(member.name)} ends beyond the file; it is incomplete.")
    return start


def member_file(file: BinaryIO, member: Member, size: int, title: str, closing: ExitStack | None = None) -> BinaryIO:
    """A zip's member to read; what its flags and checksum say is not asked. Raises CheckpointError."""
    part = Part(file, data_start(file, member, size, title), member.packed, closing)
    name = f"{title}/{member.name[:200]}"
    if member.method == STORED:
        return part  # type: ignore[return-value]
    if member.method not in (DEFLATED, BZIP2):
        raise CheckpointError(
            f"{name} is packed by method {member.method}; expected none, deflate or bzip2.", "opaque-archive"
        )
    return Unpacked(part, "deflate" if member.method == DEFLATED else "bz2", name, member.size)  # type: ignore


def _problem(name: str, link: bool, twice: bool) -> tuple[str, str, str] | None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or parts[0][1:2] == ":" or "\0" in name:
        return "path-escape", "danger", "its name leaves the folder that it is unpacked into; do not unpack it"
    if link:
        return "archive-link", "warning", "it is a link, which may point outside when unpacked; it was not followed"
    return ("archive-twice", "warning", "the name occurs twice, so readers may differ; repack it") if twice else None


class _Store:
    """What both kinds of archive share: the members by name, and what is wrong with them."""

    def __init__(self, path: Where) -> None:
        self.path, self.title = path, str(path)
        self.members: dict[str, Member] = {}
        self.problems: list[Finding] = []

    def _take(self, member: Member) -> None:
        name = member.name.replace("\\", "/").removeprefix("./").rstrip("/")
        trouble = _problem(member.name, member.link, name in self.members)
        if trouble and len(self.problems) < 20:
            said = f"The archive holds {shown(member.name)}: {trouble[2]}."
            self.problems.append(Finding(trouble[0], trouble[1], self.path.name, said))
        if name and not member.name.endswith("/") and (trouble is None or trouble[0] == "archive-twice"):
            self.members[name] = member

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: member.size for name, member in self.members.items()}


class ZipStore(_Store):
    """A zip's members. Raises CheckpointError."""

    def __init__(self, path: Where) -> None:
        super().__init__(path)
        with opened(path) as (file, size):
            directory = read_directory(file, size, self.title)
        for member in directory.members:
            self._take(member)
        self._sizes = super().sizes

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def open(self, name: str) -> BinaryIO:
        with ExitStack() as stack:
            file, size = stack.enter_context(opened(self.path))
            return member_file(file, self.members[name], size, self.title, stack.pop_all())
        raise AssertionError(name)


class TarStore(_Store):
    """A tar's members; of a packed one only as much is unpacked as MAX_SECONDS and MAX_UNPACKED allow."""

    def __init__(self, path: Where) -> None:
        super().__init__(path)
        self.kept: dict[str, bytes] = {}
        held = 0
        with self._stream() as (file, size):
            try:
                for member in tar_members(file, size, self.title):
                    self._take(member)
                    if self.kind and member.size <= SMALL and held + member.size <= MAX_KEPT and not member.link:
                        file.seek(member.start)
                        self.kept[member.name.removeprefix("./")] = file.read(member.size)
                        held += member.size
            except CheckpointError as error:
                if not self.kind or not self.members:
                    raise
                self.problems.append(Finding("unscanned", "warning", path.name, str(error)))
        self._sizes = super().sizes

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    @contextmanager
    def _stream(self) -> Iterator[tuple[BinaryIO, int]]:
        with opened(self.path) as (file, size):
            self.kind = packing(file.read(8))
            if self.kind:
                unpacked = Unpacked(Part(file, 0, size), self.kind, self.title)  # type: ignore[arg-type]
                unpacked.end = monotonic() + MAX_SECONDS
                yield unpacked, MAX_UNPACKED  # type: ignore[misc]
            else:
                yield file, size

    def open(self, name: str) -> BinaryIO:
        if name in self.kept:
            return io.BytesIO(self.kept[name])
        member = self.members[name]
        with ExitStack() as stack:
            file, _ = stack.enter_context(self._stream())
            return Part(file, member.start, member.size, stack.pop_all())  # type: ignore[return-value]
        raise AssertionError(name)


def is_tar(head: bytes) -> bool:
    """Whether 512 bytes are a tar's first header: its checksum says so."""
    if len(head) < 512 or not head[0]:
        return False
    claimed = _octal(head[148:156])
    if claimed == (unsigned := sum(head[:512]) - sum(head[148:156]) + 8 * 32):
        return True
    return claimed == unsigned - 256 * sum(b > 127 for b in head[:148] + head[156:512])  # as old ones counted


def _octal(field: bytes) -> int:
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return -1


def tar_members(file: BinaryIO, size: int, title: str) -> Iterator[Member]:
    """Files and links of a tar (POSIX, pax, GNU), by its headers only. Raises CheckpointError."""
    at, given, long = 0, "", 0
    for _ in range(MAX_MEMBERS):
        file.seek(at)
        head = file.read(512)
        if len(head) < 512 or not head.strip(b"\0"):
            if not at:
                raise CheckpointError(f"{title} is no tar archive.")
            return
        n_bytes = long or _octal(head[124:136])
        long = 0
        if not is_tar(head) or n_bytes < 0:
            raise CheckpointError(f"{title}: a tar header at {at:,} is damaged; download it again.")
        kind, start = head[156:157], at + 512
        at = start + -(-n_bytes // 512) * 512
        if at - 511 > size and n_bytes:
            raise CheckpointError(f"{title} ends within one of its members; it is incomplete.")
        if kind in (b"x", b"g", b"L", b"K"):  # about the next one: pax records, or GNU's long name, long link
            if n_bytes > 2**20:
                raise UnsafeCheckpoint(f"{title}: a tar header of {n_bytes:,} bytes is none of a real file's.")
            raw = file.read(n_bytes)
            if kind == b"x":
                given = _pax(raw, b"path") or given
                long = int(length) if (length := _pax(raw, b"size")[:18]).isdecimal() else 0
            elif kind == b"L":
                given = raw.rstrip(b"\0").decode("utf-8", "replace")
            continue
        name = given or head[:100].split(b"\0")[0].decode("utf-8", "replace")
        prefix = head[345:500].split(b"\0")[0].decode("utf-8", "replace") if head[257:263] == b"ustar\0" else ""
        if prefix and not given:
            name = f"{prefix}/{name}"
        given = ""
        if kind not in (b"3", b"4", b"5", b"6"):  # devices, folders, pipes; unknown kinds are files, to Python too
            yield Member(name, start, n_bytes, n_bytes, link=kind in b"12")
    raise UnsafeCheckpoint(f"{title} holds more than {MAX_MEMBERS:,} files; no real one does.")


def _pax(raw: bytes, key: bytes) -> str:
    """The value of one pax record ("12 path=abc\\n")."""
    while raw:
        length, _, rest = raw.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(raw):
            return ""
        name, _, value = rest[: int(length) - len(length) - 1].rstrip(b"\n").partition(b"=")
        if name == key:
            return value.decode("utf-8", "replace")
        raw = raw[int(length) :]
    return ""


def open_archive(path: Where) -> Place:
    """The folder that a zip or tar holds; where all of it lies in one folder, that folder. Raises CheckpointError."""
    with opened(path) as (file, size):
        head = file.read(512)
    store: ZipStore | TarStore
    if head[:2] == b"PK":
        store = ZipStore(path)
    elif is_tar(head) or packing(head):
        store = TarStore(path)
    else:
        raise CheckpointError(f"{path} is neither a zip nor a tar archive.")
    tops = {name.partition("/")[0] for name in store.sizes}
    alone = len(tops) == 1 and all("/" in name for name in store.sizes)
    return Place(store, tops.pop() if alone else "")
