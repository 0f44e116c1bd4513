"""Packs openai-whisper's two vocabularies (MIT) as brolly ships them: each token's length and bytes, compressed.

python scripts/whisper_vocabularies.py   # with openai-whisper installed
"""

from __future__ import annotations

import base64
import lzma
from pathlib import Path

import whisper

HERE = Path(__file__).parent.parent / "brolly" / "media" / "audio" / "vocabularies"


def main() -> None:
    for theirs, ours in (("multilingual", "multilingual"), ("gpt2", "english")):
        lines = (Path(whisper.__file__).parent / "assets" / f"{theirs}.tiktoken").read_bytes().splitlines()
        ranks = sorted((int(rank), base64.b64decode(token)) for token, rank in (line.split() for line in lines if line))
        assert [rank for rank, _ in ranks] == list(range(len(ranks)))
        packed = b"".join(bytes([len(token)]) + token for _, token in ranks)
        (HERE / f"{ours}.xz").write_bytes(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
