"""Fine-tuning: people's rows → examples → steps → an adapter in PEFT's layout, or a whole model."""

from __future__ import annotations

from brolly.train.tuning.merge import merge
from brolly.train.tuning.tune import tune

__all__ = ["merge", "tune"]
