"""Which objective a network that is no language model learns by, from rows of a shape."""

from __future__ import annotations

from typing import Any

from brolly.configs import ImageEncoderConfig, TextEncoderConfig
from brolly.train.tuning.objectives import Objective, Usual
from brolly.verbs import TuneOptions


def usual(n_examples: int, batch: int, steps: int, width: int, full: bool) -> Usual:
    """At least three epochs, and so many steps, at a rate for a network of so many channels: wide ones want less.

    docs/tune-kinds.md tells how the rates were found.
    """
    batch = min(batch, n_examples)
    lr = 1e-4 * 192 / width if full else 1e-3 * (192 / width) ** 0.65
    return Usual(batch, max(3.0, steps * batch / n_examples), float(f"{lr:.2g}"))


def of_kind(model: Any, shape: str, options: TuneOptions) -> Objective | None:
    """The objective of a pair of towers, an embedder of texts or a Whisper; None for all others."""
    network, config = model.network, model.network.config
    both = getattr(config, "vision", None) is not None and getattr(config, "text", None) is not None
    if shape in ("caption", "label") and both:
        from brolly.train.tuning.objectives.contrastive import Captions

        return Captions(model, options)
    if shape == "label" and isinstance(config, (ImageEncoderConfig, TextEncoderConfig)):
        from brolly.train.tuning.objectives.labels import Labels

        return Labels(model, options)
    if shape == "pair" and getattr(config, "pool", None) is not None and hasattr(network, "texts"):
        from brolly.train.tuning.objectives.contrastive import Answers

        return Answers(model, options)
    if shape == "speech" and "transcribe" in model.card.recognised.tasks:
        from brolly.train.tuning.objectives.speech import Speech

        return Speech(model, options)
    return None
