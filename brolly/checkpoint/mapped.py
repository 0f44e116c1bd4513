"""Tensor bytes on demand: each file mapped once, private and lazily; nothing is read before it is touched."""

from __future__ import annotations

import mmap
from contextlib import suppress
from types import TracebackType

from brolly.card import Header, TensorInfo
from brolly.checkpoint.bounded import opened
from brolly.errors import CheckpointError
from brolly.place import Place, Where


class Mapped:
    """The files of a header, mapped as they are asked for. Buffers outlive it; they hold the mapping themselves."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self._maps: dict[Where, mmap.mmap] = {}

    def buffer(self, info: TensorInfo) -> memoryview:
        """The bytes of one tensor: writable to satisfy torch, copied on write, so that the file never changes.

        Read-only where the system will not promise memory for so large a private mapping. Raises CheckpointError.
        """
        if info.nbytes == 0:
            return memoryview(bytearray())
        whole = self._map(info.file)
        if info.offset < 0 or info.nbytes < 0 or info.offset + info.nbytes > len(whole):
            raise CheckpointError(f"{info.file} became shorter than its header says; download it again.")
        return memoryview(whole)[info.offset : info.offset + info.nbytes]

    def all(self) -> list[mmap.mmap]:
        """Every file that holds a tensor, mapped."""
        pieces = (piece for info in self.header.tensors.values() for piece in info.shards or (info,))
        return [self._map(path) for path in dict.fromkeys(piece.file for piece in pieces if piece.nbytes)]

    def _map(self, path: Where) -> mmap.mmap:
        if path not in self._maps:
            self._maps[path] = _map(path)
        return self._maps[path]

    def release(self, info: TensorInfo) -> None:
        """Give back the memory that holds these bytes; whoever looks at them again reads the file again."""
        for piece in info.shards or (info,):
            start = -(-piece.offset // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (piece.offset + piece.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if end > start and piece.file in self._maps and hasattr(mmap, "MADV_DONTNEED"):
                self._maps[piece.file].madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """Unmap what nobody holds; what a buffer still shows goes with the last such buffer."""
        for mapping in self._maps.values():
            with suppress(BufferError):
                mapping.close()
        self._maps.clear()

    def __enter__(self) -> Mapped:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _map(path: Where) -> mmap.mmap:
    if isinstance(path, Place):
        raise CheckpointError(f"{path} is not on this disk; unpack or pull it first.")
    with opened(path) as (file, size):
        if size == 0:
            raise CheckpointError(f"{path} became empty; download it again.")
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
