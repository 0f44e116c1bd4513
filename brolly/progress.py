"""How far the work has come, on standard error: a bar where a person watches, and nothing elsewhere."""

from __future__ import annotations

from typing import Any


def bar(total: float | None, unit: str, *, what: str = "", quiet: bool = False) -> Any:
    """A tqdm bar; `with bar(n, "image") as done: done.update(1)`; `done.write(text, sys.stderr)` writes above."""
    import sys

    from tqdm import tqdm

    return tqdm(
        total=total, unit=f" {unit}", desc=what or None, file=sys.stderr, disable=True if quiet else None,
        leave=False, dynamic_ncols=True, mininterval=0.2,
    )  # fmt: skip
