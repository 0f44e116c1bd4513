"""A folder's pictures by likeness: an index file beside them, which follows what was added, changed and removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from brolly.checkpoint import read_safetensors, write_safetensors
from brolly.errors import BrollyError

VERSION = "1"


class Entry(NamedTuple):
    """A picture as it was when it was embedded, and its vector of length 1."""

    size: int
    mtime: int  # nanoseconds
    vector: Any


class Index:
    """The vectors, of so many numbers, of a folder's pictures by one model. `fresh` says why an index that was there is
    made anew."""

    def __init__(self, folder: Path, name: str, fingerprint: str, n_numbers: int) -> None:
        self.folder, self.fingerprint, self.n_numbers = folder, fingerprint, n_numbers
        self.path = folder / f".brolly-index-{name}.safetensors"
        self.entries: dict[str, Entry] = {}
        self.fresh = ""
        self.changed = False
        if self.path.is_file():
            try:
                self._read()
            except (BrollyError, OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
                self.entries, self.fresh = {}, str(error) or type(error).__name__

    def __len__(self) -> int:
        return len(self.entries)

    def follow(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Entry]]:
        """Pictures that are new or have changed, each with an entry that waits for its vector; drops those gone."""
        seen = set()
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                continue  # gone meanwhile
            name = str(path.relative_to(self.folder))
            seen.add(name)
            old = self.entries.get(name)
            if old is None or (old.size, old.mtime) != (stat.st_size, stat.st_mtime_ns):
                yield path, Entry(stat.st_size, stat.st_mtime_ns, None)
        gone = self.entries.keys() - seen
        for name in gone:
            del self.entries[name]
        self.changed |= bool(gone)

    def add(self, path: Path, entry: Entry, vector: Any) -> None:
        """A picture's vector as it is now."""
        import numpy as np

        unit = vector / max(float(np.linalg.norm(vector)), 1e-12)
        self.entries[str(path.relative_to(self.folder))] = entry._replace(vector=unit.astype(np.float32))
        self.changed = True

    def drop(self, path: Path) -> None:
        """A picture that can no longer be read."""
        self.changed |= self.entries.pop(str(path.relative_to(self.folder)), None) is not None

    def best(self, query: Any, top: int) -> list[tuple[Path, float]]:
        """The likeliest pictures first, with the cosine between each and the query."""
        import numpy as np

        if not self.entries:
            return []
        scores = np.stack([e.vector for e in self.entries.values()]) @ (query / max(np.linalg.norm(query), 1e-12))
        names = list(self.entries)
        order = np.argsort(-scores, kind="stable")[:top]
        return [(self.folder / names[i], float(scores[i])) for i in order]

    def save(self) -> None:
        """Write what has changed; the file is the old one or the new one at any time. Raises CheckpointError."""
        import numpy as np

        if not self.changed:
            return
        rows = json.dumps([[name, e.size, e.mtime] for name, e in self.entries.items()]).encode()
        vectors = [e.vector for e in self.entries.values()]
        matrix = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
        tensors = [("files", "U8", (len(rows),), rows), ("vectors", "F32", matrix.shape, matrix)]
        write_safetensors(self.path, tensors, {"brolly-index": VERSION, "model": self.fingerprint})
        self.changed = False

    def _read(self) -> None:
        import numpy as np

        tensors, metadata = read_safetensors(self.path)
        if metadata.get("brolly-index") != VERSION or metadata.get("model") != self.fingerprint:
            raise ValueError("it was made by another model, or another version of it")
        data = {}
        for name, dtype, kind in (("files", "U8", np.uint8), ("vectors", "F32", np.float32)):
            info = tensors[name]
            if info.dtype != dtype:
                raise ValueError(f"its {name} are {info.dtype}")
            count = info.n_elements
            data[name] = np.fromfile(self.path, kind, count, offset=info.offset).reshape(info.shape)
        rows, vectors = json.loads(data["files"].tobytes()), data["vectors"]
        if rows and (vectors.ndim != 2 or vectors.shape[1] != self.n_numbers):
            raise ValueError(f"its vectors are {vectors.shape}; this model's have {self.n_numbers:,} numbers")
        if not (np.linalg.norm(vectors.astype(np.float64), axis=-1) < 1.001).all():  # neither NaN nor too long
            raise ValueError("its vectors are longer than 1")
        for (name, size, mtime), vector in zip(rows, vectors, strict=True):
            if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"it names {name!r:.80}, which lies outside of the folder")
            self.entries[name] = Entry(int(size), int(mtime), vector)


def fingerprint(model: Any) -> str:
    """Of a model's numbers and of how its pictures are prepared: another model, another fingerprint."""
    found = hashlib.sha256(repr((model.preprocess, str(model.dtype))).encode())
    for name, parameter in model.network.named_parameters():
        some = parameter.detach().flatten()[:32].float().cpu().numpy()
        found.update(f"{name} {tuple(parameter.shape)}".encode() + some.tobytes())
    return found.hexdigest()
