"""The long verbs of one model (embed, rerank, classify, transcribe): one at a time in a thread of their own, in order.

Small requests of one kind that arrive within a few milliseconds, or while another runs, are computed as one batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fastapi import Request

from brolly.errors import Busy

T = TypeVar("T")
PAUSE, PAUSES = 0.002, 5  # seconds without a new request that close a batch, and how often they may be put off
SMALL, LARGE = 32, 64  # inputs of a request that is computed with others, and of a batch that takes no more
END = object()


class Turns:
    """The thread of one model. Its methods are called on the event loop."""

    def __init__(self, most: int) -> None:
        self.most, self.waiting = most, 0  # requests that wait or run
        self._thread = ThreadPoolExecutor(1, f"verbs-{id(self):x}")
        self._gathering: dict[Hashable, list[tuple[Sequence[Any], asyncio.Future[list[Any]]]]] = {}  # key → inputs
        self._batch = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, in its turn; left out if whoever asked has gone by then. Raises Busy."""
        self._enter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self.waiting -= 1

    async def each(self, work: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        """What an iterator gives, as it comes; closing this stops it behind its next item. Raises Busy."""
        loop, gone = asyncio.get_running_loop(), threading.Event()
        came: asyncio.Queue[Any] = asyncio.Queue()

        def tell(item: Any) -> None:
            with suppress(RuntimeError):  # the loop has gone
                loop.call_soon_threadsafe(came.put_nowait, item)

        def walk() -> None:
            try:
                for item in () if gone.is_set() else work():
                    tell(item)
                    if gone.is_set():
                        return
                tell(END)
            except BaseException as error:
                tell(error)

        self._enter()
        try:
            self._thread.submit(walk)
            while (item := await came.get()) is not END:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            gone.set()
            self.waiting -= 1

    async def together(self, key: Hashable, inputs: Sequence[Any], work: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """What `work` finds for each of these inputs, computed with the inputs of others who say the same key.

        `work` gives a result or an exception for each input; `key` must tell apart all that it depends on. Raises Busy
        and the first of the exceptions.
        """
        if len(inputs) > SMALL:
            # by parts, so that others have their turn between them, and nothing is computed for one who has gone
            found = []
            self._enter()
            try:
                for at in range(0, len(inputs), LARGE):
                    part = list(inputs[at : at + LARGE])
                    found += await asyncio.get_running_loop().run_in_executor(self._thread, work, part)
            finally:
                self.waiting -= 1
        else:
            self._enter()
            try:
                found = await self._gathered(key, inputs, work)
            finally:
                self.waiting -= 1
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found

    async def _gathered(
        self, key: Hashable, inputs: Sequence[Any], work: Callable[[list[Any]], list[Any]]
    ) -> list[Any]:  # fmt: skip
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if key in self._gathering:
            self._gathering[key].append((inputs, future))
        else:
            self._gathering[key] = [(inputs, future)]
            self._begin(key, work)
        return await future

    def _begin(self, key: Hashable, work: Callable[[list[Any]], list[Any]]) -> None:
        task = asyncio.create_task(self._close(key, work))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def _close(self, key: Hashable, work: Callable[[list[Any]], list[Any]]) -> None:
        """Wait while requests come in quick succession and for the batch before, then compute as many as make one."""
        came = 0
        for _ in range(PAUSES):
            if len(self._gathering[key]) == came:
                break
            came = len(self._gathering[key])
            await asyncio.sleep(PAUSE)
        async with self._batch:
            waiting, asked = self._gathering.pop(key), []
            every: list[Any] = []
            while waiting and len(every) < LARGE:
                inputs, future = waiting.pop(0)
                if not future.done():  # whoever asked has not gone
                    asked.append((inputs, future))
                    every += inputs
            if waiting:
                self._gathering[key] = waiting
                self._begin(key, work)
            if not asked:
                return
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._thread, work, every)
            except BaseException as error:
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                return
        at = 0
        for inputs, future in asked:
            if not future.done():
                future.set_result(found[at : at + len(inputs)])
            at += len(inputs)

    def _enter(self) -> None:
        if self.waiting > self.most:
            raise Busy(f"{self.waiting - 1} requests already wait for this model; try again in a moment.")
        self.waiting += 1


_TURNS: WeakKeyDictionary[Any, Turns] = WeakKeyDictionary()


def turns(request: Request, model: Any) -> Turns:
    """The turns of a loaded model; they end with it."""
    return turns_of(model, request.app.state.settings.waiting)


def turns_of(model: Any, waiting: int) -> Turns:
    """The same, for so many who may wait."""
    found = _TURNS.get(model)
    if found is None:
        found = _TURNS[model] = Turns(waiting)
    return found
