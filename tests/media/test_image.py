"""Pictures: every kind of file comes out upright and in RGB, broken ones are told, and arrays equal the references'."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brolly.card import Header
from brolly.errors import CheckpointError, MediaError
from brolly.media.image import MAX_PIXELS, Preprocess, ahead, load_preprocess, looks_like_image, open_image

Image = pytest.importorskip("PIL.Image")
SIZES = [(640, 480), (479, 641), (224, 224), (31, 57), (1, 1), (1000, 11), (225, 900)]  # width, height
RED, BLUE = (250, 10, 20), (10, 20, 250)


def noise(width: int, height: int, mode: str = "RGB") -> Any:
    """A picture with structure and noise, the same each time."""
    random = np.random.default_rng(width * 7919 + height)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 90 * np.sin(x / 17 + y / (9 + c)) for c in range(3)], -1)
    pixels = np.clip(waves + random.normal(0, 20, waves.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def halves(width: int = 40, height: int = 20, mode: str = "RGB") -> Any:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture.convert(mode)


def header(folder: Path, **config: Any) -> Header:
    return Header(folder, "safetensors", {}, config)


def prepared(folder: Path, processor: Any, family: str) -> Preprocess:
    processor.save_pretrained(folder)
    return load_preprocess(header(folder), family, 224)


# Equal to transformers' classes ---------------------------------------------------------------------------------------

CLASSES = [
    ("CLIP", {}, "CLIP"),
    ("CLIP", {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}, "CLIP"),
    ("CLIP", {"size": 32, "crop_size": 48}, "CLIP"),
    ("CLIP", {"size": 64, "do_center_crop": False, "resample": 1}, "CLIP"),
    ("CLIP", {"do_resize": False, "crop_size": {"height": 75, "width": 90}}, "CLIP"),
    ("CLIP", {"size": {"height": 90, "width": 60}, "do_center_crop": False, "do_normalize": False}, "CLIP"),
    ("Siglip", {}, "SigLIP"),
    ("Siglip", {"size": {"height": 384, "width": 384}, "do_rescale": False}, "SigLIP"),
    ("Bit", {"size": {"shortest_edge": 256}, "image_mean": [0.485, 0.456, 0.406]}, "DINOv2"),
    ("ViT", {}, "ViT"),
    ("ViT", {"size": 96, "image_std": [0.2, 0.3, 0.4]}, "ViT"),
    ("DeiT", {}, "ViT"),
]


@pytest.mark.parametrize(("kind", "options", "family"), CLASSES, ids=str)
def test_arrays_equal_transformers_own(kind: str, options: dict[str, Any], family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**options)
    prepare = prepared(tmp_path, processor, family)
    for width, height in SIZES:
        picture = noise(width, height)
        expected = np.asarray(processor(picture, return_tensors="np")["pixel_values"][0])
        found = prepare(open_image(picture))
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert np.array_equal(found, expected), (width, height)


@pytest.mark.parametrize(("patch", "most"), [(16, 256), (14, 729), (16, 64)])
def test_patches_of_any_proportions_equal_siglip2s(patch: int, most: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.Siglip2ImageProcessorPil(patch_size=patch, max_num_patches=most)
    prepare = prepared(tmp_path, processor, "SigLIP 2")
    for width, height in SIZES:
        picture = noise(width, height)
        theirs = processor(picture, return_tensors="np")
        rows, columns = (int(n) for n in theirs["spatial_shapes"][0])
        found = prepare(open_image(picture))
        assert found.shape == (3, rows * patch, columns * patch)
        patches = found.reshape(3, rows, patch, columns, patch).transpose(1, 3, 2, 4, 0).reshape(rows * columns, -1)
        assert np.array_equal(patches, theirs["pixel_values"][0][: rows * columns])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "CMYK", "PA"])
def test_modes_equal_transformers_own(mode: str) -> None:
    """Transparent pixels lie on white, as transformers' processors lay them."""
    transformers = pytest.importorskip("transformers")
    picture = noise(60, 50, {"RGBA": "RGBA", "PA": "P"}.get(mode, mode))
    if mode == "RGBA":
        picture.putalpha(noise(60, 50, "L"))
    if mode == "LA":
        picture.putalpha(noise(60, 50, "L"))
    if mode == "PA":
        picture.info["transparency"] = 7
    expected = transformers.CLIPImageProcessorPil().convert_to_rgb(picture)
    assert np.array_equal(np.asarray(open_image(picture)), expected)


def test_old_and_new_files_say_the_same(tmp_path: Path) -> None:
    """The hub's first CLIP files, those of today, and those within a processor's."""
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}
    new = {"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 224}}
    within = {"processor_class": "CLIPProcessor", "image_processor": new}
    files = [("preprocessor_config", old), ("preprocessor_config", new), ("processor_config", within)]
    found = []
    for i, (name, said) in enumerate(files):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / f"{name}.json").write_text(json.dumps(said))
        found.append(load_preprocess(header(tmp_path / str(i)), "CLIP", 336))
    assert found[0] == found[1] == found[2] and found[0].crop == (224, 224)


