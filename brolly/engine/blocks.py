"""Who holds which block of a paged cache, and which full ones can be used again. Knows no tensors and no requests."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b


def chained(before: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a full block: its tokens' and all those before it, so that equal names mean equal keys."""
    return blake2b(before + array("q", tokens).tobytes(), digest_size=16).digest()


class Blocks:
    """Every block is held by some rows, or blank, or kept: held by none, but full and known by its content.

    Kept blocks are free like blank ones; the one that was kept longest is given away first.
    """

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self.holders = [0] * n_blocks
        self._blank = list(range(n_blocks - 1, -1, -1))
        self._kept: dict[int, None] = {}  # in the order of their keeping
        self._digests: dict[int, bytes] = {}
        self._known: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        return len(self._blank) + len(self._kept)

    @property
    def kept(self) -> int:
        return len(self._kept)

    def take(self) -> int:
        """A block for one holder; what it held is forgotten."""
        assert self.free, "take() after free"
        if self._blank:
            block = self._blank.pop()
        else:
            block = next(iter(self._kept))
            del self._kept[block]
            del self._known[self._digests.pop(block)]
        self.holders[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One holder more, of a block that has some or is kept."""
        if not self.holders[block]:
            del self._kept[block]
        self.holders[block] += 1

    def drop(self, block: int) -> None:
        """One holder less."""
        assert self.holders[block] > 0
        self.holders[block] -= 1
        if not self.holders[block]:
            if block in self._digests:
                self._kept[block] = None
            else:
                self._blank.append(block)

    def name(self, block: int, digest: bytes) -> None:
        """A held block is full from now on; where another has the same content, that one stays the known one."""
        if digest not in self._known and block not in self._digests:
            self._known[digest], self._digests[block] = block, digest

    def find(self, digest: bytes) -> int | None:
        """The block of this content."""
        return self._known.get(digest)

    def check(self) -> None:
        """Raises AssertionError where the books do not add up."""
        blank, kept = set(self._blank), set(self._kept)
        held = {block for block, n in enumerate(self.holders) if n}
        assert len(blank) == len(self._blank) and min(self.holders, default=0) >= 0
        assert blank | kept | held == set(range(self.n_blocks))
        assert len(blank) + len(kept) + len(held) == self.n_blocks
        assert {b: d for d, b in self._known.items()} == self._digests
        assert kept <= self._digests.keys() and not blank & self._digests.keys()
