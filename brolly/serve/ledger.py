"""What each model takes of the memory, and which go when another needs room. Knows numbers and a clock, no models."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False)
class Share:
    """One model's share of the memory, and how it is used."""

    n_bytes: int = 0  # reserved while it is loading, then held; 0: it has none
    cache_bytes: int = 0  # of these, a language model's keys and values
    ready: bool = False  # loaded; what is still loading cannot be asked to go
    uses: int = 0  # requests that run on it or wait for it
    used_at: float = 0.0  # when the last one ended
    keep_alive: float = -1.0  # seconds that it stays idle; below 0: for ever
    pinned: bool = False
    leaving: bool = False  # takes no new requests, because another model has waited long for its place

    def until(self) -> float | None:
        """When it goes if nobody uses it before; None while it is used, is pinned or may stay for ever."""
        stays = self.uses or self.pinned or self.keep_alive < 0 or not self.ready
        return None if stays else self.used_at + self.keep_alive


class Ledger:
    """The shares of one memory of `total` bytes. The sum of what is promised never exceeds it."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.clock = total, clock
        self.shares: list[Share] = []

    @property
    def used(self) -> int:
        return sum(share.n_bytes for share in self.shares)

    def victims(self, n_bytes: int, *, busy: bool = False) -> list[Share] | None:
        """Whose going makes room for so many bytes: the least recently used that suffice; None where nobody's does.

        With `busy`, those that are in use count too, after all that are not.
        """
        missing = n_bytes + self.used - self.total
        if missing <= 0:
            return []
        may = [a for a in self.shares if a.ready and a.n_bytes and not a.pinned and (busy or not a.uses)]
        chosen: list[Share] = []
        for share in sorted(may, key=lambda a: (a.uses > 0, a.used_at)):
            if missing <= 0:
                break
            chosen.append(share)
            missing -= share.n_bytes
        if missing > 0:
            return None
        for share in reversed(chosen[:-1]):  # a large one at the end may make smaller ones' going needless
            if missing + share.n_bytes <= 0:
                chosen.remove(share)
                missing += share.n_bytes
        return chosen

    def over(self) -> list[Share]:
        """Who must go because models turned out larger than predicted: idle ones only, as many as help."""
        over, found = self.used - self.total, []
        idle = [a for a in self.shares if a.ready and a.n_bytes and not a.pinned and not a.uses]
        for share in sorted(idle, key=lambda a: a.used_at):
            if over <= 0:
                break
            found.append(share)
            over -= share.n_bytes
        return found

    def expired(self) -> list[Share]:
        """Whose time has run out."""
        now = self.clock()
        return [a for a in self.shares if (until := a.until()) is not None and until <= now]

    def reserve(self, share: Share, n_bytes: int) -> None:
        """Promise bytes to a model that is about to be loaded."""
        assert not share.n_bytes and self.used + n_bytes <= self.total, "victims() comes first"
        share.n_bytes = n_bytes

    def enter(self, share: Share) -> None:
        share.uses += 1

    def leave(self, share: Share) -> None:
        assert share.uses > 0
        share.uses -= 1
        share.used_at = self.clock()

    def clear(self, share: Share) -> None:
        """It holds nothing any more."""
        share.n_bytes = share.cache_bytes = 0
        share.ready = share.leaving = False
