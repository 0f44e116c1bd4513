"""Compiles byte code when brolly is installed in place, as pip does for every other installation."""

from __future__ import annotations

import compileall
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compile(BuildHookInterface):  # type: ignore[type-arg]
    """`pip install -e .` leaves .pyc files beside the sources, whatever PYTHONDONTWRITEBYTECODE says of later runs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            compileall.compile_dir(Path(self.root) / "brolly", quiet=2)
