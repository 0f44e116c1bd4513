"""An RGB picture → the array that a network reads: resized, cropped, normalised, pixel for pixel as its reference."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from brolly.errors import MediaError
from brolly.media.image.decode import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_READ = 2048**2  # pixels, of which a network makes tokens


class Preprocess(NamedTuple):
    """How a network's pictures are prepared.

    `resize` is "shortest" (the shorter edge becomes size[0]), "squash" (to `size`, height first), "patches" (as large
    as `max_patches` squares of `patch` pixels allow, SigLIP 2's NaFlex) or "" (as it is). `resample` is Pillow's number
    of the filter. `rounded` crops in the middle as torchvision does, which rounds; transformers rounds down.
    """

    resize: str
    size: tuple[int, int]
    crop: tuple[int, int] | None
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    rounded: bool = False
    patch: int = 0
    max_patches: int = 0

    def __call__(self, image: Image, name: str = "the image") -> Any:
        """float32 (3, H, W). Raises MediaError where the picture is too narrow to be resized."""
        import numpy as np

        width, height = image.size
        if self.resize:
            target = self._target(height, width)
            if target[0] * target[1] > MAX_PIXELS:
                raise MediaError(
                    f"{name} is {width:,} × {height:,} pixels, so narrow that it would become {target[1]:,} × "
                    f"{target[0]:,}; crop it first."
                )
            image = image.resize((target[1], target[0]), self.resample)
        if self.crop:
            top, left = (self._start(a, b) for a, b in zip((image.height, image.width), self.crop, strict=True))
            image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        if image.width * image.height > MAX_READ:
            raise MediaError(
                f"{name} would be read at {image.width:,} × {image.height:,} pixels, as this model neither resizes nor "
                f"crops it enough; the most is {MAX_READ:,}. Make it smaller first."
            )
        pixels, table = np.asarray(image), _table(self.scale, self.mean, self.std)
        out = np.empty((3, *pixels.shape[:2]), np.float32)
        for channel in range(3):
            np.take(table[channel], pixels[:, :, channel], out=out[channel], mode="clip")
        return out

    def _start(self, length: int, wanted: int) -> int:
        """Where the middle begins; before the picture where that is smaller, and black there."""
        return round((length - wanted) / 2) if self.rounded else (length - wanted) // 2

    def _target(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to resize to."""
        if self.resize == "squash":
            return self.size
        if self.resize == "patches":
            return fitted(height, width, self.patch, self.max_patches)
        short, edge = min(height, width), self.size[0]
        other = int(edge * max(height, width) / short)
        return (edge, other) if height < width else (other, edge)


def fitted(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """The largest size of about the same proportions that `most` patches cover, by the paper's bisection."""

    def scaled(length: int, scale: float) -> int:
        return max(patch, ceil(length * scale / patch) * patch)

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        if scaled(height, middle) // patch * (scaled(width, middle) // patch) <= most:
            low = middle
        else:
            high = middle
    return scaled(height, low), scaled(width, low)


@lru_cache(maxsize=16)
def _table(scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """What each of a byte's 256 values becomes, a row a channel: scaled in float64, normalised in float32."""
    import numpy as np

    values = (np.arange(256, dtype=np.float64) * scale).astype(np.float32)
    return (values - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]
