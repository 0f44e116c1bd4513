"""Which objective a network that is no language model learns by, from rows of a shape."""

from __future__ import annotations

from typing import Any

from brolly.configs import ImageEncoderConfig, TextEncoderConfig
from brolly.train.tuning.objectives import Objective
from brolly.verbs import TuneOptions


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
