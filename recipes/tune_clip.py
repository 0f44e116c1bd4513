"""Twelve shapes that mini-clip was never shown: `python recipes/tune_clip.py SHAPES`.

Draws SHAPES/train and SHAPES/test, a folder a class, and SHAPES/known of the shapes that mini-clip knows, to see what becomes
of them; SHAPES/both is train and some more of these. docs/tune-kinds.md tells the rest.
"""

from __future__ import annotations

import math
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mini_clip_scenes import COLOURS, SHAPES, SIDE, draw, finish, ground, tint
from PIL import Image, ImageDraw

TRAIN, TEST = 40, 25  # pictures a class
Points = list[tuple[float, float]]


def around(n: int, radii: Sequence[float], turn: float = 0.0, share: float = 1.0) -> Points:
    """Corners at equal angles, at these distances in turn."""
    angles = [turn + 2 * math.pi * share * i / n for i in range(n + (share < 1))]
    return [(radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a)) for i, a in enumerate(angles)]


def spiral() -> Points:
    out = [(0.15 + 0.95 * i / 60, 4.4 * math.pi * i / 60) for i in range(61)]
    back = [(max(r - 0.24, 0.0), a) for r, a in reversed(out)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in out + back]


def crescent() -> Points:
    outer = around(24, (1.05,), math.pi * 0.12, 0.88)
    inner = [(0.42 + 0.78 * x, 0.78 * y) for x, y in reversed(around(24, (1.0,), math.pi * 0.2, 0.8))]
    return [(-x, y) for x, y in outer + inner]


NEW: dict[str, Points] = {
    "pentagon": around(5, (1.1,)),
    "octagon": around(8, (1.05,), math.pi / 8),
    "trapezoid": [(-0.5, -0.6), (0.5, -0.6), (1.1, 0.6), (-1.1, 0.6)],
    "parallelogram": [(-0.5, -0.6), (1.15, -0.6), (0.5, 0.6), (-1.15, 0.6)],
    "semicircle": [(x, y - 0.35) for x, y in around(24, (1.1,), math.pi / 2, 0.5)],
    "crescent": crescent(),
    "spiral": spiral(),
    "zigzag": [(-1.1, 0.3), (-0.55, -0.7), (0, 0.1), (0.55, -0.7), (1.1, 0.3), (1.1, 0.7), (0.55, -0.2), (0, 0.6),
               (-0.55, -0.2), (-1.1, 0.7)],
    "bolt": [(0.25, -1.15), (-0.75, 0.15), (-0.05, 0.15), (-0.35, 1.15), (0.8, -0.3), (0.1, -0.3), (0.6, -1.15)],
    "stairs": [(-1.05, 1), (-1.05, 0.4), (-0.35, 0.4), (-0.35, -0.25), (0.35, -0.25), (0.35, -0.9), (1.05, -0.9), (1.05, 1)],
    "drop": [(0, -1.2), *[(0.8 * math.sin(a), 0.35 - 0.8 * math.cos(a)) for a in (0.9 + i * 0.187 for i in range(25))]],
    "hourglass": [(-0.8, -1.05), (0.8, -1.05), (0.12, 0), (0.8, 1.05), (-0.8, 1.05), (-0.12, 0)],
}  # fmt: skip


def one(shape: str, rng: random.Random) -> Image.Image:
    """A shape in one colour on another, a little turned."""
    colour, behind = rng.sample(list(COLOURS), 2)
    image, radius, angle = ground(rng, behind), rng.uniform(13, 25), rng.uniform(-0.3, 0.3)
    at = [32 + rng.uniform(-5, 5) for _ in "xy"]
    if shape in SHAPES:
        draw(image, shape, tint(colour, rng), (at[0], at[1]), radius, angle)
        return finish(image, rng)
    mask = Image.new("L", (SIDE * 4, SIDE * 4), 0)
    c, s = math.cos(angle), math.sin(angle)
    turned = [(at[0] + radius * (c * x - s * y), at[1] + radius * (s * x + c * y)) for x, y in NEW[shape]]
    ImageDraw.Draw(mask).polygon([(4 * x, 4 * y) for x, y in turned], fill=255)
    image.paste(Image.new("RGB", image.size, tint(colour, rng)), (0, 0), mask.resize(image.size, Image.Resampling.BOX))
    return finish(image, rng)


def pictures(out: Path) -> None:
    rng = random.Random(7)
    for part, shapes, n in (("train", NEW, TRAIN), ("test", NEW, TEST), ("known", SHAPES, TEST)):
        for shape in shapes:
            (out / part / shape).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                one(shape, rng).save(out / part / shape / f"{i:02}.png")
    shutil.copytree(out / "train", out / "both", dirs_exist_ok=True)
    for shape in SHAPES:
        (out / "both" / shape).mkdir(exist_ok=True)
        for i in range(TRAIN // 2):
            one(shape, rng).save(out / "both" / shape / f"{i:02}.png")


if __name__ == "__main__":
    pictures(Path(sys.argv[1]))
