"""What a pickle would import: its opcodes walked with names instead of objects, nothing called.

Where Python's own reader would stop with an error this one goes on as long as it can tell where the next opcode
begins, so that whatever Python would have executed before its error has been seen here too.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from time import monotonic
from typing import Any, BinaryIO

from brolly.checkpoint.pickle_values import (
    ARRAY,
    ENCODER,
    LOADER,
    MAKERS,
    SPELT,
    Call,
    Name,
    Stretch,
    is_huge,
    is_latin,
    item_size,
)  # fmt: skip

WINDOW = 2**18  # bytes read at once
AHEAD = 2**16  # of them, kept before the next opcode
LONGEST = 1024  # bytes of a text that is kept; no module has a longer name
MAX_KEPT = 48 * 2**20  # bytes of the texts that are kept
MAX_STEPS = 1_000_000  # opcodes of one file
MAX_SECONDS = 0.8  # for one file
MAX_SPELT = 16 * 2**20  # bytes that a text may spell
MAX_LEVELS = 3  # of pickles within the bytes of pickles
MAX_LINES = 2**28  # bytes of lines that are longer than the window, all together
MAX_NAMES = 10_000  # different globals of one file
MAX_PICKLES = 10_000  # one after the other in a file

# What follows each opcode: nothing, a whole number of so many bytes, so many bytes of length and then the bytes, lines.
PLAIN, NUMBER, SIZED, LINE, LINES = range(5)
FORMS = {
    PLAIN: {0: b"(.012NQRabdet}ls])uo\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"},
    NUMBER: {1: b"Khq\x80\x82", 2: b"M\x83", 4: b"Jjr\x84", 8: b"G\x95"},
    SIZED: {1: b"UC\x8c\x8a", 4: b"TXB\x8b", 8: b"\x8d\x8e\x96"},
    LINE: {0: b"FILPSVgp"},
    LINES: {0: b"ci"},
}
KINDS = {code: (form, n) for form, rows in FORMS.items() for n, codes in rows.items() for code in codes}
TEXTS = frozenset(b"X\x8c\x8dTU")
PUSHES = frozenset(b"X\x8c\x8dTUVSIJKLMGFN\x88\x89\x8a\x8b]\x8f\x97")


class Broken(Exception):
    """The stream of opcodes ends, or no opcode follows."""


class Spent(Exception):
    """More opcodes, or more time, than one file may take."""


class Tape:
    """A stretch of a file, read a window at a time; `at` is the next byte's place in the stretch."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self.file, self.start, self.size = file, start, size
        self.window, self.base, self.at = b"", 0, 0
        self.kept = 0  # bytes of memory, of all the texts given out
        self.passed = 0  # bytes of long lines

    def fill(self) -> None:
        """Bring the bytes from `at` on into the window."""
        here = self.at - self.base
        kept = self.window[here:] if here >= 0 else b""  # what is packed would begin again for it
        self.base, end = self.at, self.at + len(kept)
        self.file.seek(self.start + end)
        self.window = kept + self.file.read(max(0, min(WINDOW - len(kept), self.size - end)))

    def peek(self, n_bytes: int) -> bytes:
        """The next bytes, at most AHEAD, fewer at the end."""
        if self.at < self.base or self.at + n_bytes > self.base + len(self.window):
            self.fill()
        here = self.at - self.base
        return self.window[here : here + n_bytes]

    def line(self) -> bytes:
        """The next line without its end; of a long one, its first LONGEST bytes."""
        here = self.at - self.base
        end = self.window.find(b"\n", here)
        if end >= 0:
            self.at = self.base + end + 1
            return self.window[here : min(end, here + LONGEST)]
        first = self.peek(LONGEST)
        while True:
            self.fill()
            self.passed += len(self.window)
            if self.passed > MAX_LINES:
                raise Spent("its lines are longer than any real file's")
            if not self.window:
                return first[:-1]  # Python's reader in Python takes what there is, less one letter
            end = self.window.find(b"\n")
            self.at += end + 1 if end >= 0 else len(self.window)
            if end >= 0:
                return first.partition(b"\n")[0]


def opcodes(tape: Tape) -> Iterator[tuple[int, Any]]:
    """Each opcode and its argument up to and including STOP; whoever iterates may move the tape. Raises Broken."""
    code = 0
    while code != 0x2E:
        code, value = next_opcode(tape)
        yield code, value


