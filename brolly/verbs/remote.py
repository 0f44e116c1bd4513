"""Models that run elsewhere: how they are asked, whatever the verb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from brolly.verbs.options import check_ranges, option


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """Manners towards a vendor."""

    strict: bool = option(False, "refuse what a vendor has no word for, where otherwise a warning would do (seed …)")
    max_cost: float | None = option(None, "US dollars that may be spent before it is refused to go on", low=0)
    price: str | None = option(None, "US dollars a million tokens, read and written, such as 1.25,10: for --max-cost")
    retries: int = option(2, "tries behind the first where that is safe: refused connections, 429, 5xx", low=0, high=20)
    connect_seconds: float = option(10.0, "to reach the vendor", low=0.1, high=3600)
    silence_seconds: float = option(300.0, "that may pass without a byte", low=0.1, high=86400)
    concurrency: int = option(1024, "requests open at a time to one vendor", low=1, high=100_000)
    rate: float | None = option(None, "requests begun a minute with one vendor", low=0.001)

    def __post_init__(self) -> None:
        check_ranges(self)


class Remotely(TypedDict, total=False):
    """RemoteOptions as keyword arguments."""

    strict: bool
    max_cost: float | None
    price: str | None
    retries: int
    connect_seconds: float
    silence_seconds: float
    concurrency: int
    rate: float | None
