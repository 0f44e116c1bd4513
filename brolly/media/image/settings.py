"""A checkpoint's own words on how its pictures are prepared → Preprocess.

preprocessor_config.json or processor_config.json (transformers), open_clip_config.json, timm's pretrained_cfg; failing
all of them, what the family's own code does.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, isfinite
from pathlib import Path
from typing import Any

from brolly.card import Header
from brolly.checkpoint import json_object
from brolly.errors import CheckpointError
from brolly.media.image.prepare import Preprocess

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
MAX_EDGE = 2048  # pixels: twice the largest published, and not yet hours of attention
BILINEAR, BICUBIC = 2, 3
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": BILINEAR, "bicubic": BICUBIC, "box": 4, "hamming": 5}

# transformers' classes: what each does where its file is silent
CLASSES = {
    "CLIP": Preprocess("shortest", (224, 224), (224, 224), BICUBIC, CLIP_MEAN, CLIP_STD),
    "ChineseCLIP": Preprocess("shortest", (224, 224), (224, 224), BICUBIC, CLIP_MEAN, CLIP_STD),
    "Siglip": Preprocess("squash", (224, 224), None, BICUBIC, HALF, HALF),
    "Siglip2": Preprocess("patches", (0, 0), None, BILINEAR, HALF, HALF, patch=16, max_patches=256),
    "Bit": Preprocess("shortest", (224, 224), (224, 224), BICUBIC, CLIP_MEAN, CLIP_STD),
    "ViT": Preprocess("squash", (224, 224), None, BILINEAR, HALF, HALF),
    "DeiT": Preprocess("squash", (256, 256), (224, 224), BICUBIC, IMAGENET_MEAN, IMAGENET_STD),
}


def load_preprocess(header: Header, family: str, size: int) -> Preprocess:
    """The preparation of a checkpoint's pictures; `size` is its network's own. Raises CheckpointError."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = header.folder / name
        found: Any = json_object(path) if path.is_file() else {}
        if name.startswith("processor"):
            found = found.get("image_processor")
        if isinstance(found, dict) and found:
            return _transformers(found, path, _usual_class(header, family))
    path = header.folder / "open_clip_config.json"
    if path.is_file() and isinstance(found := json_object(path).get("preprocess_cfg"), dict):
        return _open_clip(found, path, size)
    if isinstance(found := header.config.get("pretrained_cfg"), dict):
        return _timm(found, header.path)
    return _usual(header, family, size)


def _usual_class(header: Header, family: str) -> str:
    """transformers' class for a family's pictures; SigLIP 2's networks of fixed size are called siglip too."""
    if "SigLIP" in family:
        return "Siglip2" if str(header.config.get("model_type")).startswith("siglip2") else "Siglip"
    return "ViT" if family == "ViT" else "Bit" if "DINO" in family else "CLIP"


