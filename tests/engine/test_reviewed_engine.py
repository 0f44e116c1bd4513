"""What a review found: each test failed before its mend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

import brolly.model
from brolly.engine.blocks import Blocks
from brolly.engine.pages import BLOCK
from brolly.engine.sampler import Sampler
from brolly.engine.scheduler import PRIORITIES, Row, Scheduler
from brolly.errors import OptionError
from brolly.verbs import GenerateOptions
from tests.engine.test_engine import Bench, Sink, by_index, job
from tests.kernels.test_decoder import llama


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(llama(), **options))
        return made[-1]

    yield make
    for one in made:
        one.engine.close()


def full(*priorities: int, n_blocks: int = 40, tokens: int = 5) -> tuple[Scheduler, list[Row]]:
    """A batch that is full of rows of these priorities."""
    scheduler = Scheduler(Blocks(n_blocks), 4, budget=24, most=len(priorities))
    rows = [Row([i + 1] * tokens, priority=priority) for i, priority in enumerate(priorities)]
    for row in rows:
        scheduler.add(row)
    while any(row.pending for row in rows):
        scheduler.advance(scheduler.plan())
    for row in rows:
        scheduler.write(row, 9)
    return scheduler, rows


def test_a_higher_priority_takes_the_last_place_of_the_lowest_in_a_full_batch() -> None:
    scheduler, (first, second, high) = full(0, 0, 3)
    waits = Row([7], priority=1)
    scheduler.add(waits)
    plan = scheduler.plan()
    assert (first.state, second.state, high.state, waits.state) == ("running", "waiting", "running", "running")
    assert waits in [part.row for part in plan.parts] and second not in [part.row for part in plan.parts]
    assert second.priority == 1, "and who gave way is as good as the one who came"
    scheduler.advance(plan)
    scheduler.blocks.check()


def test_an_equal_priority_takes_no_place() -> None:
    scheduler, rows = full(1, 1)
    scheduler.add(Row([7], priority=1))
    scheduler.plan()
    assert [row.state for row in rows] == ["running", "running"] and not scheduler.preemptions


def test_nobody_gives_way_where_that_makes_no_place() -> None:
    scheduler, (low, high) = full(0, 5, n_blocks=12, tokens=5)
    scheduler.add(Row(range(40), priority=2))  # ten blocks; the two hold four, and the higher one keeps its own
    scheduler.plan()
    assert (low.state, high.state) == ("running", "running")


def test_giving_way_to_higher_priorities_comes_to_an_end() -> None:
    scheduler, (low,) = full(0)
    gave_way = 0
    for step in range(3 * PRIORITIES):
        scheduler.add(Row([7, step], priority=PRIORITIES, user="pushes"))
        if low.state == "running":
            scheduler.advance(scheduler.plan())
            gave_way += low.state == "waiting"
        for row in list(scheduler.running):
            if row is not low:
                scheduler.end(row)
        scheduler.advance(scheduler.plan())
        for row in list(scheduler.running):
            if row is not low:
                scheduler.end(row)
        scheduler.advance(scheduler.plan())
    assert 0 < gave_way <= PRIORITIES


def test_who_gave_way_to_a_higher_priority_goes_on_as_if_alone(bench: Callable[..., Bench]) -> None:
    made = bench(most=2, context=1000)
    low = [job(range(1, 50 + i), max_tokens=200, logit_bias={0: -100}) for i in range(2)]
    sinks = [Sink() for _ in low]
    for one, sink in zip(low, sinks, strict=True):
        made.engine.submit(one, sink)
    while not all(len(sink.got) > 3 for sink in sinks):
        threading.Event().wait(0.002)
    high = Sink()
    made.engine.submit(job([5, 6], priority=2, max_tokens=3, logit_bias={0: -100}), high)
    high.wait()
    assert not any(piece.finish_reason for sink in sinks for piece in sink.got if not isinstance(piece, BaseException))
    for one, sink in zip(low, sinks, strict=True):
        assert by_index(sink.wait())[0] == made.alone(one).tokens
    assert made.engine.stats().preemptions == 1


def test_answers_that_wait_for_a_place_were_not_cached(bench: Callable[..., Bench]) -> None:
    """Their prompt is in blocks because their own request put it there."""
    made, sink = bench(most=2), Sink()
    prompt = range(1, 3 * BLOCK + 2)
    made.engine.submit(job(prompt, n=6, max_tokens=2, logit_bias={0: -100}), sink)
    usages = [piece.usage for piece in sink.wait(6) if piece.finish_reason]
    assert [usage.cached_tokens for usage in usages] == [0] * 6
    again = Sink()
    made.engine.submit(job(prompt, n=6, max_tokens=2, logit_bias={0: -100}), again)
    usages = [piece.usage for piece in again.wait(6) if piece.finish_reason]
    assert [usage.cached_tokens for usage in usages] == [3 * BLOCK] * 6


def test_a_job_that_cannot_begin_ends_alone(bench: Callable[..., Bench]) -> None:
    made, sink = bench(), Sink()
    nobody: Any = []
    made.engine.submit(job([1], user=nobody), sink)
    assert isinstance(sink.wait()[-1], TypeError)
    assert made.together([job([1], max_tokens=2, logit_bias={0: -100})] * 2)[0].finish_reason == "length"
    made.at_rest()


@pytest.mark.parametrize("name", ["engine", "runner"])
def test_threads_that_come_together_find_one_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on functools.cached_property lets each make its own: twice the memory, and one never closed."""
    made, own = [], getattr(brolly.model, name.title())

    def slowly(*args: Any, **options: Any) -> Any:
        made.append(threading.get_ident())
        threading.Event().wait(0.1)
        return own(*args, **options)

    monkeypatch.setattr(brolly.model, name.title(), slowly)
    model = brolly.load("mini-llm")
    threads = [threading.Thread(target=getattr, args=(model, name)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    model.close()
    model.close()


class Forgetful(dict[Any, Any]):
    """Labels that another thread replaces as soon as somebody has found his own."""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self.clear()
        return found


def test_labels_of_another_thread_take_nobodys_away() -> None:
    model, picture, labels = brolly.load("mini-clip"), Image.new("RGB", (32, 32)), ["a cat", "a dog"]
    first = model.classify(picture, labels)
    model._labels = Forgetful(model._labels)
    assert model.classify(picture, labels).label == first.label
    model.close()


def test_a_token_that_is_none_is_refused_before_it_fails_its_neighbours() -> None:
    model = brolly.load("mini-llm")
    with pytest.raises(OptionError, match="-5"):
        model.prepare([3, -5])
    model.close()


def test_a_prompt_is_remembered_by_each_answer_only_where_that_is_asked_for() -> None:
    assert not Sampler(GenerateOptions(), range(100_000)).seen
    assert len(Sampler(GenerateOptions(repetition_penalty=1.1), range(100)).seen) == 100
