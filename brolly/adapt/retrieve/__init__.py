"""Documents → an index → answers with their sources. Names come when asked for: who reads PDFs needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brolly.adapt.retrieve.answer import Answer as Answer
    from brolly.adapt.retrieve.answer import Citation as Citation
    from brolly.adapt.retrieve.answer import ask as ask
    from brolly.adapt.retrieve.index import Changes as Changes
    from brolly.adapt.retrieve.index import Index as Index
    from brolly.adapt.retrieve.store import Hit as Hit

_HOMES = {
    "Answer": "answer",
    "Changes": "index",
    "Citation": "answer",
    "Hit": "store",
    "Index": "index",
    "ask": "answer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'brolly.adapt.retrieve' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"brolly.adapt.retrieve.{_HOMES[name]}"), name)
