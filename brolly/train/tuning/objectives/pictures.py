"""Pictures for training: decoded ahead of the network, and kept once prepared as far as memory allows."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from brolly.errors import BrollyError
from brolly.layers.vision import Pictures
from brolly.media.image import ahead
from brolly.rows import Captioned, Labelled, Row, RowFault
from brolly.tasks.embed import prepared

MOST = 2**31  # bytes of prepared pictures that are kept


class Album:
    """A model's pictures by where they come from: a path, or bytes."""

    def __init__(self, model: Any, most: int = MOST) -> None:
        self.model, self.free = model, most
        self.kept: dict[Hashable, Any] = {}

    def __call__(self, source: Path | bytes) -> Any:
        """A picture as the network takes it: (3, H, W). Raises MediaError."""
        name = key(source)
        found = self.kept.get(name)
        if found is None:
            found = prepared(self.model, source)
            if found.nbytes <= self.free:
                self.free -= found.nbytes
                self.kept[name] = found
        return found

    def checked(self, source: Path | bytes, row: Row) -> int:
        """How many patches a row's picture has. Raises RowFault where it cannot be read."""
        try:
            _, height, width = self(source).shape
        except BrollyError as error:
            raise RowFault(row.where, str(error)) from None
        side = self.model.network.config.vision.patch_size
        return height // side * (width // side)

    def look(self, sources: Iterable[Path | bytes]) -> None:
        """Prepare pictures in threads; what is wrong with one is told when it is asked for."""
        for _ in ahead(self, sources):
            pass

    def pixels(self, sources: Sequence[Path | bytes]) -> Pictures:
        """Some of them for one pass."""
        arrays = []
        there = all(key(one) in self.kept for one in sources)
        for found in map(self, sources) if there else ahead(self, sources):
            if isinstance(found, BrollyError):
                raise found
            arrays.append(torch.from_numpy(found).to(self.model.device))
        same = len({one.shape for one in arrays}) == 1
        return torch.stack(arrays) if same else arrays


def key(source: Path | bytes) -> Hashable:
    """The same for the same picture."""
    return source if isinstance(source, Path) else hashlib.sha256(source).digest()


def source_of(row: Row) -> Path | bytes:
    """A row's picture. Raises RowFault."""
    value = row.value
    source = value.image if isinstance(value, Captioned) else value.input if isinstance(value, Labelled) else None
    if not isinstance(source, (Path, bytes)):
        raise RowFault(row.where, f"it is a {type(value).__name__} without a picture; expected one and its words")
    return source
