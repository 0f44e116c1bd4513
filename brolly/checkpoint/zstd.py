"""Zstandard, decompressed: for the small indexes that are kept in it. Slow (some megabytes a second), and bounded.

Source: RFC 8878.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_BLOCK = 2**17  # bytes
MAX_WORK = 3_000_000  # bytes coded by Huffman, and eight for each sequence: about a second
# the distributions that are used where a block brings none of its own (section 3.1.1.3.2.2)
LITERALS = [4, 3] + [2] * 11 + [1] * 3 + [2] * 9 + [3, 2] + [1] * 5 + [-1] * 4
MATCHES = [1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7
OFFSETS = [1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5
DEFAULTS = ((LITERALS, 6), (OFFSETS, 5), (MATCHES, 6))
MOST_LOG, MOST_CODE = (9, 8, 9), (35, 31, 52)
# code → what it stands for, and how many bits to add (section 3.1.1.3.2.1.1)
LITERAL_BITS = [0] * 16 + [1] * 4 + [2, 2, 3, 3, 4] + list(range(6, 17))
MATCH_BITS = [0] * 32 + [1] * 4 + [2, 2, 3, 3, 4, 4, 5] + list(range(7, 17))


class Fse(NamedTuple):
    """A table of finite-state entropy: for each state its symbol, the bits to read, and what to add them to."""

    symbols: list[int]
    bits: list[int]
    bases: list[int]
    log: int


class Bits:
    """A stream that is read from its end; the highest bit set of its last byte marks the beginning."""

    def __init__(self, raw: bytes) -> None:
        if not raw or not raw[-1]:
            raise ValueError
        self.raw, self.left = raw, len(raw) * 8 - 9 + raw[-1].bit_length()

    def take(self, n: int) -> int:
        """The next `n` bits; noughts beyond the beginning, where `left` is then negative."""
        self.left -= n
        if self.left >= 0:
            begin = self.left >> 3
            word = int.from_bytes(self.raw[begin : begin + 8], "little")
            return word >> (self.left & 7) & (1 << n) - 1
        known = n + self.left
        return (int.from_bytes(self.raw[:8], "little") & (1 << known) - 1) << -self.left if known > 0 else 0


class _State(NamedTuple):
    """What a block leaves to the next one of its frame."""

    huffman: list[tuple[list[tuple[int, int]], int] | None]
    tables: list[Fse | None]
    repeats: list[int]
    work: list[int]

    def spend(self, n: int) -> None:
        self.work[0] -= n
        if self.work[0] < 0:
            raise ValueError


def unzstd(raw: bytes, most: int, work: list[int] | None = None) -> bytes:
    """One frame, decompressed. Raises ValueError or IndexError where it is damaged or longer than `most` bytes.

    `work` is what may still be spent, of MAX_WORK, where several frames share it.
    """
    if raw[:4] != MAGIC:
        raise ValueError
    flags = raw[4]
    single = flags >> 5 & 1
    i = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    i += (single, 2, 4, 8)[flags >> 6]
    found, state, last = bytearray(), _State([None], [None, None, None], [1, 4, 8], work or [MAX_WORK]), 0
    while not last:
        if i + 3 > len(raw):
            raise ValueError
        head = int.from_bytes(raw[i : i + 3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        i += 3
        taken = 1 if kind == 1 else size
        if size > MAX_BLOCK or len(found) + (size if kind < 2 else 0) > most or i + taken > len(raw):
            raise ValueError
        if kind == 0:
            found += raw[i : i + size]
        elif kind == 1:
            found += raw[i : i + 1] * size
        elif kind == 2:
            _block(raw[i : i + size], found, state, min(most, len(found) + MAX_BLOCK))
        else:
            raise ValueError
        i += taken
    return bytes(found)


def _block(raw: bytes, found: bytearray, state: _State, most: int) -> None:
    literals, i = _literals(raw, state)
    count = raw[i]
    i += 1
    if count == 255:
        count = raw[i] + (raw[i + 1] << 8) + 0x7F00
        i += 2
    elif count > 127:
        count = (count - 128 << 8) + raw[i]
        i += 1
    if not count:
        found += literals
    else:
        state.spend(8 * count)
        modes = raw[i]
        i += 1
        for part in range(3):
            i = _table(raw, i, modes >> 6 - 2 * part & 3, part, state)
        _sequences(Bits(raw[i:]), count, literals, found, state, most)
    if len(found) > most:
        raise ValueError


def _literals(raw: bytes, state: _State) -> tuple[bytes, int]:
    """The bytes that the sequences draw on, and where their section ends."""
    kind, form = raw[0] & 3, raw[0] >> 2 & 3
    if kind < 2:
        width = (1, 2, 1, 3)[form]
        size = int.from_bytes(raw[:width], "little") >> (3 if width == 1 else 4)
        if size > MAX_BLOCK:
            raise ValueError
        if kind == 1:
            return raw[width : width + 1] * size, width + 1
        return raw[width : width + size], width + size
    width, n_bits = ((3, 10), (3, 10), (4, 14), (5, 18))[form]
    head = int.from_bytes(raw[:width], "little") >> 4
    size, packed = head & (1 << n_bits) - 1, head >> n_bits
    if size > MAX_BLOCK or width + packed > len(raw):
        raise ValueError
    body = raw[width : width + packed]
    if kind == 2:
        state.huffman[0], used = _huffman(body)
        body = body[used:]
    if state.huffman[0] is None:
        raise ValueError
    state.spend(size + 64)
    table, log = state.huffman[0]
    if form == 0:
        return _decode(body, size, table, log), width + packed
    ends = [int.from_bytes(body[n : n + 2], "little") for n in (0, 2, 4)]
    quarter, at, pieces = (size + 3) // 4, 6, []
    for n, length in enumerate([*ends, len(body) - 6 - sum(ends)]):
        if length <= 0 or at + length > len(body):
            raise ValueError
        pieces.append(_decode(body[at : at + length], quarter if n < 3 else size - 3 * quarter, table, log))
        at += length
    return b"".join(pieces), width + packed


def _decode(raw: bytes, size: int, table: list[tuple[int, int]], log: int) -> bytes:
    """A stream of Huffman codes."""
    stream, found, mask = Bits(raw), bytearray(), (1 << log) - 1
    left = stream.left
    for _ in range(size):
        at = left - log
        if at >= 0:
            begin = at >> 3
            code = int.from_bytes(raw[begin : begin + 3], "little") >> (at & 7) & mask
        else:
            code = int.from_bytes(raw[:3], "little") << -at & mask if left > 0 else 0
        symbol, used = table[code]
        found.append(symbol)
        left -= used
    if left != 0:
        raise ValueError
    return bytes(found)


def _huffman(raw: bytes) -> tuple[tuple[list[tuple[int, int]], int], int]:
    """The table (code → symbol, bits) and the longest code's bits; and how many bytes described it."""
    head = raw[0]
    weights: list[int] = []
    if head > 127:
        n = head - 127
        used = 1 + (n + 1) // 2
        for byte in raw[1:used]:
            weights += [byte >> 4, byte & 15]
        weights = weights[:n]
    else:
        used = 1 + head
        if used > len(raw):
            raise ValueError
        fse, begin = _distribution(raw[:used], 1, 6, 255)
        stream = Bits(raw[begin:used])
        states = [stream.take(fse.log), stream.take(fse.log)]
        while True:
            for n in (0, 1):
                weights.append(fse.symbols[states[n]])
                states[n] = fse.bases[states[n]] + stream.take(fse.bits[states[n]])
                if stream.left < 0:
                    weights.append(fse.symbols[states[1 - n]])
                    break
            if stream.left < 0 or len(weights) > 255:
                break
    total = sum(1 << w - 1 for w in weights if w)
    log = total.bit_length()
    rest = (1 << log) - total
    if not total or log > 11 or len(weights) > 255 or rest & rest - 1 or max(weights) > log:
        raise ValueError
    weights.append(rest.bit_length())
    table: list[tuple[int, int]] = []
    for weight in range(1, log + 1):
        for symbol, w in enumerate(weights):
            if w == weight:
                table += [(symbol, log + 1 - weight)] * (1 << weight - 1)
    if len(table) != 1 << log:
        raise ValueError
    return (table, log), used


