"""Who is computed when, by a network that is a hash: no block leaks, nobody starves, memory holds what was written."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brolly.engine.blocks import Blocks, chained
from brolly.engine.pace import Pace
from brolly.engine.scheduler import Plan, Row, Scheduler
from tests.engine.drive import SIZE, Drive


class Anything(RuleBasedStateMachine):
    """Whatever comes in whatever order; `Drive.step` asserts after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.drive = Drive(n_blocks=14, most=5)

    @rule(
        beginning=st.sampled_from([[], [1] * 4, [1] * 9, [2] * 12]),
        rest=st.lists(st.integers(0, 3), min_size=1, max_size=20),
        most=st.integers(1, 30),
        user=st.sampled_from("ab"),
        priority=st.integers(-12, 12),
        forks=st.integers(0, 3),
        root=st.sampled_from([b"", b"adapter"]),
    )
    def add(
        self, beginning: list[int], rest: list[int], most: int, user: str, priority: int, forks: int, root: bytes
    ) -> None:
        self.drive.add([*beginning, *rest], most, user=user, priority=priority, forks=forks, root=root)

    @rule(chunk=st.sampled_from([None, 1, 3, 7, 24]), fails=st.booleans())
    def step(self, chunk: int | None, fails: bool) -> None:
        self.drive.step(chunk, fails and self.drive.random.random() < 0.2)

    @rule(count=st.integers(1, 20))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.drive.step()

    @precondition(lambda self: self.drive.rows)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.drive.end(data.draw(st.sampled_from(self.drive.rows)))

    @invariant()
    def books_add_up(self) -> None:
        self.drive.blocks.check()

    def teardown(self) -> None:
        self.drive.drain()


TestAnything = Anything.TestCase
TestAnything.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize(
    ("n_blocks", "window", "most"), [(40, None, 8), (28, None, 12), (14, 9, 8), (40, 2, 8), (200, None, 24)]
)
def test_random_steps_leak_nothing_and_starve_nobody(n_blocks: int, window: int | None, most: int) -> None:
    drive = Drive(1, n_blocks, window, most)
    for _ in range(400):
        drive.anything()
    drive.drain()
    assert drive.finished and drive.scheduler.hit_tokens


# One thing at a time -------------------------------------------------------------------------------------------------


def made(n_blocks: int = 64, **options: int) -> Scheduler:
    return Scheduler(Blocks(n_blocks), SIZE, **({"budget": 16, "most": 8} | options))


def run(scheduler: Scheduler, write: int | None = 0, chunk: int | None = None) -> Plan:
    """A step, behind which every row that was computed to its end gets a token."""
    plan = scheduler.plan(chunk)
    scheduler.advance(plan)
    for part in plan.parts:
        if part.last and write is not None:
            scheduler.write(part.row, write)
    if write is not None:
        scheduler.check()
    return plan


def told(plan: Plan) -> list[tuple[str, int, int]]:
    return [(part.row.user, part.start, part.n) for part in plan.parts]


def test_answers_come_before_prompts_and_prompts_in_parts() -> None:
    scheduler = made()
    scheduler.add(Row([1, 2, 3], user="short"))
    run(scheduler)
    scheduler.add(Row(range(40), user="long"))
    plans = [told(run(scheduler, chunk=chunk)) for chunk in (10, 10, None, None, None)]
    assert plans[0] == [("short", 3, 1), ("long", 0, 10)]
    assert plans[1] == [("short", 4, 1), ("long", 10, 10)]
    assert plans[2] == [("short", 5, 1), ("long", 20, 15)]
    assert plans[3] == [("short", 6, 1), ("long", 35, 5)]
    assert plans[4] == [("short", 7, 1), ("long", 40, 1)]


def test_a_prompt_that_was_computed_is_not_computed_again() -> None:
    scheduler = made()
    first = Row(range(18))
    scheduler.add(first)
    run(scheduler), run(scheduler)
    scheduler.end(first)
    again, other = Row(range(18)), Row([*range(9), 77, *range(10, 18)])
    scheduler.add(again), scheduler.add(other)
    run(scheduler)
    assert (again.cached, other.cached) == (16, 8)
    assert scheduler.hit_tokens == 24


