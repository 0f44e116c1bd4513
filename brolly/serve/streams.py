"""Between the engine's thread and the event loop: pieces as they come, and a client's leaving."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from brolly.engine.job import Job
from brolly.verbs import Piece


class Pieces:
    """The pieces of a job, for `async for`; leave the `async with` and the job is cancelled."""

    def __init__(self, model: Any, job: Job) -> None:
        self.model, self.job = model, job
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Piece | BaseException] = deque()
        self._there = asyncio.Event()
        self._open = job.n

    async def __aenter__(self) -> Pieces:
        self._ticket = await asyncio.to_thread(self.model.submit, self.job, self._deliver)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticket.cancel()

    def _deliver(self, piece: Piece | BaseException) -> None:
        self._waiting.append(piece)
        with suppress(RuntimeError):  # the loop has gone, and with it whoever waited
            self._loop.call_soon_threadsafe(self._there.set)

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        if not self._open and not self._waiting:
            raise StopAsyncIteration
        while not self._waiting:
            self._there.clear()
            await self._there.wait()
        piece = self._waiting.popleft()
        if isinstance(piece, BaseException):
            self._open = 0
            raise piece
        if piece.finish_reason:
            self._open -= 1
        return piece


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    body = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"{head}data: {body}\n\n".encode()
