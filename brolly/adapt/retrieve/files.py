"""A folder's files as an index sees them: which there are, of which kind, what stands in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from brolly.adapt.retrieve.child import Reader
from brolly.adapt.retrieve.document import MOST, Document, read_code, read_markdown, read_plain
from brolly.adapt.retrieve.words import listed
from brolly.errors import MediaError

FOLDER = ".brolly-index"
KINDS = {
    "pdf": {".pdf"},
    "docx": {".docx"},
    "html": {".html", ".htm", ".xhtml"},
    "markdown": {".md", ".markdown", ".mdx"},
    "image": {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"},
    "code": set(
        listed(
            ".py .pyi .js .mjs .ts .tsx .jsx .c .h .cc .cpp .hpp .cu .rs .go .java .kt .swift .rb .php .cs .scala "
            ".sh .sql .lua .r .jl .pl .hs .ml .zig"
        )
    ),
}
KIND_OF = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}
# never text, and not worth opening
LEFT = frozenset(
    listed(
        ".zip .gz .xz .bz2 .7z .tar .exe .dll .so .o .a .pyc .class .jar .bin .safetensors .gguf .pt .onnx "
        ".npy .npz .sqlite .sqlite-wal .sqlite-shm .db .svg .mp3 .mp4 .wav .flac .ogg .mov .avi .mkv "
        ".ico .woff .woff2 .ttf .otf .parquet .lock"
    )
)
SKIPPED = frozenset({"node_modules", "__pycache__", "venv"})


class Found(NamedTuple):
    """A file that is to be read."""

    name: str  # below the root, with /
    path: Path
    kind: str
    size: int
    mtime: int


def look(roots: Iterable[Path], base: Path) -> Iterator[Found | tuple[str, str]]:
    """Every file below some folders in order, hidden ones left out; one that may not be read as (name, why)."""
    seen: set[str] = set()
    for root in roots:
        inside = os.path.realpath(root)
        for path in _walk(root):
            name = _name(path, base)
            if name in seen or path.suffix.lower() in LEFT:
                continue
            seen.add(name)
            try:
                name.encode()
                if path.is_symlink() and os.path.commonpath([inside, os.path.realpath(path)]) != inside:
                    yield name, "it is a link that leads out of the folder"
                    continue
                stat = path.stat()
            except UnicodeEncodeError:
                yield name.encode("utf-8", "replace").decode(), "its name is no UTF-8"
                continue
            except (OSError, ValueError) as error:
                yield name, f"it cannot be read ({getattr(error, 'strerror', None) or error})"
                continue
            kind = KIND_OF.get(path.suffix.lower(), "text")
            yield Found(name, path, kind, stat.st_size, stat.st_mtime_ns)


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for place, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED)
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield path


def _name(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises MediaError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}).") from None


def read(found: Found, reader: Reader) -> Document | None:
    """A file's document; None where it holds no text and does not say by its name that it should."""
    if found.kind in ("pdf", "docx", "html"):
        return reader.read(found.path, found.kind)
    try:
        with found.path.open("rb") as file:
            data = file.read(MOST + 1)
    except OSError as error:
        raise MediaError(f"{found.path} cannot be read ({error.strerror}).") from None
    if len(data) > MOST:
        raise MediaError(f"{found.path} has more than {MOST:,} bytes, the most that a text has; split it.")
    text = decoded(data)
    if text is None:
        if found.kind == "text":
            return None
        raise MediaError(f"{found.path} is no text: it holds bytes that no text has.")
    return {"markdown": read_markdown, "code": read_code}.get(found.kind, read_plain)(text)


def decoded(data: bytes) -> str | None:
    """UTF-8, UTF-16 with its mark, else Windows' Latin letters; None for what is no text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace").replace("\0", "")
    if b"\0" in data[:65536]:
        return None
    try:
        return data.decode("utf-8-sig").replace("\0", " ")
    except UnicodeDecodeError:
        odd = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in data[:65536])
        return None if odd > 0.01 * len(data[:65536]) else data.decode("cp1252", errors="replace").replace("\0", " ")