def _table(raw: bytes, i: int, mode: int, part: int, state: _State) -> int:
    """Set one of the three tables of a block, by its mode; where its description ends."""
    if mode == 0:
        state.tables[part] = _default(part)
    elif mode == 1:
        if raw[i] > MOST_CODE[part]:
            raise ValueError
        state.tables[part] = Fse([raw[i]], [0], [0], 0)
        i += 1
    elif mode == 2:
        state.tables[part], i = _distribution(raw, i, MOST_LOG[part], MOST_CODE[part])
    return i


@cache
def _default(part: int) -> Fse:
    return _fse(*DEFAULTS[part])


def _distribution(raw: bytes, i: int, most_log: int, most_symbol: int) -> tuple[Fse, int]:
    """A table from its description at `i` (section 4.1.1), and where that ends."""
    word = int.from_bytes(raw[i : i + 512], "little")
    end = (len(raw) - i) * 8
    log, at = (word & 15) + 5, 4
    if log > most_log:
        raise ValueError
    counts: list[int] = []
    left = (1 << log) + 1
    while left > 1:
        bits = left.bit_length()
        value = word >> at & (1 << bits) - 1
        low = value & (1 << bits - 1) - 1
        spare = (1 << bits) - 1 - left
        if low < spare:
            value, bits = low, bits - 1
        elif value >= 1 << bits - 1:
            value -= spare
        at += bits
        counts.append(value - 1)
        left -= abs(value - 1)
        if value == 1:
            while True:
                run = word >> at & 3
                at += 2
                counts += [0] * run
                if run < 3 or at > end:
                    break
        if at > end or len(counts) > most_symbol + 1:
            raise ValueError
    if left != 1:
        raise ValueError
    return _fse(counts, log), i + (at + 7) // 8


