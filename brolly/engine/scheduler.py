"""Which rows' tokens pass through the network next. Knows blocks and steps; no tensors, no text and no clock.

A row is an answer in the making: its prompt's tokens and those written. Each step, every running answer gets its one
token; what is left of the step's tokens goes to prompts, in parts. A row is let in when the blocks of its whole prompt
are free. When blocks run out nevertheless, the last of the lowest priority gives its own back, waits, and is computed
again later from all its tokens, of which the kept blocks mostly spare it some. So it does where that makes a place for
one that asked for a higher priority, one a step.

Whose turn it is: the higher priority's; then the user's that was served least (Sheng et al. 2024, "Fairness in serving
large language models"); then the first's. Waiting raises the priority by one every AGE steps, each of a user's rows
against its others and each user against the others, and so does giving way: nobody starves.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

from brolly.engine.blocks import Blocks, chained

AGE = 100  # steps of waiting that weigh as much as one priority
PRIORITIES = 10  # priorities lie between this and its negative
WRITTEN = 2  # a token written weighs as many tokens read, in a user's share


class Row:
    """One answer in the making. The scheduler alone changes it; `payload` is its owner's."""

    def __init__(
        self, tokens: Sequence[int], *, user: str = "", priority: int = 0, root: bytes = b"", payload: Any = None
    ) -> None:
        """`root` names all that changes keys beside tokens, such as an adapter."""
        self.tokens, self.user, self.root, self.payload = list(tokens), user, root, payload
        self.priority = self.asked = max(-PRIORITIES, min(PRIORITIES, priority))
        self.state = "new"  # then "waiting", "running", "over"
        self.done = 0  # tokens whose keys are in blocks
        self.blocks = array("i")  # -1 where every layer's window has passed
        self.passed = 0  # how many of those there are
        self.digests: list[bytes] = []  # of the full blocks, as far as they were asked for
        self.cached = 0  # prompt tokens that blocks held already
        self.admitted = self.again = False  # whether it ever was, and whether its prompt was computed before
        self.order = (0, 0)
        self.born = 0  # the step before which it came

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.done

    @property
    def rank(self) -> tuple[int, int, int]:
        """Who gives way last."""
        return (-self.priority, *self.order)


class Part(NamedTuple):
    """Tokens start … start + n of a row; `copy` is a shared block and the row's own one, to be filled before."""

    row: Row
    start: int
    n: int
    copy: tuple[int, int] | None

    @property
    def last(self) -> bool:
        """Whether what follows is wanted: the row's tokens end here."""
        return self.start + self.n == len(self.row.tokens)


@dataclass
class Plan:
    """One step."""

    parts: list[Part] = field(default_factory=list)
    admitted: list[Row] = field(default_factory=list)  # for the first time
    answers: int = 0  # tokens that running answers take
    prompts: int = 0  # tokens of prompts

    @property
    def copies(self) -> list[tuple[int, int]]:
        return [part.copy for part in self.parts if part.copy]


@dataclass
class User:
    """Whose rows they are: those that wait, by what they have waited for, and the tokens served."""

    served: float
    last: int  # the step in which something was served
    n_rows: int = 0
    waiting: list[tuple[tuple[int, int, int], Row]] = field(default_factory=list)

    def head(self) -> Row | None:
        while self.waiting and self.waiting[0][1].state != "waiting":
            heappop(self.waiting)
        return self.waiting[0][1] if self.waiting else None


