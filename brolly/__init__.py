"""One runtime for every kind of foundation model. Importing this imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from brolly.adapt.prompt import Prompt as Prompt
    from brolly.adapt.retrieve import Answer as Answer
    from brolly.adapt.retrieve import Index as Index
    from brolly.adapt.retrieve import ask as ask
    from brolly.identity import Card as Card
    from brolly.loader import load as load
    from brolly.model import Model as Model
    from brolly.remote import Remote as Remote
    from brolly.remote.card import identify as identify
    from brolly.train.tuning.merge import merge as merge
    from brolly.train.tuning.tune import tune as tune
    from brolly.verbs import Adapter as Adapter
    from brolly.verbs import GenerateOptions as GenerateOptions
    from brolly.verbs import Generation as Generation
    from brolly.verbs import Lora as Lora

_HOMES = {
    "Adapter": "brolly.verbs",
    "Answer": "brolly.adapt.retrieve",
    "Card": "brolly.identity",
    "GenerateOptions": "brolly.verbs",
    "Generation": "brolly.verbs",
    "Index": "brolly.adapt.retrieve",
    "Lora": "brolly.verbs",
    "Model": "brolly.model",
    "Prompt": "brolly.adapt.prompt",
    "Remote": "brolly.remote",
    "ask": "brolly.adapt.retrieve",
    "errors": "brolly.errors",
    "identify": "brolly.remote.card",
    "load": "brolly.loader",
    "merge": "brolly.train.tuning.merge",
    "tune": "brolly.train.tuning.tune",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'brolly' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_HOMES[name])
    value = module if name == "errors" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