def _usual(header: Header, family: str, size: int) -> Preprocess:
    """As the family's publisher does, in a checkpoint without a word on it."""
    square, kind = (size, size), _usual_class(header, family)
    if kind.startswith("Siglip"):
        return CLASSES[kind]._replace(size=square)
    if kind == "Bit":  # its evaluation takes the middle 224 of 256, also where positions were learned at 518
        crop = square if size < 224 else (224, 224)
        edge = (crop[0] * 256 // 224,) * 2
        return Preprocess("shortest", edge, crop, BICUBIC, IMAGENET_MEAN, IMAGENET_STD, rounded=True)
    if kind == "ViT":
        return CLASSES["ViT"]._replace(size=square)
    return CLASSES["CLIP"]._replace(size=square, crop=square, rounded=True)


def _transformers(said: Mapping[str, Any], path: Path, unsaid: str) -> Preprocess:
    kind = said.get("image_processor_type") or said.get("feature_extractor_type") or unsaid
    stem = str(kind)
    for end in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        stem = stem.removesuffix(end)
    if stem not in CLASSES:
        raise CheckpointError(
            f"{path} prepares pictures by {stem!r:.60}, which brolly does not know; it knows {', '.join(CLASSES)}."
        )
    base = CLASSES[stem]
    resize, size, crop = base.resize, base.size, base.crop
    if stem == "Siglip2":
        base = base._replace(
            patch=_whole(said.get("patch_size", base.patch), path, "patch_size", 256),
            max_patches=_whole(said.get("max_num_patches", base.max_patches), path, "max_num_patches", 1 << 14),
        )
    elif (found := said.get("size")) is not None:
        edge = found.get("shortest_edge") if isinstance(found, dict) else found
        if isinstance(found, dict) and edge is None or base.resize == "squash":
            resize, size = "squash", _square(found, path, "size")
        else:
            resize, size = "shortest", _square(edge, path, "size")
        if isinstance(found, dict) and "longest_edge" in found:
            raise CheckpointError(f"{path} bounds the longest edge too ({found!r:.80}); brolly reads one edge or both.")
    if said.get("do_resize", True) is False:
        resize = ""
    if said.get("do_center_crop", crop is not None) is False:
        crop = None
    else:
        crop = _square(said.get("crop_size", crop or (224, 224)), path, "crop_size")
    scale = _number(said.get("rescale_factor", 1 / 255), path, "rescale_factor")
    plain = said.get("do_normalize", True) is False
    return base._replace(
        resize=resize, size=size, crop=crop,
        resample=_filter(said.get("resample", base.resample), path),
        scale=scale if said.get("do_rescale", True) is not False else 1.0,
        mean=(0.0,) * 3 if plain else _three(said.get("image_mean", base.mean), path, "image_mean"),
        std=(1.0,) * 3 if plain else _three(said.get("image_std", base.std), path, "image_std"),
    )  # fmt: skip


def _open_clip(said: Mapping[str, Any], path: Path, network: int) -> Preprocess:
    size = _square(said.get("size", network), path, "size")
    mode = said.get("resize_mode", "shortest")
    if mode not in ("shortest", "squash") or (mode == "shortest" and size[0] != size[1]):
        raise CheckpointError(
            f"{path}: resize_mode is {mode!r:.40}, size {size}; expected squash, or shortest, square."
        )
    return Preprocess(
        mode, size, None if mode == "squash" else size, _filter(said.get("interpolation", "bicubic"), path),
        _three(said.get("mean", CLIP_MEAN), path, "mean"), _three(said.get("std", CLIP_STD), path, "std"), rounded=True,
    )  # fmt: skip


def _timm(said: Mapping[str, Any], path: Any) -> Preprocess:
    found = said.get("input_size", (3, 224, 224))
    crop = _square(list(found)[-2:] if isinstance(found, (list, tuple)) else found, path, "input_size")
    share = _number(said.get("crop_pct") or 0.875, path, "crop_pct")
    mode = said.get("crop_mode", "center")
    if mode not in ("center", "squash") or (mode == "center" and crop[0] != crop[1]) or share < 0.1:
        raise CheckpointError(f"{path}: crop_mode is {mode!r:.40} to {crop}; expected squash, or center and square.")
    size = (floor(crop[0] / share), floor(crop[1] / share))
    return Preprocess(
        "squash" if mode == "squash" else "shortest", size, crop, _filter(said.get("interpolation", "bicubic"), path),
        _three(said.get("mean", IMAGENET_MEAN), path, "mean"), _three(said.get("std", IMAGENET_STD), path, "std"),
        rounded=True,
    )  # fmt: skip


def _square(value: Any, path: Any, key: str) -> tuple[int, int]:
    """(height, width) of a number, a pair or {"height", "width"}."""
    if isinstance(value, dict):
        value = (value.get("height"), value.get("width"))
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2:
        raise CheckpointError(f"{path}: {key} is {value!r:.80}; expected a height and a width.")
    return _whole(pair[0], path, key, MAX_EDGE), _whole(pair[1], path, key, MAX_EDGE)


def _whole(value: Any, path: Any, key: str, most: int) -> int:
    if type(value) not in (int, float) or value != value or not 1 <= value <= most or value != int(value):
        raise CheckpointError(f"{path}: {key} is {value!r:.80}; expected a whole number up to {most:,}.")
    return int(value)


def _number(value: Any, path: Any, key: str) -> float:
    if type(value) not in (int, float) or not isfinite(value) or not 0 < abs(value) < 1e6:
        raise CheckpointError(f"{path}: {key} is {value!r:.80}; expected a number.")
    return float(value)


def _three(value: Any, path: Any, key: str) -> tuple[float, ...]:
    """One number a channel."""
    three = tuple(value) if isinstance(value, (list, tuple)) else (value,) * 3
    numbers = all(type(v) in (int, float) and isfinite(v) and abs(v) < 1e6 for v in three)
    if len(three) != 3 or not numbers or (key.endswith("std") and 0 in three):
        raise CheckpointError(f"{path}: {key} is {value!r:.80}; expected a number for each of red, green and blue.")
    return tuple(float(v) for v in three)


def _filter(value: Any, path: Any) -> int:
    """Pillow's number of a resampling filter, given by number or name."""
    found = FILTERS.get(value) if isinstance(value, str) else value
    if type(found) is not int or found not in FILTERS.values():
        raise CheckpointError(f"{path}: the resampling filter is {value!r:.40}; expected one of {', '.join(FILTERS)}.")
    return found
