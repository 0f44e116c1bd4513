"""Servers that speak as the vendors do, written from their published references. No answer here is recorded."""

from __future__ import annotations

from tests.remote.fakes.script import Called, Says, Talk, Tool, Turn, instance, says, words
from tests.remote.fakes.server import CUT, STALL, Fake, Part, Reply, Request, sse

KEY = "sk-test-4f9b7c21d8e05a63"  # the only key that fakes take; tests look for it in every output

__all__ = [
    "CUT",
    "KEY",
    "STALL",
    "Called",
    "Fake",
    "Part",
    "Reply",
    "Request",
    "Says",
    "Talk",
    "Tool",
    "Turn",
    "instance",
    "says",
    "sse",
    "words",
]
