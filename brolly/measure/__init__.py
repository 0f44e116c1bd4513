"""How well a model does its task on rows: each task's own measures, with intervals, and two models compared."""

from __future__ import annotations

from brolly.measure.intervals import Difference, Measured
from brolly.measure.measuring import evaluate
from brolly.measure.report import Report, compare

__all__ = ["Difference", "Measured", "Report", "compare", "evaluate"]
