"""Drives the scheduler through random steps of a network that is a hash: `python -m tests.engine.drive --steps 100000`.

The network's value at a position is made of the value that it finds in memory before it. A block that was taken from a
row too soon, shared with the wrong one, not copied, or given twice shows as a wrong value.
"""

from __future__ import annotations

import argparse
import random
import zlib
from dataclasses import dataclass

from brolly.engine.blocks import Blocks
from brolly.engine.scheduler import Plan, Row, Scheduler

SIZE = 4
QUEUE = 40  # rows at a time, running or not
PATIENCE = 4000  # steps after which a row has starved; a queue as long as this one takes some hundred


def mix(before: int, token: int, place: int) -> int:
    return zlib.crc32(f"{before},{token},{place}".encode())


def values(root: bytes, tokens: list[int], known: list[int] | None = None) -> list[int]:
    """What memory should hold of each token."""
    found = known if known is not None else []
    for place in range(len(found), len(tokens)):
        found.append(mix(found[-1] if found else zlib.crc32(root), tokens[place], place))
    return found


@dataclass
class Told:
    """What a test knows of a row."""

    prompt: list[int]
    most: int
    forks: int
    born: int
    expected: list[int]


class Drive:
    """A scheduler, its network and everything that may happen to them."""

    def __init__(self, seed: int = 0, n_blocks: int = 40, window: int | None = None, most: int = 8) -> None:
        self.random = random.Random(seed)
        self.blocks = Blocks(n_blocks)
        self.scheduler = Scheduler(self.blocks, SIZE, budget=24, most=most, window=window)
        self.memory = [[0] * SIZE for _ in range(n_blocks)]
        self.rows: list[Row] = []
        self.finished = self.cancelled = self.oldest = 0
        self.window = window

    def add(
        self, prompt: list[int], most: int, *, user: str = "", priority: int = 0, root: bytes = b"", forks: int = 0
    ) -> None:
        """A request, if it can ever fit."""
        most = min(most, self.scheduler.room - len(prompt))
        if most < 1:
            return
        told = Told(prompt, most, forks, self.scheduler.step, values(root, prompt))
        row = Row(prompt, user=user, priority=priority, root=root, payload=told)
        self.scheduler.add(row)
        self.rows.append(row)

    def step(self, chunk: int | None = None, fails: bool = False) -> Plan:
        """One pass of everything planned."""
        scheduler = self.scheduler
        plan = scheduler.plan(chunk)
        assert plan.parts or not self.rows, "rows wait and none is computed"
        assert sum(part.n for part in plan.parts) <= scheduler.budget
        assert len({id(part.row) for part in plan.parts}) == len(plan.parts)
        if fails:
            for part in plan.parts:
                self.end(part.row)
            return plan
        self._pass(plan)
        scheduler.advance(plan)
        for part in plan.parts:
            if part.last:
                self._write(part.row)
        scheduler.check()
        for row in self.rows:
            self.oldest = max(self.oldest, scheduler.step - row.payload.born)
        assert self.oldest < PATIENCE, "a row starved"
        return plan

    def end(self, row: Row) -> None:
        self.scheduler.end(row)
        self.rows.remove(row)

    def _pass(self, plan: Plan) -> None:
        memory = [list(block) for block in self.memory]
        for source, target in plan.copies:
            self.memory[target] = list(memory[source])
        for row, start, n, _ in plan.parts:
            assert 0 < n <= len(row.tokens) - start
            for place in range(start, start + n):
                before = self._read(row, place - 1) if place else zlib.crc32(row.root)
                block = row.blocks[place // SIZE]
                assert self.blocks.holders[block] == 1, "written to a shared block"
                self.memory[block][place % SIZE] = mix(before, row.tokens[place], place)
        for row, start, n, _ in plan.parts:
            expected = values(row.root, row.tokens, row.payload.expected)
            first = 0 if self.window is None else max(0, start - self.window + 1)
            for place in range(first, start + n):
                assert self._read(row, place) == expected[place], "memory does not hold what the row wrote"

    def _read(self, row: Row, place: int) -> int:
        block = row.blocks[place // SIZE]
        assert block >= 0, "a block that is looked at was given back"
        return self.memory[block][place % SIZE]

    def _write(self, row: Row) -> None:
        told: Told = row.payload
        rows = [row]
        if told.forks:
            children = self.scheduler.fork(row, told.forks)
            for child in children:
                child.payload = Told(told.prompt, told.most, 0, told.born, list(told.expected))
            self.rows += children
            rows, told.forks = [row, *children], 0
        for i, one in enumerate(rows):
            self.scheduler.write(one, values(one.root, one.tokens, one.payload.expected)[-1] % 7 + i)
            if len(one.tokens) - len(one.payload.prompt) == one.payload.most:
                self.end(one)
                self.finished += 1

    def anything(self) -> None:
        """Something random, and a step."""
        r = self.random
        while len(self.rows) < QUEUE and r.random() < 0.3:
            shared = [r.choice((1, 2)) for _ in range(r.choice((0, 0, 8, 21, 60)))] if r.random() < 0.5 else [5] * 30
            prompt = shared[: r.randrange(1, 61)] + [r.randrange(9) for _ in range(r.randrange(1, 30))]
            self.add(
                prompt, r.choice((1, 3, 20, 80)), user=r.choice("abbbbb"), priority=r.choice((0, 0, 0, 3, -3)),
                root=r.choice((b"", b"", b"adapter")), forks=r.choice((0, 0, 0, 0, 1, 4)),
            )  # fmt: skip
        if self.rows and r.random() < 0.03:
            self.end(r.choice(self.rows))
            self.cancelled += 1
        self.step(r.choice((None, 1, 5, 16)), fails=r.random() < 0.002)

    def drain(self) -> None:
        """Everything to its end: then no block is held."""
        while self.rows:
            self.step()
        assert not any(self.blocks.holders) and self.blocks.free == self.blocks.n_blocks
        assert not self.scheduler.users and not self.scheduler.n_waiting and not self.scheduler.running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kinds = [(40, None, 8), (28, None, 12), (14, 9, 8), (200, None, 24)]
    for i, (n_blocks, window, most) in enumerate(kinds):
        drive = Drive(asked.seed + i, n_blocks, window, most)
        for _ in range(asked.steps // len(kinds)):
            drive.anything()
        drive.drain()
        s = drive.scheduler
        print(
            f"{n_blocks} blocks, window {window}: {s.step:,} steps, {drive.finished:,} answers, {drive.cancelled:,} "
            f"cancelled, {s.preemptions:,} gave way, {s.hit_tokens:,} tokens reused; the longest took {drive.oldest}"
        )


if __name__ == "__main__":
    main()
