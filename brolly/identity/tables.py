"""What identification knows: the files of data/, each read once, when it is first asked for."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


@cache
def table(name: str) -> Any:
    """The values of one JSON file of data/."""
    return json.loads((DATA / name).read_bytes())
