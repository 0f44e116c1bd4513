"""Tensor bytes on demand: each file mapped once, private and lazily; nothing is read before it is touched."""

from __future__ import annotations

import mmap
from pathlib import Path

from brolly.card import Header, TensorInfo
from brolly.errors import CheckpointError


class Mapped:
    """The files of a header, mapped as they are asked for. Buffers outlive it; they hold the mapping themselves."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self._maps: dict[Path, mmap.mmap] = {}

    def buffer(self, info: TensorInfo) -> memoryview:
        """The bytes of one tensor: writable to satisfy torch, copied on write, so that the file never changes."""
        if info.file not in self._maps:
            try:
                with info.file.open("rb") as file:
                    self._maps[info.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{info.file} cannot be mapped ({error}).") from None
        whole = self._maps[info.file]
        if info.offset < 0 or info.offset + info.nbytes > len(whole):
            raise CheckpointError(f"{info.file} became shorter than its header says; download it again.")
        return memoryview(whole)[info.offset : info.offset + info.nbytes]
