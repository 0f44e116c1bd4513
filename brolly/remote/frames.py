"""AWS's event streams: frames of bytes with names and checksums, from chunks cut anywhere. What `sse` is for others.

length (4), length of the headers (4), checksum of these (4), headers, payload, checksum of all before (4)
"""

from __future__ import annotations

import struct
from binascii import crc32

from brolly.errors import BadAnswer

MOST = 16 << 20  # bytes of one frame
HEADERS = 128 << 10  # and of its headers: AWS's own bound
# a header's type → the bytes of its value; 6 and 7 say their length
SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
BYTES, TEXT = 6, 7
NAMES = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}


class Frames:
    """Takes chunks; gives (name, payload): an event's type, an exception's, or an error's code. Raises BadAnswer."""

    def __init__(self, host: str = "the server", most: int = MOST) -> None:
        self.host, self.most = host, most
        self._came = bytearray()

    def push(self, chunk: bytes) -> list[tuple[str, str]]:
        """The frames that a chunk completes."""
        self._came += chunk
        found = []
        while (frame := self._next()) is not None:
            found.append(self._read(frame))
        return found

    def end(self) -> list[tuple[str, str]]:
        """The connection ended in order."""
        if self._came:
            raise BadAnswer(f"{self.host} ended its stream within a frame; ask again.")
        return []

    def _next(self) -> bytes | None:
        if len(self._came) < 12:
            return None
        length, headers, check = struct.unpack_from("!III", self._came)
        if check != crc32(self._came[:8]):
            raise BadAnswer(f"{self.host} sent a frame whose checksum is wrong; ask again.")
        if not 16 + headers <= length <= self.most or headers > HEADERS:
            raise BadAnswer(
                f"{self.host} sent a frame of {length:,} bytes, {headers:,} of them headers; expected less."
            )
        if len(self._came) < length:
            return None
        frame = bytes(self._came[:length])
        del self._came[:length]
        if struct.unpack("!I", frame[-4:])[0] != crc32(frame[:-4]):
            raise BadAnswer(f"{self.host} sent a frame whose checksum is wrong; ask again.")
        return frame

    def _read(self, frame: bytes) -> tuple[str, str]:
        (size,) = struct.unpack_from("!I", frame, 4)
        try:
            headers = _headers(frame[12 : 12 + size])
            payload = frame[12 + size : -4].decode()
        except (struct.error, IndexError, KeyError, UnicodeDecodeError):
            raise BadAnswer(f"{self.host} sent a frame that cannot be read; ask again.") from None
        name = headers.get(NAMES.get(headers.get(":message-type", "event"), ""), "")
        if not payload and ":error-message" in headers:
            import json

            payload = json.dumps({"message": headers[":error-message"]})
        return name, payload


def _headers(data: bytes) -> dict[str, str]:
    """Those that are texts. Raises struct.error, IndexError, KeyError, UnicodeDecodeError."""
    found, at = {}, 0
    while at < len(data):
        size = data[at]
        name = data[at + 1 : at + 1 + size].decode()
        kind = data[at + 1 + size]
        at += 2 + size
        if kind in (BYTES, TEXT):
            (size,) = struct.unpack_from("!H", data, at)
            at += 2
            if kind == TEXT:
                found[name] = data[at : at + size].decode()
        else:
            size = SIZES[kind]
        at += size
        if at > len(data):
            raise IndexError
    return found
