"""HDF5's lower floors: bytes by address, objects' headers, datatypes, links, and the heaps and trees that hold them.

After the HDF Group's "HDF5 File Format Specification 3.0"; every length is held against the file and a budget.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from brolly.card import BITS
from brolly.checkpoint.bounded import MAX_DEPTH, shape_of
from brolly.errors import CheckpointError
from brolly.place import Place, Where

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_READ = 64 * 2**20  # bytes of headers and attributes, with EACH for what it takes to look at one
EACH = 256
MAX_OBJECTS = 200_000  # groups and datasets
MAX_MESSAGES = 20_000  # of one object
MAX_NAME = 4096  # bytes, with the groups that it lies in
PAGE = 4096  # bytes read at a time; FAR where each reading is a request
FAR = 2**16
SPACE, LINK_INFO, TYPE, LINK, EXTERNAL, LAYOUT, ATTRIBUTE = 1, 2, 3, 6, 7, 8, 12
CONTINUED, TABLE, ATTRIBUTE_INFO = 16, 17, 21
INTEGER, FLOAT, STRING, COMPOUND, ENUM, VARIABLE = 0, 1, 3, 6, 8, 9


class Type(NamedTuple):
    """A datatype: HDF5's class, bytes an element, our word (or none), its byte order, and what it is made of."""

    kind: int
    size: int
    word: str
    big: bool
    signed: bool
    text: bool  # of a variable-length type: a text


class Message(NamedTuple):
    kind: int
    shared: bool
    raw: bytes


class Raw:
    """Bytes and where we are in them."""

    def __init__(self, raw: bytes, at: int = 0) -> None:
        self.raw, self.at = raw, at

    def take(self, n: int) -> bytes:
        found = self.raw[self.at : self.at + n]
        if len(found) != n:
            raise IndexError(n)
        self.at += n
        return found

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")


