"""A row that cannot be used: where it stands, and why."""

from __future__ import annotations

from typing import Any

from brolly.errors import RecipeError


class RowFault(RecipeError):
    """One bad row; the others go on. `where` is its place ("data.jsonl, line 7"), `message` what is wrong."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where, self.message = where, message

    def __reduce__(self) -> tuple[Any, ...]:
        return RowFault, (self.where, self.message)
