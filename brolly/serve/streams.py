"""Between the engine's thread or a vendor, and the event loop: pieces as they come, and a client's leaving."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from brolly.remote.ask import Ask
from brolly.serve.account import current
from brolly.serve.errors import envelope, noted, told
from brolly.verbs import Piece, TokenLogprob, Usage

if TYPE_CHECKING:
    from brolly.engine.job import Job

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
dumps: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Pieces:
    """The pieces of a job, for `async for`; leave the `async with` and the job is cancelled.

    Where it is an ask of a model elsewhere, `stream` tells whether its vendor is to answer piece by piece.
    """

    def __init__(self, model: Any, job: Job | Ask, stream: bool = True) -> None:
        self.model, self.job = model, replace(job, stream=stream) if isinstance(job, Ask) else job
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Piece | BaseException] = deque()
        self._there = asyncio.Event()
        self._open = job.n

    async def __aenter__(self) -> Pieces:
        if isinstance(self.job, Ask):
            self._ticket = await self.model.begin(self.job, self._arrived)
            return self
        # in a thread, because submitting may take a lock that the engine holds; shielded, so that a client who leaves
        # meanwhile leaves no job behind
        taking = asyncio.ensure_future(asyncio.to_thread(self.model.submit, self.job, self._deliver))
        try:
            self._ticket = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(lambda done: None if done.exception() else done.result().cancel())
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open or not isinstance(self.job, Ask):  # one that is whole gives its connection back by itself
            self._ticket.cancel()

    def _deliver(self, piece: Piece | BaseException) -> None:
        self._waiting.append(piece)
        if len(self._waiting) == 1:  # looked at after, not before: the loop may take the last one at any moment
            with suppress(RuntimeError):  # the loop has gone, and with it whoever waited
                self._loop.call_soon_threadsafe(self._there.set)

    def _arrived(self, piece: Piece | BaseException) -> None:
        """The same on the loop itself."""
        self._waiting.append(piece)
        self._there.set()

    async def batches(self) -> AsyncIterator[list[Piece]]:
        """All pieces that are there, as often as there are some. Raises what the engine delivers."""
        account = current.get()
        while self._open:
            while not self._waiting:
                self._there.clear()
                if not self._waiting:
                    await self._there.wait()
            found: list[Piece] = []
            while self._waiting:
                piece = self._waiting.popleft()
                if isinstance(piece, BaseException):
                    self._open = 0
                    if found:
                        yield found
                    raise piece
                self._open -= piece.finish_reason is not None
                found.append(piece)
                if account is not None:
                    account.wrote(piece)
            yield found

    async def __aiter__(self) -> AsyncIterator[Piece]:
        async for batch in self.batches():
            for piece in batch:
                yield piece


@dataclass
class Written:
    """All that was written for one `index`, put together from its pieces."""

    text: str = ""
    reasoning: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)  # index → id, name, arguments
    finish_reason: str = "stop"
    usage: Usage = Usage(0, 0)
    end: TokenLogprob | None = None

    def add(self, piece: Piece) -> None:
        self.end = piece.end
        self.text += piece.text
        self.reasoning += piece.reasoning
        self.tokens += piece.tokens
        self.logprobs += piece.logprobs
        for delta in piece.calls:
            call = self.calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
            call["id"] = delta.id or call["id"]
            call["name"] = delta.name or call["name"]
            call["arguments"] += delta.arguments
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.usage = piece.usage or self.usage


async def gathered(model: Any, job: Job | Ask) -> list[Written]:
    """Every answer to a job, whole, in the order of their index."""
    found = [Written() for _ in range(job.n)]
    async with Pieces(model, job, stream=False) as pieces:
        async for batch in pieces.batches():
            for piece in batch:
                found[piece.index].add(piece)
    return found


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else dumps(data)}\n\n".encode()


def in_stream(error: Exception) -> bytes:
    """An error as the last events of a stream of OpenAI's chunks."""
    return event(envelope("/v1/", told(error))) + DONE


class Events(Response):
    """An answer by server-sent events. The first thing that `source` yields sends the head, so what is raised before
    it is answered with its own status; the source is closed as soon as the client leaves.

    `tail` turns an error that comes later into the event that ends the stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self, source: AsyncGenerator[bytes, None], tail: Callable[[Exception], bytes],
        headers: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.source, self.tail, self.said = source, tail, headers  # the source may add headers before it first yields
        self.status_code, self.background = 200, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked = (scope["method"], scope["path"])
        await attended(receive, self._write(send))

    async def _write(self, send: Send) -> None:
        begun = False
        try:
            async for data in self.source:
                if not begun:
                    begun = True
                    self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **self.said})
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                if data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:  # the client left while we wrote
            return
        except Exception as error:
            if not begun:
                raise
            noted(error, *self.asked)
            with suppress(OSError):
                await send({"type": "http.response.body", "body": self.tail(error), "more_body": True})
        finally:
            await self.source.aclose()
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def attended(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, which is cancelled when the client leaves; then None."""
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((doing, watching), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            with suppress(asyncio.CancelledError):
                await doing
            return None
        return doing.result()
    finally:
        watching.cancel()
        doing.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_left(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes; where the client leaves before, the work is cancelled and 499 is noted."""
    return await attended(request.receive, work) or Response(status_code=499)
