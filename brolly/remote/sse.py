"""Server-sent events from bytes as they come, by the WHATWG's rules, bounded. One pass over each chunk."""

from __future__ import annotations

from brolly.errors import BadAnswer

MOST = 16 << 20  # bytes of one event
BOM = b"\xef\xbb\xbf"


class Events:
    """Takes chunks cut anywhere; gives (event name, data). Comments, ids and retry times are left out.

    An event's data that is not UTF-8, or longer than `most` bytes, raises BadAnswer. Unlike a browser it takes an event
    whose blank line never came, if the stream was ended in order: see `end`.
    """

    def __init__(self, host: str = "the server", most: int = MOST) -> None:
        self.host, self.most = host, most
        self._parts: list[bytes] = []  # of a line whose end has not come
        self._size = 0  # of them, and of the event's data
        self._data: list[bytes] = []
        self._name = b""
        self._began = self._cr = False

    def push(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that a chunk completes. Raises BadAnswer."""
        if self._cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
            self._cr = False
        if not chunk:
            return []
        # bytes know no other ends of lines than these three: \n, \r and \r\n
        lines, last = chunk.splitlines(), chunk[-1]
        self._cr = last == 13
        rest = b"" if last in (10, 13) else lines.pop()
        found: list[tuple[str, str]] = []
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._size -= sum(map(len, self._parts))
            self._parts.clear()
        for line in lines:
            if not self._began:
                self._began, line = True, line.removeprefix(BOM)
            if not line:
                if self._data:
                    found.append(self._event())
                self._name = b""
            else:
                self._field(line)
        if rest:
            self._parts.append(rest)
            self._grow(len(rest))
        return found

    def end(self) -> list[tuple[str, str]]:
        """The connection ended in order: what stands there without a blank line behind it. Raises BadAnswer."""
        self._cr = False
        return self.push(b"\n\n") if self._parts or self._data else []

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._grow(len(value) + 1)
        elif name == b"event":
            self._name = value

    def _event(self) -> tuple[str, str]:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._size = 0
        try:
            return self._name.decode(), data.decode()
        except UnicodeDecodeError as error:
            place = f"byte {error.start} of an event"
        raise BadAnswer(f"{self.host} sent what is not UTF-8 ({place}); ask again.")

    def _grow(self, n_bytes: int) -> None:
        self._size += n_bytes
        if self._size > self.most:
            raise BadAnswer(f"{self.host} sent an event of more than {self.most >> 10} KiB; expected shorter ones.")