def next_opcode(tape: Tape) -> tuple[int, Any]:
    """One opcode and its argument: a number, a short text, a Name, or a Stretch of what is longer. Raises Broken."""
    here, window = tape.at - tape.base, tape.window
    if not 0 <= here <= len(window) - AHEAD:
        if here < 0 or tape.base + len(window) < tape.size or here > len(window):
            tape.fill()
            here, window = 0, tape.window
        if here >= len(window):
            raise Broken("it ends before its STOP")
    code = window[here]
    kind = KINDS.get(code)
    if kind is None:
        raise Broken(f"no opcode is 0x{code:02x}")
    form, n = kind
    tape.at += 1
    if form == PLAIN:
        return code, None
    if form == LINE:
        return code, _spelt(code, tape.line())
    if form == LINES:
        module = tape.line()
        return code, Name(module.decode("utf-8", "replace"), tape.line().decode("utf-8", "replace"))
    start = here + 1 + n
    raw = window[here + 1 : start]
    if len(raw) < n:
        raise Broken("it ends within an opcode")
    tape.at += n
    if form == NUMBER:
        return code, int.from_bytes(raw, "big" if code == 0x47 else "little", signed=code == 0x4A)
    size = int.from_bytes(raw, "little")
    if size > tape.size - tape.at:
        raise Broken("it ends within a text")
    tape.at += size
    if code in TEXTS and size <= LONGEST:
        tape.kept += size + 64
        return code, _text(window[start : start + size], "replace" if code < 0x58 else "surrogatepass")
    if code == 0x8A and size <= 16:
        return code, int.from_bytes(window[start : start + size], "little", signed=True)
    return code, Stretch(tape.at - size, size)


def _text(raw: bytes, errors: str) -> str:
    try:
        return raw.decode("utf-8", errors)
    except UnicodeDecodeError:
        raise Broken("a text is no UTF-8") from None


def _spelt(code: int, line: bytes) -> Any:
    """The value that a line of protocol 0 spells."""
    try:
        match code:
            case 0x50:  # P
                return line.decode("ascii", "replace")
            case 0x56:  # V
                return line.decode("raw-unicode-escape", "replace")
            case 0x53:  # S, between quotes, with escapes
                import codecs

                line = line.strip()
                return codecs.escape_decode(line[1:-1])[0].decode("utf-8", "replace")
            case 0x49 | 0x4C | 0x67 | 0x70:  # I, L, g, p
                return int(line.strip().removesuffix(b"L")) if len(line) < LONGEST else None
    except (ValueError, Warning):
        return None
    return None


class Imports:
    """What scanning found: each global and where it was first seen, and why the scan did not reach the end."""

    def __init__(self) -> None:
        self.names: dict[Name, int] = {}
        self.calls: set[Name] = set()  # globals that are called or have their state set
        self.odd: dict[str, int] = {}  # what no honest pickle does, in a few words
        self.zips: list[Stretch] = []  # zip archives in bytes that the pickle hands to a loader; places in the file
        self.n_pickles = 0
        self.broken = ""
        self.unscanned = ""

    def add(self, name: Name, at: int) -> None:
        if name not in self.names:
            if len(self.names) >= MAX_NAMES:
                raise Spent(f"it names more than {MAX_NAMES:,} globals")
            self.names[name] = at


