"""The ledger of memory: what is promised fits, the least recently used go, nobody who is used or pinned does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brolly.serve.ledger import Ledger, Share


def ledger(total: int, *shares: Share) -> Ledger:
    found = Ledger(total, clock=lambda: 100.0)
    found.shares = list(shares)
    return found


def share(n_bytes: int, used_at: float = 0.0, **more: object) -> Share:
    return Share(n_bytes, ready=True, used_at=used_at, **more)  # type: ignore[arg-type]


def test_nobody_goes_while_there_is_room() -> None:
    assert ledger(100, share(40)).victims(60) == []


def test_the_least_recently_used_goes_first() -> None:
    old, new = share(40, used_at=1), share(40, used_at=2)
    assert ledger(100, new, old).victims(50) == [old]


def test_a_large_one_spares_the_small_ones_before_it() -> None:
    small, large = share(10, used_at=1), share(80, used_at=2)
    assert ledger(100, small, large).victims(60) == [large]


@pytest.mark.parametrize("stays", [{"uses": 1}, {"pinned": True}, {"ready": False}])
def test_who_is_used_or_pinned_or_still_loading_stays(stays: dict[str, object]) -> None:
    kept = Share(80, **({"ready": True} | stays))  # type: ignore[arg-type]
    assert ledger(100, kept).victims(60) is None


def test_those_in_use_are_asked_after_the_idle_ones() -> None:
    idle, used = share(40, used_at=9), share(40, used_at=1, uses=2)
    both = ledger(100, used, idle)
    assert both.victims(50, busy=True) == [idle]
    assert both.victims(90, busy=True) == [idle, used]


def test_what_is_larger_than_all_has_no_victims() -> None:
    assert ledger(100, share(40)).victims(101) is None


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"keep_alive": 10}, True),
        ({"keep_alive": 0}, True),
        ({"keep_alive": 95}, False),
        ({"keep_alive": -1}, False),
        ({"keep_alive": 10, "pinned": True}, False),
        ({"keep_alive": 10, "uses": 1}, False),
    ],
)
def test_time_runs_out_for_the_idle_only(changes: dict[str, object], gone: bool) -> None:
    one = share(40, used_at=10, **changes)
    assert ledger(100, one).expired() == [one] * gone


def test_an_overdrawn_memory_sends_idle_models_away() -> None:
    old, new, used = share(50, used_at=1), share(50, used_at=2), share(50, uses=1)
    assert ledger(120, used, new, old).over() == [old]
    assert ledger(60, used, new, old).over() == [old, new]


@given(
    total=st.integers(1, 100),
    wanted=st.integers(1, 100),
    shares=st.lists(
        st.builds(
            Share, st.integers(0, 40), ready=st.booleans(), uses=st.integers(0, 2), used_at=st.integers(0, 9),
            pinned=st.booleans(),
        ),
        max_size=8,
    ),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_victims_suffice_and_none_is_needless(total: int, wanted: int, shares: list[Share]) -> None:
    book = ledger(total, *shares)
    free = total - book.used
    may = [s for s in shares if s.ready and not s.uses and not s.pinned]
    found = book.victims(wanted)
    if found is None:
        assert free + sum(s.n_bytes for s in may) < wanted
        return
    assert set(found) <= set(may) and len(set(found)) == len(found)
    freed = sum(s.n_bytes for s in found)
    assert free + freed >= wanted
    assert all(free + freed - s.n_bytes < wanted for s in found)


class Life(RuleBasedStateMachine):
    """Models come, are used and go, in any order; the sum never exceeds the memory."""

    @initialize(total=st.integers(10, 60), n=st.integers(1, 5))
    def begin(self, total: int, n: int) -> None:
        self.now = 0.0
        self.book = Ledger(total, clock=lambda: self.now)
        self.book.shares = [Share(keep_alive=5.0) for _ in range(n)]

    @rule(which=st.integers(0, 4), n_bytes=st.integers(1, 40), pinned=st.booleans())
    def load(self, which: int, n_bytes: int, pinned: bool) -> None:
        one = self.book.shares[which % len(self.book.shares)]
        if one.n_bytes:
            return
        victims = self.book.victims(n_bytes)
        if victims is None:
            return
        assert not any(v.uses or v.pinned for v in victims)
        for victim in victims:
            self.book.clear(victim)
        self.book.reserve(one, n_bytes)
        one.ready, one.pinned, one.used_at = True, pinned, self.now

    @rule(which=st.integers(0, 4))
    def use(self, which: int) -> None:
        one = self.book.shares[which % len(self.book.shares)]
        if one.ready:
            self.book.enter(one)

    @rule(which=st.integers(0, 4))
    def leave(self, which: int) -> None:
        one = self.book.shares[which % len(self.book.shares)]
        if one.uses:
            self.book.leave(one)

    @precondition(lambda self: hasattr(self, "book"))
    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for one in self.book.expired():
            assert not one.uses and not one.pinned and one.used_at + 5.0 <= self.now
            self.book.clear(one)

    @invariant()
    def within(self) -> None:
        if hasattr(self, "book"):
            assert 0 <= self.book.used <= self.book.total


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
