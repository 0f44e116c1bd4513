"""How much one vendor is asked at a time, over all of this process: requests open, requests a minute, pauses."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import deque
from dataclasses import dataclass

from brolly.errors import Busy
from brolly.remote.target import Target

PATIENCE = 60.0  # seconds that a vendor's own wish to be left alone is waited for, at most


@dataclass(eq=False)
class _Waiting:
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    most: int

    def go(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


class Limit:
    """One vendor's at one address. For any thread and event loop; who came first goes first."""

    def __init__(self) -> None:
        self.open = 0
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._next = 0.0  # when the next request may begin, by the rate
        self._pauses: dict[str, tuple[float, float]] = {}  # model → until when nobody asks, and until when in vain

    def renew(self) -> None:
        """Nothing is open, and nobody waits."""
        self._lock, self.open = threading.Lock(), 0
        self._waiting.clear()

    async def enter(self, model: str, most: int, rate: float | None, patience: float) -> None:
        """Wait for a place among `most`, for the rate (requests a minute) and for the end of a pause. Raises Busy."""
        await self._place(most, patience)
        try:
            while (wait := self._pause_left(model)) > 0:  # then not all at once
                await asyncio.sleep(wait + random.uniform(0, min(1.0, wait / 4)))
            if rate is not None and (wait := self._turn(rate, patience)) > 0:
                await asyncio.sleep(wait)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """A request is over."""
        while True:
            with self._lock:
                self.open -= 1
                following = next((one for one in self._waiting if self.open < one.most), None)
                if following is None:
                    return
                self._waiting.remove(following)
                self.open += 1
            try:
                following.loop.call_soon_threadsafe(following.go)
                return
            except RuntimeError:  # its loop is closed, and nobody there waits any more
                continue

    def pause(self, model: str, seconds: float) -> None:
        """A vendor wants not to be asked for so long; what is open goes on. A long pause is no reason to wait: whoever
        asks is told at once, and once in PATIENCE seconds somebody is let through to see."""
        with self._lock:
            now = time.monotonic()
            until, vain = self._pauses.get(model, (0.0, 0.0))
            self._pauses[model] = max(until, now + min(seconds, PATIENCE)), max(vain, now + seconds)

    def _pause_left(self, model: str) -> float:
        """Seconds to wait. Raises Busy."""
        if not self._pauses:
            return 0.0
        with self._lock:
            now = time.monotonic()
            until, vain = self._pauses.get(model, (0.0, 0.0))
            if until <= now:
                self._pauses.pop(model, None)
            elif vain - now > PATIENCE:
                raise Busy(f"{model} takes no requests for {vain - now:.0f} s, its vendor said; ask then.", vain - now)
            return until - now

    def _turn(self, rate: float, patience: float) -> float:
        """Seconds until this request may begin. A second's worth may begin together."""
        each = 60.0 / rate
        with self._lock:
            now = time.monotonic()
            begin = max(self._next, now - max(0.0, 1.0 - each))
            wait = max(0.0, begin - now)
            if wait > patience:
                raise Busy(f"more is asked of this vendor than {rate:g} requests a minute; ask later.", wait)
            self._next = begin + each
        return wait

    async def _place(self, most: int, patience: float) -> None:
        with self._lock:
            if self.open < most and not self._waiting:
                self.open += 1
                return
            loop = asyncio.get_running_loop()
            mine = _Waiting(loop, loop.create_future(), most)
            self._waiting.append(mine)
        try:
            async with asyncio.timeout(patience):
                await mine.turn
        except BaseException as error:
            with self._lock:
                waiting = mine in self._waiting
                if waiting:
                    self._waiting.remove(mine)
            if not waiting:  # the place was given in the same moment
                self.leave()
            if not isinstance(error, TimeoutError):
                raise
            late = True
        else:
            late = False
        if late:
            raise Busy(
                f"{most} requests are open with this vendor and none ended in {patience:g} s; ask fewer at a time."
            )


_limits: dict[tuple[str, str], Limit] = {}
_lock = threading.Lock()


def _forked() -> None:
    """What a parent has open is not its child's, and a lock that another thread held stays locked there."""
    global _lock
    _lock = threading.Lock()
    for limit in _limits.values():
        limit.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def limit_of(target: Target) -> Limit:
    """The limit that all of this process's Remotes of a vendor and address share."""
    key = target.vendor.account or target.vendor.name, target.host
    with _lock:
        return _limits.setdefault(key, Limit())
