"""The reading of requests, in threads of its own: so many at a time for each caller.

What takes long, such as a grammar that is hard to compile, then keeps only those waiting who sent it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from brolly.serve.tell import share

P = ParamSpec("P")
T = TypeVar("T")
EACH, ALL = 4, 16  # threads for a caller, and for all

_threads = ThreadPoolExecutor(ALL, "reading")
_gates: WeakValueDictionary[tuple[int, str], asyncio.Semaphore] = WeakValueDictionary()


async def in_turn(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """What `work` returns, in a thread, when it is this caller's turn."""
    loop = asyncio.get_running_loop()
    gate = _gates.setdefault((id(loop), share(None)), asyncio.Semaphore(EACH))
    await gate.acquire()
    context = contextvars.copy_context()
    doing = loop.run_in_executor(_threads, lambda: context.run(work, *args, **options))
    doing.add_done_callback(lambda _: gate.release())
    doing.add_done_callback(lambda done: done.cancelled() or done.exception())  # which nobody looks at who has left
    return await asyncio.shield(doing)  # a client who leaves does not end the work, and has no turn more before it ends