def test_open_clip_and_timm_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({
        "model_cfg": {}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic",
                                            "resize_mode": "squash", "size": [384, 384]},
    }))  # fmt: skip
    squash = load_preprocess(header(tmp_path), "SigLIP", 384)
    assert (squash.resize, squash.size, squash.crop, squash.resample) == ("squash", (384, 384), None, 3)
    (tmp_path / "open_clip_config.json").unlink()
    said = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5] * 3}
    timm = load_preprocess(header(tmp_path, pretrained_cfg=said), "ViT", 224)
    assert (timm.size, timm.crop, timm.rounded, timm.mean) == ((248, 248), (224, 224), True, (0.5,) * 3)
    assert load_preprocess(header(tmp_path), "CLIP", 288).crop == (288, 288)


REFERENCES = Path(__file__).parents[2] / ".venv" / "references"  # open_clip, timm and torchvision, apart from the rest
PUBLISHED: dict[str, dict[str, Any]] = {
    "open-clip": dict(size=224, resize_mode="shortest", interpolation="bicubic"),
    "open-siglip": dict(size=[96, 96], resize_mode="squash", mean=[0.5] * 3, std=[0.5] * 3),
    "open-bilinear": dict(size=227, interpolation="bilinear"),
    "timm-vit": dict(input_size=[3, 224, 224], crop_pct=0.9, interpolation="bicubic", mean=[0.5] * 3, std=[0.5] * 3),
    "timm-dinov2": dict(input_size=[3, 518, 518], crop_pct=1.0, interpolation="bicubic"),
    "timm-squash": dict(input_size=[3, 128, 96], crop_pct=1.0, crop_mode="squash", interpolation="bilinear"),
}


def test_arrays_equal_open_clips_and_timms_own(tmp_path: Path) -> None:
    """Theirs divide where ours multiply, so that the last bit may differ: no pixel does."""
    if not REFERENCES.is_dir():
        pytest.skip(f"open_clip and timm are not in {REFERENCES}")
    sizes = [(300, 221), (225, 401), (229, 229)]
    for i, (width, height) in enumerate(sizes):
        noise(width, height).save(tmp_path / f"{i}.png")
    (tmp_path / "cases.json").write_text(json.dumps(PUBLISHED))
    script = Path(__file__).with_name("image_reference.py")
    environment = os.environ | {"PYTHONPATH": str(REFERENCES)}
    subprocess.run([sys.executable, str(script), str(tmp_path)], env=environment, check=True, capture_output=True)
    for name, said in PUBLISHED.items():
        config = {} if name.startswith("open") else {"pretrained_cfg": said}
        (tmp_path / "open_clip_config.json").write_text(json.dumps({} if config else {"preprocess_cfg": said}))
        prepare = load_preprocess(header(tmp_path, **config), "CLIP", 224)
        for i in range(len(sizes)):
            expected = np.load(tmp_path / f"{name}-{i}.npy")
            found = prepare(open_image(tmp_path / f"{i}.png"))
            assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-6, (name, sizes[i])


def test_the_middle_of_torchvision_is_rounded() -> None:
    """(230 - 227) / 2: torchvision begins at 2, transformers at 1."""
    rounded = Preprocess("", (0, 0), (227, 227), 3, (0.0,) * 3, (1.0,) * 3, rounded=True)
    picture = noise(230, 230)
    pixels = np.asarray(picture, np.float64).transpose(2, 0, 1)
    for prepare, start in ((rounded, 2), (rounded._replace(rounded=False), 1)):
        expected = (pixels[:, start : start + 227, start : start + 227] / 255).astype(np.float32)
        assert np.abs(prepare(picture) - expected).max() < 1e-7


