"""A picture in whatever form it comes → an upright RGB picture, or one error that says which file and what is wrong.

What is transparent lies on white, as transformers' processors lay it; 16 bits become their upper 8, where Pillow alone
would clip them; of an animation the first frame counts. Hostile pictures are bounded before their pixels are read.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brolly.errors import MediaError, MissingExtra

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 178_956_970  # 512 MiB in RGB; where Pillow, too, sees a decompression bomb
MAX_FILE = 1 << 30
# No EPS: it starts another program. No stubs and film formats either.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "ICO", "TGA", "PCX", "QOI", "SGI",
)  # fmt: skip
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".avif", ".heic", ".heif", ".tif", ".tiff",
    ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".tga", ".pcx", ".qoi", ".sgi",
))  # fmt: skip
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|BM.{4}\0{4}|P[1-6][\s#]+\d|qoif|\0\0\x01\0.\0|"
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51|.{4}ftyp(?:avi[fs]|hei[cfmsx]|hev[cx]|mif1|msf1)",
    re.DOTALL,
)
_HEIF = re.compile(rb".{4}ftyp(?:hei[cfmsx]|hev[cx]|mif1|msf1)", re.DOTALL)


def looks_like_image(path: Path) -> bool:
    """Whether a file's first bytes, or failing them its name, are a picture's. A pipe is not looked into."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return _MAGIC.match(file.read(16)) is not None
    except OSError:
        return False


def open_image(source: Any, name: str = "") -> Image:
    """The RGB picture of a path, bytes, a Pillow picture or an array (H, W[, 1|3|4]) of bytes, 16 bits or 0 to 1.

    `name` is what an error calls it. Raises MediaError, MissingExtra.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("Reading pictures", "vision") from None
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = name or str(path or f"an image given as {type(source).__name__}")
    try:
        if path:
            with _opened(path) as file:
                return _upright(_decoded(file, name), name)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _upright(_decoded(io.BytesIO(source), name), name)
        return _upright(source if isinstance(source, Image.Image) else _from_array(source), name)
    except (MediaError, MissingExtra):
        raise
    except Exception as error:  # a broken picture raises whatever its decoder came upon
        raise MediaError(f"{name} cannot be read as an image: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0].strip(" .")[:200] or type(error).__name__


def _opened(path: Path) -> Any:
    """A file's bytes; what is no file (a pipe, a device) would wait, or never end."""
    size = path.stat().st_size
    if not path.is_file():
        raise MediaError(f"{path} is a folder, a pipe or a device; expected an image's file.")
    if size > MAX_FILE:
        raise MediaError(f"{path} has {size:,} bytes; an image's file has at most {MAX_FILE:,}.")
    return path.open("rb")


def _decoded(file: Any, name: str) -> Image:
    """The file's first picture, still in its own mode."""
    from PIL import Image, UnidentifiedImageError

    start = file.read(16)
    file.seek(0)
    if not start:
        raise MediaError(f"{name} is empty; expected an image.")
    if _HEIF.match(start):
        try:
            import pillow_heif
        except ImportError:
            raise MissingExtra(f"{name} is HEIC, which", "heif") from None
        found = pillow_heif.open_heif(file, convert_hdr_to_8bit=True)
        _bounded(found.size, name)
        return found.to_pillow()  # upright already
    try:
        picture = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise MediaError(
            f"{name} is no image that can be read here; expected JPEG, PNG, WebP, GIF, AVIF, HEIC, TIFF or BMP."
        ) from None
    except Image.DecompressionBombError:
        raise MediaError(f"{name} has too many pixels; the most is {MAX_PIXELS:,}. Make it smaller first.") from None
    _bounded(picture.size, name)
    picture.load()
    return picture


def _bounded(size: tuple[int, int], name: str) -> None:
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise MediaError(f"{name} is {width:,} × {height:,} pixels; the most is {MAX_PIXELS:,}. Make it smaller first.")


def _upright(picture: Image, name: str) -> Image:
    """RGB, turned as its EXIF says."""
    from PIL import Image, ImageOps

    _bounded(picture.size, name)
    try:
        if picture.getexif().get(0x0112, 1) != 1:  # else it would be copied, which takes as long as decoding
            picture = ImageOps.exif_transpose(picture)
    except Exception:  # pixels are good without what a broken EXIF block would say
        picture.load()
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture)
    if "A" in picture.getbands() or "a" in picture.mode or picture.info.get("transparency") is not None:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return picture.convert("RGB")


def _eight_bits(picture: Image) -> Image:
    """16 and 32 bits a pixel to 8: the upper byte; of real numbers, 0 to 1 is the range."""
    import numpy as np
    from PIL import Image

    values = np.asarray(picture)
    if picture.mode == "F":
        return Image.fromarray(_bytes_of(values))
    deep = picture.mode.startswith("I;16") or int(values.max()) > 255
    return Image.fromarray((np.clip(values, 0, 65535) >> (8 if deep else 0)).astype(np.uint8))


def _bytes_of(values: Any) -> Any:
    """Real numbers from 0 to 1 as bytes."""
    import numpy as np

    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"its numbers go from {values.min():g} to {values.max():g}; real numbers must lie in 0 to 1")
    return np.round(values * 255).astype(np.uint8)


def _from_array(source: Any) -> Image:
    import numpy as np
    from PIL import Image

    array = np.asarray(source)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"its shape is {array.shape}; expected (height, width) or (height, width, 1, 3 or 4)")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype.kind == "f":
        array = _bytes_of(array)
    if array.dtype != np.uint8:
        raise ValueError(f"its numbers are {array.dtype}; expected uint8, uint16, bool or real numbers in 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array))