def _fse(counts: list[int], log: int) -> Fse:
    size = 1 << log
    symbols, high = [0] * size, size - 1
    for symbol, n in enumerate(counts):
        if n == -1:
            symbols[high] = symbol
            high -= 1
    at, step = 0, (size >> 1) + (size >> 3) + 3
    for symbol, n in enumerate(counts):
        for _ in range(n):
            symbols[at] = symbol
            at = at + step & size - 1
            while at > high:
                at = at + step & size - 1
    after = [1 if n == -1 else n for n in counts]
    bits, bases = [], []
    for symbol in symbols:
        n = after[symbol]
        after[symbol] += 1
        bits.append(log - n.bit_length() + 1)
        bases.append((n << bits[-1]) - size)
    return Fse(symbols, bits, bases, log)


def _bases(bits: list[int], first: int) -> list[int]:
    found, value = [], first
    for n in bits:
        found.append(value)
        value += 1 << n
    return found


LITERAL_BASES, MATCH_BASES = _bases(LITERAL_BITS, 0), _bases(MATCH_BITS, 3)


def _sequences(stream: Bits, count: int, literals: bytes, found: bytearray, state: _State, most: int) -> None:
    """Copy literals, and what was written before, as the sequences say."""
    fse = [table for table in state.tables if table is not None]
    if len(fse) != 3:
        raise ValueError
    ll, of, ml = fse
    a, b, c = stream.take(ll.log), stream.take(of.log), stream.take(ml.log)
    repeats, at = state.repeats, 0
    for n in range(count):
        code, length, match = of.symbols[b], ll.symbols[a], ml.symbols[c]
        if code > 31:
            raise ValueError
        value = (1 << code) + stream.take(code)
        n_match = MATCH_BASES[match] + stream.take(MATCH_BITS[match])
        n_literals = LITERAL_BASES[length] + stream.take(LITERAL_BITS[length])
        if n + 1 < count:
            a = ll.bases[a] + stream.take(ll.bits[a])
            c = ml.bases[c] + stream.take(ml.bits[c])
            b = of.bases[b] + stream.take(of.bits[b])
        if stream.left < 0 or at + n_literals > len(literals):
            raise ValueError
        found += literals[at : at + n_literals]
        at += n_literals
        back = _offset(value, n_literals, repeats)
        begin = len(found) - back
        if begin < 0 or back <= 0 or len(found) + n_match > most:
            raise ValueError
        if back >= n_match:
            found += found[begin : begin + n_match]
        else:
            found += (found[begin:] * (n_match // back + 1))[:n_match]
    if stream.left != 0:
        raise ValueError
    found += literals[at:]


def _offset(value: int, n_literals: int, repeats: list[int]) -> int:
    """How far back to copy from; the last three distances have short names, which shift after no literals."""
    if value > 3:
        back = value - 3
        repeats[:] = [back, repeats[0], repeats[1]]
        return back
    index = value - 1 + (n_literals == 0)
    back = repeats[0] - 1 if index == 3 else repeats[index]
    if index:
        repeats[:] = [back, repeats[0], repeats[2] if index == 1 else repeats[1]]
    return back
