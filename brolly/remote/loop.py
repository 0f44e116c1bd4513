"""One event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The loop, begun when first needed; it ends with the process."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="brolly-remote", daemon=True).start()
        return _loop


def spawn(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin work on that loop, from any other thread."""
    return asyncio.run_coroutine_threadsafe(work, loop())


def wait(work: Coroutine[Any, Any, T]) -> T:
    """What work returns; ^C and its like end it, too."""
    doing = spawn(work)
    try:
        return doing.result()
    except BaseException:
        doing.cancel()
        raise


async def together(works: Iterable[Coroutine[Any, Any, T]], most: int) -> list[T]:
    """The results of several, at most so many at a time; the first error ends the others, and is raised."""
    works, room = list(works), asyncio.Semaphore(most)

    async def one(work: Coroutine[Any, Any, T]) -> T:
        async with room:
            return await work

    try:
        async with asyncio.TaskGroup() as group:
            doing = [group.create_task(one(work)) for work in works]
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    finally:
        for work in works:  # what had no room yet
            work.close()
    return [task.result() for task in doing]


def _forked() -> None:
    """A child has the loop of its parent and not its thread: it begins its own."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