def test_the_last_token_is_computed_even_where_all_is_known() -> None:
    scheduler = made()
    for expected in (0, 12):
        row = Row(range(16))
        scheduler.add(row)
        plan = run(scheduler)
        assert row.cached == expected and plan.parts[0].n == 16 - expected
        scheduler.end(row)


def test_an_adapter_shares_nothing_with_the_network_alone() -> None:
    scheduler = made()
    for root in (b"", b"adapter x", b"adapter y"):
        row = Row(range(16), root=root)
        scheduler.add(row)
        run(scheduler)
        assert row.cached == 0
        scheduler.end(row)


def test_equal_prompts_that_come_together_are_computed_once() -> None:
    scheduler = made(budget=64)
    rows = [Row([*range(20), 100 + i]) for i in range(4)]
    for row in rows:
        scheduler.add(row)
    first, second = run(scheduler), run(scheduler)
    assert [part.row for part in first.parts] == rows[:1]
    assert [(part.start, part.n) for part in second.parts] == [(21, 1), (20, 1), (20, 1), (20, 1)]
    assert [row.cached for row in rows] == [0, 20, 20, 20]


def test_forks_share_the_prompt_and_copy_what_they_write_to() -> None:
    scheduler = made()
    row = Row(range(10))
    scheduler.add(row)
    run(scheduler, write=None)
    children = scheduler.fork(row, 2)
    for one in (row, *children):
        scheduler.write(one, 5)
    held = scheduler.blocks.n_blocks - scheduler.blocks.free
    plan = run(scheduler)
    assert held == 3, "three blocks hold one prompt, however many go on from it"
    assert [(part.start, part.n) for part in plan.parts] == [(10, 1)] * 3
    assert len(plan.copies) == 2, "the last of those who share needs no copy"
    assert len({one.blocks[2] for one in (row, *children)}) == 3
    assert {tuple(one.blocks[:2]) for one in (row, *children)} == {tuple(row.blocks[:2])}


def test_preempted_sequence_resumes() -> None:
    scheduler = made(n_blocks=8)  # 32 tokens
    early, late = Row(range(12), user="a"), Row(range(50, 62), user="b")
    scheduler.add(early), scheduler.add(late)
    while not scheduler.preemptions:
        run(scheduler, write=9)
    assert late.state == "waiting" and late.done == 0 and not late.blocks
    written = len(late.tokens)
    assert written > 12 and early.state == "running"
    scheduler.end(early)
    run(scheduler, write=9)
    assert late.state == "running" and late.tokens[:written] == [*range(50, 62), *[9] * (written - 12)]


def test_the_lowest_priority_gives_way_first() -> None:
    scheduler = made(n_blocks=9)
    low, high = Row(range(12), priority=-1), Row(range(50, 62), priority=1)
    scheduler.add(low)
    run(scheduler)
    scheduler.add(high)
    while not scheduler.preemptions:
        run(scheduler)
    assert (low.state, high.state) == ("waiting", "running")


def test_a_higher_priority_goes_first() -> None:
    scheduler = made(most=1)
    rows = [Row([i + 1], priority=priority) for i, priority in enumerate((0, 5, -5, 5))]
    for row in rows:
        scheduler.add(row)
    order = []
    for _ in rows:
        order.append(run(scheduler).parts[0].row)
        scheduler.end(order[-1])
    assert [rows.index(row) for row in order] == [1, 3, 0, 2]


def test_a_user_who_asks_for_much_does_not_hold_up_one_who_asks_for_little() -> None:
    scheduler = made(most=1)
    for i in range(50):
        scheduler.add(Row([i + 1] * 10, user="much"))
    run(scheduler)
    scheduler.add(Row([99], user="little"))
    served = []
    for _ in range(4):
        scheduler.end(scheduler.running[0])
        served.append(run(scheduler).parts[0].row.user)
    assert "little" in served[:2] and served.count("much") == 3


def test_a_row_that_waits_long_comes_before_higher_priorities() -> None:
    scheduler = made(most=1)
    old = Row([1], user="old")
    scheduler.add(Row([2], user="new", priority=2))
    scheduler.add(old)
    for step in range(1000):
        for row in list(scheduler.running):
            scheduler.end(row)
        scheduler.add(Row([3 + step], user="new", priority=2))
        if old in [part.row for part in run(scheduler).parts]:
            break
    assert 100 < step < 400


