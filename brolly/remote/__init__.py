"""The same verbs over HTTP, for models that run elsewhere: closed ones, and any OpenAI-compatible address.

    reference → Target (vendor, address, model) → Remote (the verbs) → Ask → a dialect's Call → Client → events → Pieces

Importing this imports neither httpx nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brolly.remote.target import Target, is_remote, parse

if TYPE_CHECKING:
    from brolly.remote.model import Remote as Remote

__all__ = ["Remote", "Target", "is_remote", "parse"]


def __getattr__(name: str) -> Any:
    if name == "Remote":
        from brolly.remote.model import Remote

        return Remote
    raise AttributeError(f"module 'brolly.remote' has no attribute {name!r}")