class File:
    """Bytes by address, read in pages and never more than MAX_READ of them."""

    def __init__(self, file: BinaryIO, size: int, path: Where) -> None:
        self.file, self.size, self.path, self.left = file, size, path, MAX_READ
        self.page = FAR if isinstance(path, Place) else PAGE
        self.pages: dict[int, bytes] = {}
        self.fractal: dict[int, tuple[int, ...]] = {}
        self.base = next((at for at in (0, 512, 1024, 2048, 4096, 8192) if self._starts(at)), -1)
        if self.base < 0:
            raise CheckpointError(f"{path} does not begin as an HDF5 file does; download it again.")
        start = self.base
        version = self.at(8, 1)[0]
        if version > 3:
            raise CheckpointError(f"{path} is HDF5 with a superblock of version {version}; expected 0 to 3.")
        head = self.at(0, 64)
        self.wide, self.long = (head[13], head[14]) if version < 2 else (head[9], head[10])  # of addresses, of lengths
        if self.wide not in (4, 8) or self.long not in (4, 8):
            raise CheckpointError(f"{path} has HDF5 addresses of {self.wide} bytes; expected 4 or 8.")
        raw = Raw(self.at(0, min(size - start, 128)), {0: 24, 1: 28}.get(version, 12))
        base, _, end = (raw.number(self.wide) for _ in range(3))
        raw.take(self.wide if version < 2 else 0)  # the driver's block
        if version < 2:
            raw.take(self.wide)  # the root's name
        self.root = raw.number(self.wide)
        if base != start and base != 0:
            raise CheckpointError(f"{path}: the HDF5 base address is {base:,}, and the file begins at {start:,}.")
        self.base = base
        if size < end != self.nowhere:
            raise CheckpointError(f"{path} has {size:,} bytes, and HDF5 says {end:,}: incomplete.")

    @property
    def nowhere(self) -> int:
        return 2 ** (8 * self.wide) - 1

    def _starts(self, at: int) -> bool:
        if at + 48 > self.size:
            return False
        self.file.seek(at)
        return self.file.read(8) == SIGNATURE

    def spend(self, n_bytes: int, times: int = 1) -> None:
        self.left -= n_bytes + EACH * times
        if self.left < 0:
            raise CheckpointError(f"{self.path}: its headers take over {MAX_READ:,} bytes; no real file's do.")

    def at(self, address: int, n: int) -> bytes:
        """`n` bytes at an address."""
        start, end = self.base + address, self.base + address + n
        if end > self.size:
            raise CheckpointError(
                f"{self.path}: an HDF5 address of {start:,} lies outside of its {self.size:,} bytes; download it again."
            )
        self.spend(n)
        if n > self.page:
            self.file.seek(start)
            return self.file.read(n)
        found = b""
        for number in range(start // self.page, -(-end // self.page)):
            if number not in self.pages:
                if len(self.pages) * self.page > MAX_READ // 2:
                    self.pages.clear()
                self.file.seek(number * self.page)
                self.pages[number] = self.file.read(self.page)
            found += self.pages[number]
        skipped = start % self.page
        found = found[skipped : skipped + n]
        if len(found) < n:
            raise IndexError(n)
        return found

    def raw(self, address: int, n: int, magic: bytes = b"") -> Raw:
        """The same, behind its signature."""
        found = Raw(self.at(address, n))
        if magic and found.take(len(magic)) != magic:
            raise CheckpointError(f"{self.path}: expected {magic.decode()} at {address:,}; the file is damaged.")
        return found

    def messages(self, address: int) -> list[Message]:
        """All messages of an object's header."""
        head = self.at(address, min(16, self.size - self.base - address))
        old = head[:4] != b"OHDR"
        tracked = False
        if old:
            if head[0] != 1:
                raise CheckpointError(f"{self.path}: no HDF5 object lies at {address:,}; the file is damaged.")
            blocks = [(address + 16, int.from_bytes(head[8:12], "little"))]
        else:
            flags, at = head[5], 6
            at += 16 if flags & 32 else 0
            at += 4 if flags & 16 else 0
            width = 1 << (flags & 3)
            blocks = [(address + at + width, int.from_bytes(self.at(address + at, width), "little"))]
            tracked = bool(flags & 4)
        found: list[Message] = []
        count = 0
        for start, length in blocks:  # which grows
            raw, at = self.at(start, length), 0
            header = struct.Struct("<HHB3x" if old else "<BHB2x" if tracked else "<BHB")
            while at + header.size <= length:
                kind, n, flags = header.unpack_from(raw, at)
                at, count = at + header.size + n, count + 1
                body = raw[at - n : at]
                if at > length:
                    raise IndexError(n)
                if kind == CONTINUED:
                    inner = Raw(body)
                    begin, n = inner.number(self.wide), inner.number(self.long)
                    if len(blocks) > 1000 or any(begin == b for b, _ in blocks):
                        raise CheckpointError(f"{self.path}: the header at {address:,} goes round in a circle.")
                    if not old:
                        self.raw(begin, 4, b"OCHK")
                        begin, n = begin + 4, n - 8
                    blocks.append((begin, max(n, 0)))
                elif kind:
                    found.append(Message(kind, bool(flags & 2), body))
                if count > MAX_MESSAGES:
                    raise CheckpointError(f"{self.path}: an object of {MAX_MESSAGES:,} messages; no real file has one.")
        return found

    def type_of(self, message: Message) -> Type:
        """A datatype, whether it stands here or is shared."""
        if not message.shared:
            return self.parsed(Raw(message.raw))
        raw = Raw(message.raw)
        version, kind = raw.number(1), raw.number(1)
        raw.take(6 if version == 1 else 0)
        if version == 3 and kind != 2:
            raise CheckpointError(f"{self.path} keeps datatypes in a shared table, which is not read here.")
        for other in self.messages(raw.number(self.wide)):
            if other.kind == TYPE and not other.shared:
                return self.parsed(Raw(other.raw))
        raise CheckpointError(f"{self.path}: a shared datatype is not where it should be; the file is damaged.")

    def parsed(self, raw: Raw, depth: int = 0) -> Type:
        first, bits, size = raw.number(1), raw.number(3), raw.number(4)
        kind, version = first & 15, first >> 4
        big, signed, word = bool(bits & 1), bool(bits & 8), ""
        if depth > 8 or not 0 < version < 6:
            raise CheckpointError(f"{self.path}: an HDF5 datatype of version {version} is not known.")
        if kind == INTEGER:
            raw.take(4)
            word = ("I" if signed else "U") + str(8 * size)
        elif kind == FLOAT:
            raw.take(5)
            exponent, _, mantissa, _ = (raw.number(n) for n in (1, 1, 1, 4))
            word = {
                (4, 8, 23): "F32", (8, 11, 52): "F64", (2, 5, 10): "F16", (2, 8, 7): "BF16", (1, 4, 3): "F8_E4M3",
                (1, 5, 2): "F8_E5M2",
            }.get((size, exponent, mantissa), "")  # fmt: skip
        elif kind == ENUM:
            base = self.parsed(raw, depth + 1)
            word = "BOOL" if base.size == 1 and bits & 0xFFFF == 2 and b"TRUE" in raw.raw[raw.at :] else base.word
        elif kind == COMPOUND and bits & 0xFFFF == 2 and size in (8, 16):
            word = self._complex(raw, size, version, depth)
        return Type(kind, size, word if word in BITS else "", big, signed, kind == VARIABLE and bits & 15 == 1)

    def _complex(self, raw: Raw, size: int, version: int, depth: int) -> str:
        """Two numbers called r and i, as h5py writes complex ones."""
        begin = raw.at
        end = raw.raw.find(b"\0", begin)
        if raw.raw[begin : begin + 2] != b"r\0" or end < 0:
            return ""
        raw.at = begin + 8 if version < 3 else begin + 2
        raw.take(4 if version < 3 else 1)
        raw.take(28 if version == 1 else 0)
        part = self.parsed(raw, depth + 1)
        return {("F32", 8): "C64", ("F64", 16): "C128"}.get((part.word, size), "")

    def shape(self, raw: Raw, where: str) -> tuple[int, ...] | None:
        """A dataspace; None where it holds nothing."""
        version, rank, flags = raw.number(1), raw.number(1), raw.number(1)
        if version not in (1, 2) or rank > 32:
            raise CheckpointError(f"{where} has an HDF5 dataspace of version {version} and {rank} dimensions.")
        null = raw.take(5 if version == 1 else 1)[0] == 2 and version == 2
        dims = [raw.number(self.long) for _ in range(rank)]
        raw.take(rank * self.long if flags & 1 else 0)
        return None if null else shape_of(dims, where)

    def children(self, messages: list[Message]) -> Iterator[tuple[str, int, str]]:
        """The links of a group: name, the object's address or -1, and where else it points ("soft", "external")."""
        for message in messages:
            if message.kind == TABLE:
                raw = Raw(message.raw)
                tree, heap = raw.number(self.wide), raw.number(self.wide)
                yield from self._table(tree, heap)
            elif message.kind == LINK:
                yield self._link(Raw(message.raw))
            elif message.kind == LINK_INFO:
                raw = Raw(message.raw)
                flags = raw.take(2)[1]
                raw.take(8 if flags & 1 else 0)
                heap, index = raw.number(self.wide), raw.number(self.wide)
                if heap != self.nowhere:
                    for record in self.records(index):
                        yield self._link(Raw(self.held(heap, record[4:])))

    def _table(self, tree: int, heap: int) -> Iterator[tuple[str, int, str]]:
        raw = self.raw(heap, 8 + 2 * self.long + self.wide, b"HEAP")
        raw.take(4)
        length = raw.number(self.long)
        raw.take(self.long)
        names = self.at(raw.number(self.wide), length)
        nodes = [tree]
        seen: set[int] = set()
        while nodes:
            node = nodes.pop()
            if node in seen or len(seen) > MAX_OBJECTS:
                raise CheckpointError(f"{self.path}: a group's tree goes round in a circle; the file is damaged.")
            seen.add(node)
            if self.at(node, 4) == b"SNOD":
                raw = self.raw(node, 8, b"SNOD")
                count = raw.take(4)[2:]
                entry = struct.Struct("<QQI20x" if self.wide == 8 else "<III20x")
                entries = self.at(node + 8, int.from_bytes(count, "little") * entry.size)
                for at, address, cached in entry.iter_unpack(entries):
                    end = names.find(b"\0", at, at + MAX_NAME)
                    if at >= length or end < 0:
                        raise CheckpointError(f"{self.path}: a group's name lies outside of its heap.")
                    name = names[at:end].decode("utf-8", "replace")
                    yield (name, -1, "soft") if cached == 2 else (name, address, "")
            else:
                raw = self.raw(node, 8 + 2 * self.wide, b"TREE")
                kind, _, used = raw.number(1), raw.number(1), raw.number(2)
                raw = self.raw(node + 8 + 2 * self.wide, used * (self.long + self.wide))
                if kind:
                    raise CheckpointError(f"{self.path}: a group's tree holds chunks; the file is damaged.")
                pairs = [(raw.number(self.long), raw.number(self.wide)) for _ in range(used)]
                nodes += [address for _, address in reversed(pairs)]

    def _link(self, raw: Raw) -> tuple[str, int, str]:
        version, flags = raw.number(1), raw.number(1)
        kind = raw.number(1) if flags & 8 else 0
        raw.take(8 if flags & 4 else 0)
        raw.take(1 if flags & 16 else 0)
        name = raw.take(raw.number(1 << (flags & 3))).decode("utf-8", "replace")
        if version != 1:
            raise CheckpointError(f"{self.path}: a link of version {version} is not known.")
        if kind == 0:
            return name, raw.number(self.wide), ""
        return name, -1, "soft" if kind == 1 else "external"

    def records(self, address: int) -> Iterator[bytes]:
        """The records of a B-tree of version 2, in order."""
        raw = self.raw(address, 4 + 12 + self.wide + 2, b"BTHD")
        raw.take(2)
        node, each, depth = raw.number(4), raw.number(2), raw.number(2)
        raw.take(2)
        root, count = raw.number(self.wide), raw.number(2)
        if root == self.nowhere or not count:
            return
        if depth > 8 or not 0 < each < node or node > 2**20:
            raise CheckpointError(
                f"{self.path}: a B-tree of depth {depth} and nodes of {node:,} bytes; no real one is."
            )
        most = (node - 10) // each  # of a leaf
        counted, total, below = width_of(most), [0], most  # widths of the numbers beside a child's address
        for _ in range(depth):
            pointer = self.wide + counted + total[-1]
            here = (node - 10 - pointer) // (each + pointer)
            below = (here + 1) * below + here
            total.append(width_of(below))
        yield from self._node(root, count, depth, each, counted, total)

    def _node(self, address: int, count: int, depth: int, each: int, counted: int, total: list[int]) -> Iterator[bytes]:
        pointer = (self.wide + counted + total[depth - 1]) if depth else 0
        raw = self.raw(address, 6 + count * each + (count + 1) * pointer, b"BTIN" if depth else b"BTLF")
        raw.take(2)
        self.spend(0, count)
        records = [raw.take(each) for _ in range(count)]
        if not depth:
            yield from records
            return
        for i in range(count + 1):
            child, n = raw.number(self.wide), raw.number(counted)
            raw.take(total[depth - 1])
            yield from self._node(child, n, depth - 1, each, counted, total)
            yield from records[i : i + 1]

    def held(self, heap: int, key: bytes) -> bytes:
        """An object in a fractal heap, by its id."""
        if heap not in self.fractal:
            self.fractal[heap] = self._heap(heap)
        bits, width, first, largest, most, huge, root, rows = self.fractal[heap]
        if key[0] >> 6:
            raise CheckpointError(f"{self.path}: an object is kept in a heap in a way that is not known.")
        kind, inner = key[0] >> 4 & 3, Raw(key, 1)
        if kind == 2:
            n = (key[0] & 15) + 1
            return inner.take(n)
        if kind == 1:
            wanted = int.from_bytes(key[1 : 1 + self.long], "little")
            for record in self.records(huge):
                found = Raw(record)
                address, n = found.number(self.wide), found.number(self.long)
                if found.number(self.long) == wanted:
                    return self.at(address, n)
            raise CheckpointError(f"{self.path}: an object is not in its heap; the file is damaged.")
        offset = inner.number(-(-bits // 8))
        length = inner.number(min(width_of(largest), width_of(most)))
        return self.at(self._block(root, rows, offset, width, first, largest, -(-bits // 8)), length)

    def _heap(self, address: int) -> tuple[int, ...]:
        raw = self.raw(address, 26 + 12 * self.long + 3 * self.wide, b"FRHP")
        raw.take(3)
        filtered, _, most = raw.number(2), raw.number(1), raw.number(4)
        raw.take(self.long)
        huge = raw.number(self.wide)
        raw.take(self.long + self.wide + 8 * self.long)
        width, first, largest, bits = raw.number(2), raw.number(self.long), raw.number(self.long), raw.number(2)
        raw.take(2)
        root, rows = raw.number(self.wide), raw.number(2)
        if filtered or not first or not width or bits > 64:
            raise CheckpointError(f"{self.path}: a group is kept in a heap of a kind that is not read here.")
        return bits, width, first, largest, most, huge, root, rows

    def _block(self, block: int, rows: int, offset: int, width: int, first: int, largest: int, wide: int) -> int:
        """The address of a heap's offset, through indirect blocks (`rows` of them, or none) to the direct one."""
        for _ in range(MAX_DEPTH):
            if not rows:
                return block + offset
            self.raw(block, 4, b"FHIB")
            at, slot = 0, 0
            for row in range(rows):
                size = first << max(0, row - 1)
                if offset < at + width * size:
                    slot += (offset - at) // size
                    offset = (offset - at) % size
                    break
                at, slot = at + width * size, slot + width
            else:
                break
            block = self.raw(block + 5 + self.wide + wide + slot * self.wide, self.wide).number(self.wide)
            rows = 0 if size <= largest else max(1, (size // (first * width)).bit_length())
        raise CheckpointError(f"{self.path}: an object lies outside of its heap; the file is damaged.")


def width_of(limit: int) -> int:
    """Bytes for numbers up to `limit`."""
    return (max(limit, 1).bit_length() - 1) // 8 + 1