def test_nobody_is_let_in_without_blocks_for_the_whole_prompt() -> None:
    scheduler = made(n_blocks=8)
    scheduler.add(Row(range(20)))
    run(scheduler)
    big, small = Row(range(30, 50)), Row([1])
    scheduler.add(big), scheduler.add(small)
    run(scheduler)
    assert big.state == small.state == "waiting", "and nobody overtakes the one that waits for blocks"
    scheduler.end(scheduler.running[0])
    run(scheduler)
    assert big.state == "running"


def test_windows_give_back_what_nobody_looks_at() -> None:
    scheduler = made(n_blocks=16, budget=16, window=8)
    row = Row(range(100))
    assert scheduler.room > 100
    scheduler.add(row)
    for _ in range(40):
        run(scheduler, write=3)
        assert sum(block >= 0 for block in row.blocks) <= 3
    assert row.done > 100


def test_ending_frees_at_once_and_twice_does_no_harm() -> None:
    scheduler = made()
    rows = [Row(range(20), user=user) for user in "ab"]
    for row in rows:
        scheduler.add(row)
    run(scheduler)
    for row in rows + rows:
        scheduler.end(row)
    assert scheduler.blocks.free == scheduler.blocks.n_blocks and not scheduler.users and not scheduler.n_waiting


def test_the_longest_kept_block_is_given_away_first() -> None:
    blocks = Blocks(3)
    names = [chained(b"", [i]) for i in range(3)]
    for name in names:
        blocks.name(blocks.take(), name)
    for block in (1, 0, 2):
        blocks.drop(block)
    assert blocks.free == blocks.kept == 3
    blocks.hold(1)
    assert blocks.take() == 0 and blocks.find(names[0]) is None
    assert blocks.find(names[1]) == 1 and blocks.find(names[2]) == 2
    blocks.check()


def test_the_name_of_a_block_tells_all_before_it() -> None:
    assert chained(b"", [1, 2]) == chained(b"", [1, 2])
    assert len({chained(b"", [1, 2]), chained(b"x", [1, 2]), chained(b"", [2, 1]), chained(b"", [1, 2, 0])}) == 4


# Pace ----------------------------------------------------------------------------------------------------------------


def test_prompts_take_the_whole_step_where_nobody_is_answered() -> None:
    assert Pace(512).chunk(0, 3) == 512
    assert Pace(512).chunk(1, 30) == 512, "many who wait for a first word weigh more than one who waits for a next"


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_long_prompts_do_not_make_running_answers_stutter(noise: float) -> None:
    """Six prompts of 8,000 tokens, each dearer towards its end; milliseconds about those of half a billion weights."""
    pace, draw, gaps = Pace(512), random.Random(0), []

    def step(chunk: int, place: int) -> None:
        whole = 60 + 3 * place / 8000 * bool(chunk) + chunk * (1.5 + 0.5 * place / 8000)
        gaps.append(whole * (1 + noise * draw.random()))
        pace.note(4, chunk, gaps[-1])

    pace.note(0, 200, 360)
    for _ in range(6):
        for _ in range(300):
            step(0, 0)
        place = 0
        while place < 8000:
            chunk = min(pace.chunk(4, 1), 8000 - place)
            step(chunk, place)
            place += chunk
    gaps.sort()
    assert gaps[len(gaps) * 99 // 100] <= 3 * gaps[len(gaps) // 2]
    assert len(gaps) < 6 * (300 + 400), "and the prompts come in"


def test_prompts_never_stand_still() -> None:
    pace = Pace(512)
    for _ in range(50):
        pace.note(4, 0, 0.001)
        pace.note(4, 8, 1.0)
    assert pace.chunk(4, 1) == 8


def test_without_prefixes_nothing_is_taken_over() -> None:
    for prefixes in (True, False):
        scheduler = Scheduler(Blocks(64), 4, budget=32, most=4, prefixes=prefixes)
        for _ in range(2):
            row = Row(range(1, 14))
            scheduler.add(row)
            scheduler.advance(scheduler.plan())
            scheduler.end(row)
        assert scheduler.hit_tokens == (12 if prefixes else 0)
        scheduler.check()
