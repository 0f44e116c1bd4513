"""Bytes to Header, then tensors lazily. Standard library only, no torch; a header never reads a tensor's bytes."""

from __future__ import annotations

import os
from pathlib import Path

from brolly.card import Header
from brolly.checkpoint.bounded import json_object
from brolly.checkpoint.folders import read_folder, read_index
from brolly.checkpoint.formats import EXPECTED, read_file
from brolly.checkpoint.mapped import Mapped
from brolly.checkpoint.safetensors import read_safetensors, write_safetensors
from brolly.errors import CheckpointError, NotFound
from brolly.place import Place, Where

__all__ = ["Mapped", "json_object", "read_header", "read_index", "read_safetensors", "write_safetensors"]


def read_header(path: Where, faults: list[CheckpointError] | None = None) -> Header:
    """What a file or a folder of any known format says. Raises NotFound, CheckpointError.

    With `faults`, errors that leave something to tell (a missing shard, a broken part) are put there instead, and the
    header says what could be read. Loading raises the first of them.
    """
    if isinstance(path, Place):
        return read_folder(path, faults) if path.is_dir() else read_file(path, faults)
    path = Path(path)
    if os.path.isdir(path):  # os.path says no where Path would raise: names too long, loops of links
        return read_folder(path, faults)
    if not os.path.lexists(path):
        raise NotFound(f"{path} does not exist; {EXPECTED}.")
    return read_file(path, faults)
