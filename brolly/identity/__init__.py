"""Header to card: what a model is, how big, whose, under which rules. Standard library only, no torch."""

from __future__ import annotations
