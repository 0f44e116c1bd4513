"""Pictures to arrays: every common file, upright and in RGB, then prepared as each network's reference does it."""

from __future__ import annotations

from brolly.media.image.ahead import ahead
from brolly.media.image.decode import MAX_PIXELS, looks_like_image, open_image
from brolly.media.image.prepare import Preprocess
from brolly.media.image.settings import load_preprocess

__all__ = ["MAX_PIXELS", "Preprocess", "ahead", "load_preprocess", "looks_like_image", "open_image"]
