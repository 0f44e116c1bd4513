"""The merge list that a byte-pair vocabulary with ranks or scores implies; `tokenizers` wants it spelled out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from brolly.errors import TokenizerError

MAX_TOKENS = 1 << 19  # twice Gemma's 262 144
_MAX_LENGTH = 1 << 12
_MAX_WORK = 1 << 27


def merges_of(tokens: Iterable[tuple[str, float]], ids: Mapping[str, int], source: str) -> list[tuple[str, str]]:
    """Every way to make each token of two others, the best-ranked token first (`tokens` gives each its rank)."""
    found: list[tuple[float, int, list[tuple[str, str]]]] = []
    work = 0
    for token, rank in tokens:
        length = len(token)
        if length < 2:
            continue
        # slicing costs the square of the length: what a hostile file can ask for is bounded here
        work += length * length
        if length > _MAX_LENGTH or work > _MAX_WORK:
            raise TokenizerError(f"{source} has too long a token: {token[:32]!r}... of {length:,} characters.")
        splits = [(token[:i], token[i:]) for i in range(1, length) if token[:i] in ids and token[i:] in ids]
        if splits:
            if len(splits) > 1:
                splits.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            found.append((rank, ids[token], splits))
    found.sort(key=lambda row: row[:2])
    return [pair for _, _, splits in found for pair in splits]
