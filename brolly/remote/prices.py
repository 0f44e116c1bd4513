"""What an answer costs, by a dated table with sources; None wherever the table does not know."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from dataclasses import dataclass
from datetime import date
from functools import cache

from brolly.errors import BudgetSpent, OptionError
from brolly.remote.target import Target
from brolly.remote.traits import concerns
from brolly.remote.vendors import DATA
from brolly.verbs import Usage

MILLION = 1_000_000
LONG = 2.0  # of the price of reading: what Anthropic takes for an hour in its cache, the dearest there is


@dataclass(frozen=True)
class Price:
    """US dollars a million tokens: read, written, read from the vendor's cache, put into it for as short as it goes.

    Of a prompt of more than `over` tokens, `then` is the price of all.
    """

    read: float
    write: float
    cached: float | None = None  # None: as `read`
    stored: float | None = None
    over: int | None = None
    then: Price | None = None
    heard: float | None = None  # read as sound, where that is another price
    until: str = ""  # the last day on which it is known to hold
    source: str = ""
    seen: str = ""  # the day on which the source said so

    def of(self, usage: Usage) -> float:
        """US dollars."""
        if self.over is not None and self.then is not None and usage.prompt_tokens > self.over:
            return self.then.of(usage)
        fresh = usage.prompt_tokens - usage.cached_tokens - usage.written_tokens
        cached = self.read if self.cached is None else self.cached
        stored = self.read if self.stored is None else self.stored
        read = fresh * self.read + usage.cached_tokens * cached + usage.written_tokens * stored
        return (read + usage.completion_tokens * self.write) / MILLION

    def at_most(self, usage: Usage, long: bool = False) -> float:
        """US dollars, however much of it is heard or put into the cache, also for as `long` as that keeps it."""
        if self.over is not None and self.then is not None and usage.prompt_tokens > self.over:
            return self.then.at_most(usage, long)
        dearest = max(self.read * (LONG if long else 1), self.stored or 0.0, self.heard or 0.0)
        return (usage.prompt_tokens * dearest + usage.completion_tokens * self.write) / MILLION


@cache
def rows() -> tuple[tuple[str, Price], ...]:
    """Patterns of "vendor:model", the first that matches wins."""
    found = []
    for row in json.loads((DATA / "prices.json").read_text())["prices"]:
        match, then = row.pop("match"), row.pop("then", None)
        found.append((match, Price(**row, then=Price(**then) if then else None)))
    return tuple(found)


def price_of(target: Target, stated: str | None = None) -> Price | None:
    """The stated price ("1.25,10"), else the table's; None where nobody knows. Raises OptionError."""
    if stated is not None:
        try:
            read, write = (float(part) for part in stated.split(","))
        except ValueError:
            read = write = -1.0
        if not (0 <= read < 1e9 and 0 <= write < 1e9):
            raise OptionError(f"price is {stated!r:.40}; expected dollars a million tokens, read and written: 1.25,10.")
        return Price(read, write, source="stated")
    vendor, name = target.vendor.name, f"{target.vendor.name}:{target.model}"
    found = next((price for match, price in rows() if concerns(match, vendor) and re.fullmatch(match, name)), None)
    return found if found is None or not found.until or date.today().isoformat() <= found.until else None


def dollars(amount: float) -> str:
    """As an error tells them: four decimals, or the first two that are not 0."""
    decimals = max(4, 1 - math.floor(math.log10(amount))) if amount > 0 else 4
    return f"${amount:.{min(decimals, 15)}f}"


class Budget:
    """Dollars that may be spent, over all requests of one process or server. For any thread."""

    def __init__(self, most: float | None = None) -> None:
        self.most, self.spent, self._held = most, 0.0, 0.0
        self.unknown = 0  # requests whose price nobody knows
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Budget({self.most}, spent={self.spent}, unknown={self.unknown})"

    def pays(self, price: Price | None) -> int | None:
        """Tokens of one answer that nine tenths of what is left pay for; None: there is no limit, or no price."""
        if self.most is None or price is None or price.write <= 0:
            return None
        dearest = max(price.write, price.then.write if price.then else 0.0)
        return max(0, int(0.9 * (self.most - self.spent) * MILLION / dearest))

    def hold(self, at_most: float | None, name: str) -> float:
        """Set aside what a request can cost. Raises BudgetSpent, OptionError where the price is unknown."""
        if self.most is None:
            return 0.0
        if at_most is None:
            raise OptionError(
                f"what {name} costs is not known here, so max_cost cannot be kept; state its price, such as 1.25,10: "
                "dollars a million tokens, read and written."
            )
        with self._lock:
            if self.spent + self._held + at_most > self.most:
                raise BudgetSpent(
                    f"{dollars(self.spent)} of {dollars(self.most)} are spent and the next answer may cost "
                    f"{dollars(at_most)}; raise max_cost, or say fewer max_tokens."
                )
            self._held += at_most
        return at_most

    async def room(self, at_most: float | None, name: str) -> float:
        """The same, behind the requests that are open where only what they may cost is in the way."""
        while self.most is not None and at_most is not None:
            with self._lock:
                if self._held <= 0 or not self.spent + at_most <= self.most < self.spent + self._held + at_most:
                    break
            await asyncio.sleep(0.02)
        return self.hold(at_most, name)

    def settle(self, held: float, cost: float | None) -> None:
        """What it did cost, in place of what was set aside; None where that is not known."""
        with self._lock:
            self._held -= held
            self.spent += cost or 0.0
            self.unknown += cost is None


class Tab:
    """What one request may cost, set aside until it is known. One that was sent and came to nothing may have cost it.

    The client says `sent` as a try goes out, and takes it back where the vendor answers that it did nothing.
    """

    def __init__(self, budget: Budget, most: float | None, name: str) -> None:
        self.budget, self.most, self.name = budget, most, name
        self.held, self.sent, self.closed = 0.0, False, False

    async def open(self) -> None:
        """Raises BudgetSpent, OptionError."""
        self.held = await self.budget.room(self.most, self.name)

    def again(self) -> bool:
        """Whether there is room for another try, beside what the last one may have cost."""
        if not self.sent:
            return True
        self.budget.settle(self.held, self.held or None)
        self.held, self.sent = 0.0, False
        try:
            self.held = self.budget.hold(self.most, self.name)
        except BudgetSpent:
            return False
        return True

    def close(self, cost: float | None = None) -> None:
        """It is over, and what it did cost; None: that is not known. What is said later changes nothing."""
        if self.closed:
            return
        self.closed = True
        if cost is None:
            cost = (self.held or None) if self.sent else 0.0
        self.budget.settle(self.held, cost)
