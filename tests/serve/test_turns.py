"""The long verbs of a model: in order, one at a time, small ones together, refused when too many wait."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")

from brolly.errors import Busy, OptionError  # noqa: E402
from brolly.serve.turns import LARGE, SMALL, Turns, turns  # noqa: E402


class Doubling:
    """Work that notes its batches; a negative number is an error of its own."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, every: list[Any]) -> list[Any]:
        self.batches.append(every)
        return [OptionError(f"{one} is negative") if one < 0 else 2 * one for one in every]


def test_requests_that_come_at_once_are_one_batch_and_each_gets_its_own() -> None:
    async def go() -> None:
        turns, work = Turns(100), Doubling()
        found = await asyncio.gather(*(turns.together("k", [i, i + 100], work) for i in range(32)))
        assert found == [[2 * i, 2 * i + 200] for i in range(32)]
        assert len(work.batches) == 1 and turns.waiting == 0

    asyncio.run(go())


def test_requests_that_come_while_a_batch_runs_are_the_next_one() -> None:
    async def go() -> None:
        turns, begun, go_on, sizes = Turns(100), threading.Event(), threading.Event(), []

        def work(every: list[Any]) -> list[Any]:
            sizes.append(len(every))
            begun.set()
            assert go_on.wait(10)
            return every

        first = asyncio.create_task(turns.together("k", ["a"], work))
        await asyncio.to_thread(begun.wait, 10)
        rest = [asyncio.create_task(turns.together("k", [i], work)) for i in range(20)]
        await asyncio.sleep(0.05)  # longer than a batch is gathered for
        go_on.set()
        assert await first == ["a"] and await asyncio.gather(*rest) == [[i] for i in range(20)]
        assert sizes == [1, 20]

    asyncio.run(go())


def test_a_batch_takes_no_more_than_it_may_and_the_rest_is_the_next() -> None:
    async def go() -> None:
        turns, work = Turns(1000), Doubling()
        found = await asyncio.gather(*(turns.together("k", [i] * 3, work) for i in range(100)))
        assert found == [[2 * i] * 3 for i in range(100)]
        assert len(work.batches) == 5 and max(map(len, work.batches)) <= LARGE + 2

    asyncio.run(go())


def test_other_options_and_large_requests_are_batches_of_their_own() -> None:
    async def go() -> None:
        turns, work = Turns(100), Doubling()
        large = list(range(SMALL + 1))
        await asyncio.gather(
            turns.together("a", [1], work), turns.together("b", [2], work), turns.together("a", large, work)
        )
        assert sorted(map(len, work.batches)) == [1, 1, SMALL + 1]

    asyncio.run(go())


def test_an_error_is_of_the_request_whose_input_it_is() -> None:
    async def go() -> None:
        turns, work = Turns(100), Doubling()
        good, bad = await asyncio.gather(
            turns.together("k", [1], work), turns.together("k", [2, -1], work), return_exceptions=True
        )
        assert good == [2] and isinstance(bad, OptionError) and len(work.batches) == 1

    asyncio.run(go())


def test_work_that_fails_fails_for_all_of_its_batch_and_not_for_the_next() -> None:
    async def go() -> None:
        def broken(every: list[Any]) -> list[Any]:
            raise OptionError("all of them")

        turns = Turns(100)
        found = await asyncio.gather(*(turns.together("k", [i], broken) for i in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [OptionError] * 3
        assert await turns.together("k", [3], Doubling()) == [6] and turns.waiting == 0

    asyncio.run(go())


def test_who_has_gone_is_not_computed() -> None:
    async def go() -> None:
        turns, work = Turns(100), Doubling()
        gone, stays = (asyncio.create_task(turns.together("k", [i], work)) for i in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == [4] and work.batches == [[2]]
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert turns.waiting == 0

    asyncio.run(go())


def test_too_many_that_wait_are_refused() -> None:
    async def go() -> None:
        turns, go_on, ran = Turns(2), threading.Event(), []

        def work(n: int) -> int:
            assert go_on.wait(10)
            ran.append(n)
            return n

        doing = [asyncio.create_task(turns.run(lambda n=n: work(n))) for n in range(3)]  # type: ignore[misc]
        await asyncio.sleep(0.01)
        for refused in (turns.run(lambda: 9), turns.together("k", [1], Doubling())):
            with pytest.raises(Busy, match="2 requests already wait"):
                await refused
        go_on.set()
        assert await asyncio.gather(*doing) == [0, 1, 2] and ran == [0, 1, 2]
        assert await turns.run(lambda: 4) == 4

    asyncio.run(go())


def test_items_come_as_they_are_ready_and_closing_stops_the_work() -> None:
    async def go() -> None:
        turns, may, made = Turns(5), threading.Semaphore(2), []

        def work() -> Iterator[int]:
            for i in range(100):
                assert may.acquire(timeout=10)
                made.append(i)
                yield i

        each = turns.each(work)
        assert [await anext(each), await anext(each)] == [0, 1]
        await each.aclose()
        for _ in range(98):
            may.release()
        assert await turns.run(lambda: 7) == 7  # in the same thread, so behind what was closed
        assert len(made) == 3 and turns.waiting == 0

    asyncio.run(go())


def test_an_error_in_the_middle_comes_behind_the_items_before_it() -> None:
    async def go() -> None:
        def work() -> Iterator[int]:
            yield 1
            raise OptionError("enough")

        found = []
        with pytest.raises(OptionError, match="enough"):
            async for item in Turns(5).each(work):
                found.append(item)
        assert found == [1]

    asyncio.run(go())


def test_turns_and_their_thread_end_with_their_model() -> None:
    """Nothing of a request that is over keeps a model in memory."""

    class Modelled:
        """What a test can let go."""

        def double(self, every: list[int]) -> list[int]:
            return [2 * one for one in every]

    async def go(model: Modelled) -> str:
        state = SimpleNamespace(settings=SimpleNamespace(waiting=3))
        own = turns(SimpleNamespace(app=SimpleNamespace(state=state)), model)  # type: ignore[arg-type]
        assert await own.together("k", [1], model.double) == [2]
        assert [one async for one in own.each(lambda: iter(model.double([3])))] == [6]
        return await own.run(lambda: threading.current_thread().name)

    model = Modelled()
    name = asyncio.run(go(model))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    until = time.monotonic() + 10
    while any(thread.name == name for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(thread.name == name for thread in threading.enumerate())