class Scheduler:
    """Plans steps over `blocks` of `size` tokens; `window` is the widest of all layers', None where one sees it all."""

    def __init__(
        self, blocks: Blocks, size: int, *, budget: int = 512, most: int = 64, window: int | None = None,
        prefixes: bool = True,
    ) -> None:  # fmt: skip
        """`budget` tokens a step at most, and `most` rows at a time, which the budget must hold.

        Without `prefixes` no row takes over what another has computed.
        """
        assert 0 < most <= budget
        self.blocks, self.size, self.budget, self.most, self.window = blocks, size, budget, most, window
        self.prefixes = prefixes
        self.running: list[Row] = []  # the first gives way last
        self.users: dict[str, User] = {}
        self.step = self.n_waiting = self.preemptions = self.hits = self.hit_tokens = 0
        self._numbers = 0

    @property
    def room(self) -> int:
        """Tokens that the longest row can have, whatever the context: one more than the blocks hold."""
        whole = self.blocks.n_blocks * self.size
        if self.window is not None and whole >= self.window + self.budget + 2 * self.size:
            return 2**62  # what the window has passed makes room for what comes
        return whole + 1

    @property
    def filling(self) -> int:
        """Running rows whose prompt is not through."""
        return sum(row.pending > 1 for row in self.running)

    def add(self, row: Row) -> None:
        """A new row, which waits for its turn."""
        assert row.state == "new" and 0 < len(row.tokens) < self.room
        self._numbers += 1
        row.order, row.born = (self._numbers, 0), self.step
        self._user(row).n_rows += 1
        self._wait(row)

    def fork(self, row: Row, count: int) -> list[Row]:
        """So many rows more that go on from where a running row stands, sharing its blocks."""
        assert row.state == "running"
        children = []
        for i in range(1, count + 1):
            child = Row(row.tokens, user=row.user, priority=row.priority, root=row.root)
            child.digests, child.cached, child.order = list(row.digests), row.cached, (row.order[0], i)
            child.admitted, child.born, child.asked = True, row.born, row.asked
            self.users[row.user].n_rows += 1
            if len(self.running) < self.most:
                child.done, child.blocks, child.passed = row.done, array("i", row.blocks), row.passed
                for block in child.blocks[child.passed :]:
                    self.blocks.hold(block)
                self._run(child)
            else:
                child.again = True  # what it finds later is its own row's work, not what was cached
                self._wait(child)
            children.append(child)
        return children

    def write(self, row: Row, token: int) -> None:
        """A row that was computed to its end goes on with this token."""
        assert row.state != "over"
        row.tokens.append(token)

    def end(self, row: Row) -> None:
        """A row is over, whatever it was about; its blocks are free at once. Twice does no harm."""
        if row.state == "over":
            return
        if row.state == "running":
            self.running.remove(row)
            self._release(row)
        else:
            self.n_waiting -= 1
        row.state = "over"
        user = self.users[row.user]
        user.n_rows -= 1
        if not user.n_rows:
            del self.users[row.user]

    def plan(self, chunk: int | None = None) -> Plan:
        """The next step: a token of each running answer, and up to `chunk` tokens of prompts."""
        self.step += 1
        plan, gave_way = Plan(), self.preemptions
        for row in list(self.running):
            if row.state == "running" and row.pending == 1:
                self._part(plan, row, 1)
        left = min(self.budget if chunk is None else chunk, self.budget - len(plan.parts))
        self._prompts(plan, left, gave_way)
        for part in plan.parts:
            self._charge(plan, part)
        return plan

    def advance(self, plan: Plan) -> None:
        """The step was computed: full blocks get their names, and blocks behind the window go."""
        for row, start, n, _ in plan.parts:
            if row.state == "running":
                assert row.done == start
                row.done += n
                full = row.done // self.size
                for i, digest in enumerate(self._named(row, full)[start // self.size : full], start // self.size):
                    self.blocks.name(row.blocks[i], digest)
                self._pass(row)

    # Who is next -----------------------------------------------------------------------------------------------------

    def _prompts(self, plan: Plan, left: int, gave_way: int) -> None:
        """Share out what is left of a step among prompts, those that are let in included."""
        filling: dict[str, list[Row]] = {}
        for row in self.running:
            if row.pending > 1:
                filling.setdefault(row.user, []).append(row)
        making: set[bytes] = set()  # what this very step computes: whoever needs it, too, comes in the next step
        closed: set[str] = set()
        admit = True
        while left > 0:
            heads = {}
            for name, user in self.users.items():
                heads_here = filling.get(name, [])[:1] + ([new] if admit and (new := user.head()) else [])
                if heads_here and name not in closed:
                    heads[name] = max(heads_here, key=lambda row: row.priority)
            if not heads:
                return
            name = min(heads, key=lambda name: self._turn(self.users[name], heads[name]))
            row = heads[name]
            if row in filling.get(name, ()):
                filling[name].remove(row)
                if row.state != "running":  # it gave way meanwhile
                    continue
            elif self.preemptions > gave_way or not self._let_in(plan, row):
                admit = False  # nobody overtakes who waits for blocks, or would never find them
                continue
            if self.preemptions > gave_way:
                making.clear()  # some of it was to come from rows that gave way
            self._count(row, self._reuse(row))
            first = row.done // self.size
            named = self._named(row, min((len(row.tokens) - 1) // self.size, (row.done + left) // self.size))
            if first < len(named) and named[first] in making:
                closed.add(name)
                continue
            n = self._part(plan, row, min(left, row.pending))
            left -= n
            making.update(named[first : (row.done + n) // self.size])
            self.users[name].served += n
            self.users[name].last = self.step

    def _turn(self, user: User, row: Row) -> tuple[int, float, tuple[int, int]]:
        aged = max(0, self.step - max(user.last, row.born)) // AGE
        return (-(row.priority + aged), user.served, row.order)

    def _charge(self, plan: Plan, part: Part) -> None:
        if part.n == 1 and part.row.done + 1 == len(part.row.tokens):
            plan.answers += 1
            user = self.users[part.row.user]
            user.served, user.last = user.served + WRITTEN, self.step
        else:
            plan.prompts += part.n

    def _user(self, row: Row) -> User:
        """A user who comes anew has no credit from the time of being away."""
        if row.user not in self.users:
            self.users[row.user] = User(min((u.served for u in self.users.values()), default=0.0), self.step)
        return self.users[row.user]

    def _wait(self, row: Row) -> None:
        row.state = "waiting"
        self.n_waiting += 1
        heappush(self.users[row.user].waiting, ((row.born - AGE * row.priority, *row.order), row))

    def _run(self, row: Row) -> None:
        row.state = "running"
        insort(self.running, row, key=lambda row: row.rank)

    # Blocks ----------------------------------------------------------------------------------------------------------

    def _let_in(self, plan: Plan, row: Row) -> bool:
        """Admit a waiting row; where there is no place, the last of a lower priority gives way if that makes one."""
        if len(self.running) < self.most and self._admit(plan, row):
            return True
        if not self.running or self.running[-1].priority >= row.asked:  # what it gained by giving way takes no place
            return False
        *others, victim = self.running
        freed = sum(self.blocks.holders[block] == 1 for block in victim.blocks[victim.passed :])
        if self._wanting(row) + self._promised(others) > self.blocks.free + freed:
            return False
        self._give_way(plan)
        admitted = self._admit(plan, row)  # while it is still the head of those that wait
        self._wait(victim)
        return admitted

    def _admit(self, plan: Plan, row: Row) -> bool:
        """Let a waiting row in if the blocks of its whole prompt are free, beside those promised to others."""
        gained = self._reuse(row)
        if self._wanting(row) + self._promised(self.running) > self.blocks.free:
            self._release(row)
            return False
        heappop(self.users[row.user].waiting)
        self.n_waiting -= 1
        self._run(row)
        self._count(row, gained)
        if not row.admitted:
            row.admitted = True
            plan.admitted.append(row)
        return True

    def _count(self, row: Row, gained: int) -> None:
        if gained:
            self.hits, self.hit_tokens = self.hits + 1, self.hit_tokens + gained
            if not row.again:
                row.cached += gained

    def _promised(self, rows: Sequence[Row]) -> int:
        """Blocks that rows still need for the tokens they have, and one more each."""
        return sum(self._wanting(row) for row in rows) + len(rows)

    def _wanting(self, row: Row) -> int:
        """Blocks that a row still needs for the tokens it has."""
        whole = -(-len(row.tokens) // self.size) - len(row.blocks)
        if self.window is None:
            return max(0, whole)
        most = -(-(self.window + self.budget) // self.size) + 1
        return max(0, min(whole, most - (len(row.blocks) - row.passed)))

    def _part(self, plan: Plan, row: Row, n: int) -> int:
        """Plan a row's next n tokens, or none (0) if it had to give way itself."""
        copy = None
        if row.done % self.size and self.blocks.holders[shared := row.blocks[row.done // self.size]] > 1:
            if not self._free_one(plan, row):
                return 0
            if self.blocks.holders[shared] > 1:  # those that shared it may have given way
                own = row.blocks[row.done // self.size] = self.blocks.take()
                self.blocks.drop(shared)
                copy = (shared, own)
        while len(row.blocks) * self.size < row.done + n:
            if not self._free_one(plan, row):
                return 0
            row.blocks.append(self.blocks.take())
        plan.parts.append(Part(row, row.done, n, copy))
        return n

    def _free_one(self, plan: Plan, row: Row) -> bool:
        """See that a block is free; False where `row` itself is the one that must give way for it."""
        while not self.blocks.free:
            victim = self._give_way(plan)
            self._wait(victim)
            if victim is row:
                return False
        return True

    def _give_way(self, plan: Plan) -> Row:
        """The last of those that run gives its blocks back, and is to wait."""
        victim = self.running.pop()
        plan.parts = [part for part in plan.parts if part.row is not victim]
        self._release(victim)
        self.preemptions += 1
        victim.priority, victim.again = min(victim.priority + 1, PRIORITIES), True
        return victim

    def _release(self, row: Row) -> None:
        """Give all blocks back, the last ones first, as others are likelier to begin alike than to go on alike."""
        for block in reversed(row.blocks[row.passed :]):
            self.blocks.drop(block)
        row.blocks, row.done, row.passed = array("i"), 0, 0

    def _pass(self, row: Row) -> None:
        """Give back what no layer will look at again."""
        for i in range(row.passed, min(self._first(row.done), len(row.blocks))):
            if row.blocks[i] >= 0:
                self.blocks.drop(row.blocks[i])
            row.blocks[i], row.passed = -1, i + 1

    def _first(self, position: int) -> int:
        """The first block that a query at this position looks at."""
        return 0 if self.window is None else max(0, position - self.window + 1) // self.size

    def _reuse(self, row: Row) -> int:
        """Take over blocks that hold the row's next tokens already, and tell how many tokens that spares.

        The last token is computed in any case, for what follows it.
        """
        if not self.prefixes:
            return 0
        own, last = row.done // self.size, (len(row.tokens) - 1) // self.size
        best, unbroken = own, row.passed
        for i, digest in enumerate(self._named(row, last)[own:last], own):
            if self.blocks.find(digest) is None:
                unbroken = i + 1
                if self.window is None:
                    break
            elif unbroken <= self._first((i + 1) * self.size):
                best = i + 1
        if best == own:
            return 0
        first, gained = self._first(best * self.size), best * self.size - row.done
        found = [self.blocks.find(d) if i >= first else None for i, d in enumerate(row.digests[:best])][own:]
        for block in found:
            if block is not None:
                self.blocks.hold(block)
        for block in row.blocks[max(own, row.passed) :]:  # the one that it had begun to fill
            self.blocks.drop(block)
        row.blocks = row.blocks[:own] + array("i", [-1 if block is None else block for block in found])
        row.done = best * self.size
        self._pass(row)
        return gained

    def _named(self, row: Row, n: int) -> list[bytes]:
        """The names of a row's first n blocks, all of them full, and maybe of some more."""
        for i in range(len(row.digests), n):
            before = row.digests[-1] if row.digests else row.root
            row.digests.append(chained(before, row.tokens[i * self.size : (i + 1) * self.size]))
        return row.digests

    def check(self) -> None:
        """Raises AssertionError where the books do not add up: for tests."""
        self.blocks.check()
        holders = [0] * self.blocks.n_blocks
        for row in self.running:
            assert row.state == "running" and row.pending > 0 and row.user in self.users
            assert all(block == -1 for block in row.blocks[: row.passed]) and -1 not in row.blocks[row.passed :]
            assert row.done <= len(row.blocks) * self.size < row.done + self.size
            for block in row.blocks[row.passed :]:
                holders[block] += 1
        assert holders == self.blocks.holders, "a block leaked"
        assert self.running == sorted(self.running, key=lambda row: row.rank) and len(self.running) <= self.most
