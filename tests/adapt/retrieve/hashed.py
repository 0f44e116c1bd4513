"""An embedder without a network: a text's vector is the sum of its stems' own, so that equal words are near."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brolly.adapt.retrieve.embedder import Embedder, unit
from brolly.adapt.retrieve.words import stems


class Hashed(Embedder):
    def __init__(self, reference: str = "hashed", dimensions: int = 64) -> None:
        self.reference, self.dimensions, self.fingerprint = reference, dimensions, f"{reference}-{dimensions}"
        self.n_texts = 0
        self._short = {}

    @property
    def reads(self) -> int:
        return 256

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def documents(self, texts: Sequence[str], batch_size: int = 32) -> Any:
        self.n_texts += len(texts)
        return unit(np.stack([sum(map(self._of, stems(text)), np.full(self.dimensions, 1e-3)) for text in texts]))

    def query(self, text: str) -> Any:
        return self.documents([text])[0]

    def _of(self, stem: str) -> Any:
        seed = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(self.dimensions)


if __name__ == "__main__":  # follows a folder, says so, and is killed at some moment
    from brolly.adapt.retrieve.index import Index

    print("begun", flush=True)
    Index.build(Path(sys.argv[1]), embed=Hashed())
    print("done", flush=True)