@pytest.mark.parametrize(
    "said",
    [
        {"image_processor_type": "SamImageProcessor"}, {"size": {"shortest_edge": 1 << 30}}, {"size": "224"},
        {"size": {"shortest_edge": 224, "longest_edge": 900}}, {"image_std": [0.5, 0, 0.5]}, {"image_mean": [1, 2]},
        {"resample": 9}, {"crop_size": {"height": 10}}, {"rescale_factor": float("nan")}, {"size": True},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_told(said: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor"} | said)
    )
    with pytest.raises(CheckpointError, match="preprocessor_config.json"):
        load_preprocess(header(tmp_path), "CLIP", 224)


# Every kind of file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "heic"])
def test_pictures_are_turned_as_their_camera_says(orientation: int, suffix: str, tmp_path: Path) -> None:
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers of what undoes each
    upright, path = halves(64, 32), tmp_path / f"a.{suffix}"
    stored = upright if orientation == 1 else upright.transpose(turn[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "heic":
        pytest.importorskip("pillow_heif").from_pillow(stored).save(path, exif=exif.tobytes(), quality=95)
    else:
        stored.save(path, exif=exif)
    found = open_image(path)
    assert found.size == (64, 32)
    assert np.abs(np.asarray(found, np.int16) - np.asarray(upright)).mean() < 8


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif", "avif", "heic", "jp2", "tga", "ppm"])
def test_formats_are_read_and_recognised(suffix: str, tmp_path: Path) -> None:
    path, disguised = tmp_path / f"a.{suffix}", tmp_path / "without-suffix"
    if suffix == "heic":
        pytest.importorskip("pillow_heif").from_pillow(halves(64, 32)).save(path, quality=95)
    else:
        halves(64, 32).save(path)
    picture = open_image(path)
    assert (picture.mode, picture.size) == ("RGB", (64, 32))
    for x, colour in ((8, RED), (56, BLUE)):
        assert np.abs(np.subtract(picture.getpixel((x, 16)), colour)).max() < 16
    assert np.array_equal(np.asarray(open_image(path.read_bytes())), np.asarray(picture))
    disguised.write_bytes(path.read_bytes())
    assert looks_like_image(path) and (looks_like_image(disguised) or suffix == "tga")


def test_an_animation_shows_its_first_frame(tmp_path: Path) -> None:
    for suffix in ("gif", "webp", "png", "tif"):
        frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
        assert np.abs(np.subtract(open_image(tmp_path / f"a.{suffix}").getpixel((4, 4)), RED)).max() < 12


def test_sixteen_bits_keep_their_upper_byte(tmp_path: Path) -> None:
    """Pillow alone would clip them: all above 255 would be white."""
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
        assert np.array_equal(np.asarray(open_image(tmp_path / f"a.{suffix}"))[:, :, 1], deep >> 8)
    assert np.array_equal(np.asarray(open_image(deep))[:, :, 0], deep >> 8)


def test_arrays_of_bytes_and_of_real_numbers_are_pictures() -> None:
    pixels = np.asarray(noise(9, 7))
    for array in (pixels, pixels / 255, (pixels / 255).astype(np.float32), pixels.astype(np.uint16) * 257):
        assert np.array_equal(np.asarray(open_image(array)), pixels)
    assert np.asarray(open_image(pixels[:, :, :1])).shape == (7, 9, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 9, 2)), np.zeros(4), np.full((2, 2), 300.0), np.full((2, 2), np.nan), np.zeros((0, 4)),
              np.zeros((2, 2), np.int64), np.zeros((2, 2), "U1"), object()],
    ids=lambda a: str(getattr(a, "shape", "object")),
)  # fmt: skip
def test_arrays_that_are_no_picture_are_told(array: Any) -> None:
    with pytest.raises(MediaError, match="given as .* cannot be read as an image"):
        open_image(array)


# Broken and hostile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif", "avif", "heic", "jp2"])
def test_a_file_cut_short_is_one_error_that_names_it(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"holiday.{suffix}"
    if suffix == "heic":
        pytest.importorskip("pillow_heif").from_pillow(noise(200, 200)).save(path)
    else:
        noise(200, 200).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.6):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(MediaError, match=f"holiday.{suffix}"):
            open_image(path)


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "text.jpg").write_text("a story about a dog")
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, said in (("empty.jpg", "is empty"), ("text.jpg", "is no image"), ("page.eps", "is no image"),
                       ("absent.jpg", "No such file"), (".", "is a folder"), ("pipe.jpg", "a pipe")):  # fmt: skip
        with pytest.raises(MediaError, match=said) as caught:
            open_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused_before_its_pixels_are_made() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 60_000
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    start = time.monotonic()
    with pytest.raises(MediaError, match=f"{MAX_PIXELS:,}"):
        open_image(bomb)
    assert time.monotonic() - start < 5


def test_a_thread_of_pixels_is_not_blown_up() -> None:
    """1 × 60,000 pixels, whose shorter edge would become 224, would become 9 GB."""
    prepare = Preprocess("shortest", (224, 224), (224, 224), 3, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(MediaError, match="thread.png is 1 × 60,000 pixels"):
        prepare(Image.new("RGB", (1, 60_000)), "thread.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of tags that make no sense
def test_damaged_bytes_raise_nothing_else() -> None:
    random = np.random.default_rng(5)
    for suffix in ("jpeg", "png", "webp", "gif", "tiff", "bmp"):
        out = io.BytesIO()
        noise(48, 48).save(out, suffix)
        for _ in range(40):
            data = bytearray(out.getvalue())
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(0, 256)
            with contextlib.suppress(MediaError):
                assert open_image(bytes(data)).mode == "RGB"


# Ahead ----------------------------------------------------------------------------------------------------------------


def test_work_ahead_comes_in_order_with_errors_in_their_places() -> None:
    def work(n: int) -> int:
        time.sleep(0.002 * (n % 3))
        if n == 4:
            raise MediaError("the fourth")
        return n * n

    found = list(ahead(work, range(12), depth=5, workers=3))
    assert [n if isinstance(n, int) else str(n) for n in found] == [
        n * n if n != 4 else "the fourth" for n in range(12)
    ]


def test_no_more_is_done_ahead_than_asked_for() -> None:
    """Millions of files need no more memory than a few; who leaves early leaves no work behind."""
    taken: list[int] = []

    def items() -> Any:
        for n in range(1000):
            taken.append(n)
            yield n

    results = ahead(lambda n: n, items(), depth=8, workers=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(taken) <= 9
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 9
