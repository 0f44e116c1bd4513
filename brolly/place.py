"""A path into something other than this disk: an archive's member, a repository's file behind HTTP."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from brolly.errors import NotFound


class Store(Protocol):
    """Files by name, elsewhere: `sizes` lists them all, in bytes; `open` gives one, seekable, read as far as asked."""

    title: str

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def open(self, name: str) -> BinaryIO: ...


class Place:
    """As much of a pathlib.Path as the readers need, over a store. The empty path is the store's root folder."""

    def __init__(self, store: Store, path: str | PurePosixPath = "") -> None:
        self.store, self.path = store, PurePosixPath(path)

    def __str__(self) -> str:
        return f"{self.store.title}/{self._key}" if self._key else self.store.title

    def __repr__(self) -> str:
        return f"Place({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and (self.store, self.path) == (other.store, other.path)

    def __hash__(self) -> int:
        return hash((id(self.store), self.path))

    def __lt__(self, other: Place) -> bool:
        return self.path < other.path

    def __truediv__(self, name: str) -> Place:
        return Place(self.store, self.path / name)

    @property
    def _key(self) -> str:
        return "" if self.path == PurePosixPath() else str(self.path)

    @property
    def name(self) -> str:
        return self.path.name or self.store.title.rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return self.path.suffix

    @property
    def parent(self) -> Place:
        return Place(self.store, self.path.parent)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self._key in self.store.sizes

    def is_dir(self) -> bool:
        key = self._key
        return not key or any(name.startswith(key + "/") for name in self.store.sizes)

    def iterdir(self) -> Iterator[Place]:
        """The files and folders directly within."""
        prefix = self._key + "/" if self._key else ""
        inside = (name[len(prefix) :] for name in self.store.sizes if name.startswith(prefix))
        for first in dict.fromkeys(name.partition("/")[0] for name in inside):
            yield self / first

    @property
    def n_bytes(self) -> int:
        """The file's size. Raises NotFound."""
        if self._key not in self.store.sizes:
            raise NotFound(f"{self} does not exist.")
        return self.store.sizes[self._key]

    def open(self) -> BinaryIO:
        """The file, for reading; the caller closes it. Raises NotFound, CheckpointError, HubError."""
        self.n_bytes  # noqa: B018  (raises where there is none)
        return self.store.open(self._key)


Where = Path | Place


def there(path: Where) -> bool:
    """Whether it exists; os.path says no where pathlib would raise: names too long, loops of links."""
    return path.exists() if isinstance(path, Place) else os.path.exists(path)


def is_folder(path: Where) -> bool:
    """Whether it is a folder; no for what cannot be looked at."""
    return path.is_dir() if isinstance(path, Place) else os.path.isdir(path)


class Seekable(io.RawIOBase):
    """A file of a known `size` that stands nowhere by itself: whoever inherits says what lies at `self.at`."""

    def __init__(self, size: int) -> None:
        self.size, self.at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at
