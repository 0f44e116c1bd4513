"""A request's body as ASGI gives it: one that is here, and one that is still to come, within a size and a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import perf_counter

from starlette.types import Message, Receive

from brolly.serve.errors import Refused

SLOWEST = 65536  # bytes a second by which a body's time limit grows, so that large files may take their time


class Given:
    """A body that is here already; afterwards, what the connection tells."""

    def __init__(self, content: bytes, receive: Receive) -> None:
        self.content: bytes | None = content
        self.receive = receive

    async def __call__(self) -> Message:
        if self.content is None:
            return await self.receive()
        content, self.content = self.content, None
        return {"type": "http.request", "body": content, "more_body": False}


class Body:
    """A body that is still to come, within a size and a time. Raises Refused (413, 408)."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self.receive, self.most, self.seconds = receive, most, seconds
        self.begun, self.length, self.ended = perf_counter(), 0, False

    async def __call__(self) -> Message:
        if self.ended:
            return await self.receive()
        left = self.begun + self.seconds + self.length / SLOWEST - perf_counter()
        try:
            async with asyncio.timeout(max(left, 0)):
                message = await self.receive()
        except TimeoutError:
            raise cut(408, "timeout", f"The request's body did not arrive within {self.seconds:g} s.") from None
        self.length += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        if self.length > self.most:
            await self.discard()
            raise too_large(self.most)
        return message

    async def whole(self) -> bytes:
        """All of it."""
        parts: list[bytes] = []
        while not self.ended:
            message = await self()
            if message["type"] == "http.disconnect":
                raise cut(499, "client_left", "The client left before its request was whole.")
            parts.append(message.get("body", b""))
        return b"".join(parts) if len(parts) > 1 else parts[0]

    async def discard(self) -> None:
        """Read on for a moment: a client that is still writing does not read why it was refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while not self.ended:
                    self.ended = not (await self.receive()).get("more_body", False)
        self.ended = True


def too_large(most: int) -> Refused:
    return cut(413, "request_too_large", f"The request's body is larger than the {most:,} bytes that are taken.")


def cut(status: int, code: str, message: str) -> Refused:
    """A refusal after which the connection cannot be used, for the rest of the body may still come."""
    return Refused(message, status, code=code, headers={"connection": "close"})
