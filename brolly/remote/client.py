"""HTTP to one vendor: keys, connections, retries, limits, timeouts, server-sent events. Knows no dialect."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from brolly.remote.dialect import Call, Told
from brolly.remote.target import Target
from brolly.verbs import RemoteOptions

Teller = Callable[[Any], Told]


class Client:
    """Connections to one target. One object serves several event loops; nothing is opened before the first call."""

    def __init__(self, target: Target, manners: RemoteOptions) -> None:
        self.target, self.manners = target, manners

    async def json(self, call: Call, told: Teller) -> Any:
        """The parsed body of an answer. Raises RemoteError's kinds, Busy, NotFound, ContextTooLong, OptionError."""
        raise NotImplementedError

    async def bytes(self, call: Call, told: Teller) -> tuple[bytes, str]:
        """An answer's body, and its media type."""
        raise NotImplementedError

    async def events(self, call: Call, told: Teller) -> AsyncGenerator[list[tuple[str, Any]], None]:
        """Server-sent events as (name, parsed JSON), as many as came together; closing this closes the connection."""
        raise NotImplementedError
        yield []

    async def aclose(self) -> None:
        """Close what is open on every loop."""
