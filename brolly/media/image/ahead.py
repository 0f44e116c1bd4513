"""Work done ahead of who needs it, by threads, in order: pictures are decoded while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from brolly.errors import BrollyError

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, depth: int = 64, workers: int | None = None
) -> Iterator[Result | BrollyError]:
    """work(item) of each item in order, at most `depth` at once; an item's BrollyError takes its result's place."""

    def careful(item: Item) -> Result | BrollyError:
        try:
            return work(item)
        except BrollyError as error:
            return error

    pool = ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 16), "brolly-ahead")
    waiting: deque[Future[Result | BrollyError]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(careful, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also where the reader has left
        pool.shutdown(wait=False, cancel_futures=True)
