"""One suite for every model and every way to reach it: does it answer, stream, call tools, stop, and refuse alike?

brolly doctor --conformance MODEL
"""

from __future__ import annotations

from brolly.conformance.report import markdown, table
from brolly.conformance.suite import CHECKS, Check, Outcome, examine
from brolly.conformance.ways import WAYS, Way, ways_of

__all__ = ["CHECKS", "Check", "Outcome", "WAYS", "Way", "examine", "markdown", "table", "ways_of"]
