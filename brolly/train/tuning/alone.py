"""A folder that one run at a time writes into: a lock on the folder itself, which ends with the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brolly.errors import RecipeError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others out of a folder, where system and disk have locks. Raises RecipeError where another is in it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    if os.environ.get("RANK", "0") != "0":  # the first of many holds it for all
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(f"another run writes into {folder}; wait for its end, or give another --out.") from None
        except OSError:
            pass  # a disk without locks
        yield
    finally:
        os.close(opened)