class Clock:
    """How many opcodes and seconds are left; shared by all pickles of one file."""

    def __init__(self, steps: int = MAX_STEPS, seconds: float = MAX_SECONDS) -> None:
        self.steps, self.end = steps, monotonic() + seconds

    def tick(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise Spent("it has more opcodes than any real file's")
        if monotonic() > self.end:
            raise Spent("it takes too long to read")


def scan(tape: Tape, clock: Clock, found: Imports | None = None, level: int = 0) -> Imports:
    """All pickles on the tape, one after the other; what comes after the first need not be one.

    A stream that breaks later is no fault of what was read (arrays follow pickles in many files), so `broken` tells
    of the first pickle only, and what later ones name counts only where they say by their first byte that they are
    pickles, or reach their end.
    """
    found = Imports() if found is None else found
    try:
        while tape.at < tape.size and found.n_pickles < MAX_PICKLES:
            first = found.n_pickles == 0
            start, head = tape.at, tape.peek(2)
            declared = head[:1] == b"\x80" and head[1:] <= b"\x05"
            inner = found if first or declared else Imports()
            try:
                Scanner(tape, clock, inner, level).run()
            except Broken as error:
                if first:
                    found.broken = str(error)
                if inner is not found:
                    _keep(inner, inner.calls, found)
                return found
            except Spent as error:
                if inner is not found:
                    _keep(inner, inner.calls, found)
                raise error from None
            if inner is not found:
                _keep(inner, set(inner.names), found)
            found.n_pickles += 1
            if tape.at <= start:
                return found
        if tape.at < tape.size:
            found.unscanned = f"it holds more than {MAX_PICKLES:,} pickles"
    except Spent as error:
        found.unscanned = str(error)
    return found


def _keep(inner: Imports, names: set[Name], found: Imports) -> None:
    """Of bytes that did not say that they are a pickle: what reads like a name, and not like chance."""
    import re

    for name in names:
        if re.fullmatch(r"[A-Za-z_][\w.]*", f"{name.module}.{name.name}", re.ASCII):
            found.names.setdefault(name, inner.names.get(name, 0))
            if name in inner.calls:
                found.calls.add(name)


class Scanner:
    """One pickle's stack and memo, with names, short texts and tuples on it, and None for everything else."""

    def __init__(self, tape: Tape, clock: Clock, found: Imports, level: int) -> None:
        self.tape, self.clock, self.found, self.level = tape, clock, found, level
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0
        self.frame = 0  # where the frame that began last ends

    def run(self) -> None:
        """Walk the opcodes up to STOP. Raises Broken, Spent."""
        try:
            while True:
                self._run_plainly()
                start = self.tape.at
                code, value = next_opcode(self.tape)
                if start < self.frame < self.tape.at or (code == 0x95 and start < self.frame):
                    # There Python's reader in C drops the first half of an argument, and goes on with the second.
                    self._odd("cuts an opcode by a frame")
                if code in PUSHES:
                    self.stack.append(value)
                elif code == 0x2E:  # STOP
                    return
                else:
                    self._step(code, value)
                self.steps += 1
                if self.steps > 2000:
                    self._tick()
        finally:
            self.clock.steps -= self.steps

    def _tick(self) -> None:
        self.clock.tick(self.steps)
        self.steps = 0
        if self.tape.kept > MAX_KEPT:
            raise Spent("its texts take more memory than any real file's")

    def _run_plainly(self) -> None:
        """The opcodes of which pickles mostly consist, as fast as can be; it ends before any other."""
        tape, stack, memo = self.tape, self.stack, self.memo
        window = tape.window
        at, end = tape.at - tape.base, len(window) - 2 * LONGEST
        if tape.at < self.frame < tape.base + end:
            end = self.frame - tape.base - 2 * LONGEST
        if at < 0:
            return
        start, steps = at, 0
        while at < end:
            code = window[at]
            if code == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1] if stack else None
                at += 1
            elif code == 0x72:  # LONG_BINPUT
                memo[int.from_bytes(window[at + 1 : at + 5], "little")] = stack[-1] if stack else None
                at += 5
            elif code == 0x71:  # BINPUT
                memo[window[at + 1]] = stack[-1] if stack else None
                at += 2
            elif code == 0x8C or code == 0x58 and not window[at + 3] and not window[at + 4] and window[at + 2] < 4:
                here = at + (2 if code == 0x8C else 5)  # SHORT_BINUNICODE BINUNICODE
                at = here + window[at + 1] + (0 if code == 0x8C else window[at + 2] << 8)
                stack.append(_text(window[here:at], "surrogatepass"))
            elif code == 0x4B:  # BININT1
                stack.append(window[at + 1])
                at += 2
            elif code == 0x4D or code == 0x4A:  # BININT2 BININT
                stack.append(
                    int.from_bytes(window[at + 1 : at + (3 if code == 0x4D else 5)], "little", signed=code == 0x4A)
                )
                at += 3 if code == 0x4D else 5
            elif code == 0x68:  # BINGET
                stack.append(memo.get(window[at + 1]))
                at += 2
            elif code == 0x28:  # MARK
                self.marks.append(len(stack))
                at += 1
            else:
                break
            steps += 1
        self.steps += steps
        tape.at = tape.base + at
        tape.kept += at - start

    def _pop(self) -> Any:
        return self.stack.pop() if self.stack else None

    def _marked(self) -> list[Any]:
        start = min(self.marks.pop() if self.marks else 0, len(self.stack))
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _step(self, code: int, value: Any) -> None:
        stack, memo = self.stack, self.memo
        match code:
            case 0x71 | 0x72 | 0x70:  # BINPUT LONG_BINPUT PUT
                if value is None:
                    self._odd("numbers its memo as no pickler does")
                memo[value] = stack[-1] if stack else None
            case 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1] if stack else None
            case 0x68 | 0x6A | 0x67:  # BINGET LONG_BINGET GET
                stack.append(memo.get(value))
            case 0x28:  # MARK
                self.marks.append(len(stack))
            case 0x63:  # GLOBAL
                stack.append(self._import(value))
            case 0x93:  # STACK_GLOBAL
                name, module = self._pop(), self._pop()
                if isinstance(name, str) and isinstance(module, str):
                    stack.append(self._import(Name(module, name)))
                else:
                    self._odd("computes the name of what it imports")
                    stack.append(None)
            case 0x69:  # INST
                what, marked = self._import(value), bool(self.marks)
                arguments = tuple(self._marked())
                stack.append(self._called(what, arguments) if marked else None)
            case 0x6F:  # OBJ
                values = self._marked()
                stack.append(self._called(values[0] if values else None, tuple(values[1:])))
            case 0x52 | 0x81:  # REDUCE NEWOBJ
                arguments = self._pop()
                stack.append(self._called(self._pop(), arguments))
            case 0x92:  # NEWOBJ_EX
                self._pop()
                arguments = self._pop()
                stack.append(self._called(self._pop(), arguments))
            case 0x62:  # BUILD
                state = self._pop()
                target = stack[-1] if stack else None
                if isinstance(target, Name):
                    self._odd(f"changes {target.module}.{target.name} itself")
                elif isinstance(target, Call) and target.what == ARRAY and isinstance(state, dict):
                    self._without_skipping()
                    self._skip_array(state)
            case 0x82 | 0x83 | 0x84:  # EXT1 EXT2 EXT4
                stack.append(self._import(Name("copyreg", f"extension {value}")))
            case 0x74:  # TUPLE
                stack.append(tuple(self._marked()[:16]))
            case 0x85 | 0x86 | 0x87:  # TUPLE1 TUPLE2 TUPLE3
                last = [self._pop() for _ in range(code - 0x84)]
                stack.append(tuple(reversed(last)))
            case 0x73:  # SETITEM
                inside, key = self._pop(), self._pop()
                self._set([key, inside])
            case 0x75:  # SETITEMS
                self._set(self._marked())
            case 0x7D:  # EMPTY_DICT
                stack.append({})
            case 0x29:  # EMPTY_TUPLE
                stack.append(())
            case 0x61:  # APPEND
                self._pop()
            case 0x65 | 0x90:  # APPENDS ADDITEMS
                self._marked()
            case 0x64 | 0x6C | 0x91:  # DICT LIST FROZENSET
                self._marked()
                stack.append(None)
            case 0x30:  # POP
                if self.marks and self.marks[-1] >= len(stack):
                    self.marks.pop()
                else:
                    self._pop()
            case 0x31:  # POP_MARK
                self._marked()
            case 0x32:  # DUP
                stack.append(stack[-1] if stack else None)
            case 0x50:  # PERSID
                stack.append(None)
            case 0x51:  # BINPERSID
                reference = self._pop()  # PyTorch wraps the classes of modules into ("module", class, …)
                module = isinstance(reference, tuple) and len(reference) > 1 and reference[0] == "module"
                stack.append(reference[1] if module and isinstance(reference[1], Name) else None)
            case 0x42 | 0x43 | 0x8E | 0x96:  # BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
                stack.append(value)
                if value.size >= 4:
                    self._within(value)
            case 0x95:  # FRAME
                self.frame = self.tape.at + value
            case _:  # PROTO STOP READONLY_BUFFER
                pass

    def _import(self, name: Name) -> Name:
        self.found.add(name, self.tape.at)
        return name

    def _called(self, what: Any, arguments: Any) -> Call | None:
        if isinstance(what, Name):
            self.found.calls.add(what)
            if isinstance(arguments, tuple):  # torch's _rebuild_from_type and others call what they are given
                self.found.calls.update(a for a in arguments if isinstance(a, Name))
            if what == LOADER:
                self._loaded(arguments)
            elif what in MAKERS and isinstance(arguments, tuple) and is_huge(arguments):
                self._odd("fills the memory")
            elif what == ENCODER and isinstance(arguments, tuple) and arguments:
                self._within_text(arguments[0])
            return Call(what, arguments)
        self._odd("calls something that it has computed")
        return None

    def _odd(self, words: str) -> None:
        if len(self.found.odd) < 100:
            self.found.odd.setdefault(words, self.tape.at)

    def _set(self, pairs: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if isinstance(target, dict) and len(target) < 32:
            for key, inside in zip(pairs[:64:2], pairs[1:64:2], strict=False):
                if isinstance(key, str):
                    target[key] = inside

    def _loaded(self, arguments: Any) -> None:
        """What PyTorch's loader is given is a pickle, whatever it begins with."""
        given = arguments[0] if isinstance(arguments, tuple) and len(arguments) == 1 else None
        if isinstance(given, Stretch):
            self._within(given, sure=True)
        elif isinstance(given, Call) and given.what == ENCODER and is_latin(given.arguments):
            self._within_text(given.arguments[0], sure=True)
        else:
            self._odd("loads a pickle that it puts together itself")

    def _without_skipping(self) -> None:
        """What follows an array of joblib's are bytes to joblib and opcodes to everybody else, or to its objects."""
        tape, inner, back = self.tape, Imports(), self.tape.at
        first = tape.peek(AHEAD // 2)
        if self.level >= MAX_LEVELS:
            return
        try:
            Scanner(Tape(io.BytesIO(first), 0, len(first)), self.clock, inner, self.level + 1).run()
        except Broken as error:
            # Numbers are no opcodes from the start; only what still is at the end of a window costs a second reading.
            if str(error).startswith("it ends") and back + len(first) < tape.size:
                with contextlib.suppress(Broken, Spent):
                    Scanner(tape, self.clock, inner, self.level + 1).run()
        except Spent:
            pass
        tape.at = back
        _keep(inner, set(inner.names) if first[:1] == b"\x80" else inner.calls, self.found)
        self.clock.tick(0)

    def _within(self, inside: Stretch, sure: bool = False) -> None:
        """Bytes that begin as a pickle (or as PyTorch's zip) are scanned as one, in case somebody loads them."""
        tape = self.tape
        back = tape.at
        tape.at = inside.start
        head = tape.peek(4)
        tape.at = back
        zipped = head == b"PK\x03\x04"
        pickled = head[:1] == b"\x80" and b"\x02" <= head[1:2] <= b"\x05" or sure and not zipped
        if pickled and self.level >= MAX_LEVELS:
            self._odd(f"holds pickles within pickles, deeper than {MAX_LEVELS}")
        elif pickled:
            part = Tape(tape.file, tape.start + inside.start, inside.size)
            nested = scan(part, self.clock, Imports(), self.level + 1)
            self.found.zips += nested.zips
            self._merge(nested)
        elif zipped and len(self.found.zips) < 100:
            self.found.zips.append(Stretch(tape.start + inside.start, inside.size))

    def _within_text(self, text: Any, sure: bool = False) -> None:
        """Protocol 2 spells bytes as a text in Latin-1: what begins as a pickle is scanned as one."""
        if isinstance(text, Stretch):
            tape = self.tape
            if text.size > MAX_SPELT:
                raise Spent("it spells out more bytes than any real file")
            back, tape.at = tape.at, text.start
            pickled = tape.peek(3) in SPELT
            tape.at = back
            if not pickled and not sure:
                return
            tape.file.seek(tape.start + text.start)
            raw = tape.file.read(text.size).decode("utf-8", "replace").encode("latin-1", "replace")
        elif isinstance(text, str) and (sure or text[:1] == "\x80" and "\x02" <= text[1:2] <= "\x05"):
            raw = text.encode("latin-1", "replace")
        else:
            return
        if self.level >= MAX_LEVELS:
            self._odd(f"holds pickles within pickles, deeper than {MAX_LEVELS}")
            return
        self._merge(scan(Tape(io.BytesIO(raw), 0, len(raw)), self.clock, Imports(), self.level + 1))

    def _merge(self, nested: Imports) -> None:
        if nested.unscanned:
            raise Spent(nested.unscanned)
        for name in nested.names:
            self.found.add(name, self.tape.at)
        self.found.calls |= nested.calls
        self.found.odd = nested.odd | self.found.odd

    def _skip_array(self, state: dict[str, Any]) -> None:
        """joblib puts an array's bytes between two opcodes, after a byte that says how many to skip first."""
        size = item_size(state.get("dtype"))
        shape = state.get("shape")
        if (
            size is None
            or not isinstance(shape, tuple)
            or not all(isinstance(n, int) and 0 <= n < 2**48 for n in shape)
        ):
            raise Broken("an array of joblib's is of a type that is not known")
        if size == 0 and self.level < MAX_LEVELS:
            Scanner(self.tape, self.clock, self.found, self.level + 1).run()
            return
        for n in shape:
            size *= n
        tape = self.tape
        if size and state.get("numpy_array_alignment_bytes") is not None:
            padding = tape.peek(1)
            size += 1 + (padding[0] if padding else 0)
        if size > tape.size - tape.at:
            raise Broken("it ends within an array")
        tape.at += size


__all__ = [
    "Broken",
    "Clock",
    "Imports",
    "Name",
    "Scanner",
    "Spent",
    "Stretch",
    "Tape",
    "next_opcode",
    "opcodes",
    "scan",
]
