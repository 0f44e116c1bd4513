"""Draws mini-clip's pictures and says what is on them: shapes, signs and emoji. Knows no tensors.

The emoji are three sets of one list: Noto (Google), Twemoji and Fluent. ICONS holds the unpacked npm packages
emoji-datasource-google, emoji-datasource-twitter, @lobehub/fluent-emoji-3d and emojilib, in google, twitter, fluent, lib.
"""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 64
COLOURS = {
    "red": (214, 40, 40), "orange": (245, 130, 32), "yellow": (247, 215, 40), "green": (40, 160, 70), "blue": (40, 90, 210),
    "purple": (130, 60, 170), "pink": (245, 140, 180), "brown": (125, 80, 45), "black": (20, 20, 20), "white": (245, 245, 245),
    "gray": (130, 130, 130),
}  # fmt: skip
SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "cross",
    "ring",
    "diamond",
    "rectangle",
    "oval",
    "hexagon",
    "arrow",
)
# never drawn in training: each colour and each shape is learned from other pairs
UNSEEN = {
    ("red", "star"), ("blue", "heart"), ("green", "circle"), ("yellow", "triangle"), ("purple", "square"), ("black", "ring"),
    ("orange", "diamond"), ("pink", "cross"), ("brown", "hexagon"), ("white", "arrow"), ("gray", "oval"), ("blue", "rectangle"),
}  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five")
SETS = ("google", "twitter", "fluent")
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "LiberationSans-Bold.ttf",
    "LiberationSerif-Regular.ttf",
)


@dataclass
class Icon:
    """One emoji: its name, words that go with it, and its picture in each set."""

    name: str
    words: list[str]
    kind: str
    files: dict[str, Path] = field(default_factory=dict)
    unseen: bool = False  # its Twemoji picture is never shown in training


def icons(folder: Path) -> list[Icon]:
    """Emoji that all three sets have, without flags, skin tones and letters; every sixth has its Twemoji held out."""
    words = json.loads((folder / "lib/package/dist/emoji-en-US.json").read_text())
    found = []
    for row in json.loads((folder / "google/package/emoji.json").read_text()):
        if row["category"] in ("Flags", "Component") or row["subcategory"] in ("keycap", "alphanum"):
            continue
        files = {
            "google": folder / f"google/package/img/google/64/{row['image']}",
            "twitter": folder / f"twitter/package/img/twitter/64/{row['image']}",
            "fluent": folder / f"fluent/package/assets/{row['image'].replace('.png', '.webp')}",
        }
        if not all(path.exists() for path in files.values()):
            continue
        character = "".join(chr(int(code, 16)) for code in row["unified"].split("-"))
        related = [word.replace("_", " ") for word in words.get(character, [])]
        related = [word for word in related if re.fullmatch(r"[a-z][a-z ]+", word)]
        name = re.sub(r"[^a-z0-9 ]+", " ", row["name"].lower()).strip()
        name = re.sub(r"\b(face with|sign|symbol)\b", lambda m: m[1] if m[1] == "face with" else "", name).strip()
        name = re.sub(r" +", " ", name)
        found.append(Icon(name, related[:8], row["subcategory"].replace("-", " "), files))
    for i, icon in enumerate(found):
        icon.unseen = i % 6 == 3
    return found


@cache
def picture(path: Path) -> Image.Image:
    """A set's picture with its transparency, its edges cut off."""
    image = Image.open(path).convert("RGBA")
    box = image.getchannel("A").getbbox()
    image = image.crop(box) if box else image
    image.thumbnail((SIDE, SIDE))
    return image


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size)


def tint(name: str, rng: random.Random) -> tuple[int, ...]:
    """A colour by name, a little off."""
    return tuple(min(255, max(0, value + rng.randint(-22, 22))) for value in COLOURS[name])


def outline(shape: str, angle: float) -> list[tuple[float, float]]:
    """Its corners around the origin, in a circle of 1."""

    def ring(n: int, radii: tuple[float, ...], turn: float) -> list[tuple[float, float]]:
        points = [(radii[i % len(radii)], turn + 2 * math.pi * i / n) for i in range(n)]
        return [(r * math.sin(a), -r * math.cos(a)) for r, a in points]

    corners = {
        "square": lambda: ring(4, (1.05,), math.pi / 4), "triangle": lambda: ring(3, (1.1,), 0),
        "star": lambda: ring(10, (1.1, 0.45), 0), "diamond": lambda: [(0, -1.1), (0.7, 0), (0, 1.1), (-0.7, 0)],
        "hexagon": lambda: ring(6, (1,), 0), "rectangle": lambda: [(-1.1, -0.55), (1.1, -0.55), (1.1, 0.55), (-1.1, 0.55)],
        "cross": lambda: [(-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33), (0.33, 1),
                          (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)],
        "arrow": lambda: [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1.1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)],
        "heart": lambda: [(math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)
                          - math.cos(4 * t)) / 16) for t in (i * math.pi / 16 for i in range(32))],
        "oval": lambda: [(1.1 * math.cos(i * math.pi / 16), 0.65 * math.sin(i * math.pi / 16)) for i in range(32)],
    }.get(shape, lambda: ring(32, (1,), 0))()  # fmt: skip
    c, s = math.cos(angle), math.sin(angle)
    return [(c * x - s * y, s * x + c * y) for x, y in corners]


def draw(
    image: Image.Image, shape: str, colour: tuple[int, ...], at: tuple[float, float], radius: float, angle: float
) -> None:
    """A filled shape; drawn four times as large, so that its edges are smooth."""
    size = int(radius * 2.4) + 2
    mask = Image.new("L", (size * 4, size * 4), 0)
    pen = ImageDraw.Draw(mask)
    pen.polygon([(size * 2 + x * radius * 4, size * 2 + y * radius * 4) for x, y in outline(shape, angle)], fill=255)
    if shape == "ring":
        r = radius * 4 * 0.6
        pen.ellipse((size * 2 - r, size * 2 - r, size * 2 + r, size * 2 + r), fill=0)
    mask = mask.resize((size, size), Image.Resampling.BOX)
    image.paste(Image.new("RGB", (size, size), colour), (int(at[0] - size / 2), int(at[1] - size / 2)), mask)


def ground(rng: random.Random, colour: str | None = None) -> Image.Image:
    """A plain, shaded or grainy background of a colour."""
    first = tint(colour or rng.choice([*COLOURS, "white", "white", "gray"]), rng)
    image = Image.new("RGB", (SIDE, SIDE), first)
    if rng.random() < 0.3:
        shade = tuple(max(0, min(255, v + rng.randint(-45, 45))) for v in first)
        ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((SIDE, SIDE))
        image.paste(Image.new("RGB", (SIDE, SIDE), shade), (0, 0), ramp)
    return image


def finish(image: Image.Image, rng: random.Random) -> Image.Image:
    """Grain, blur, light, or as it is."""
    if rng.random() < 0.25:
        image = Image.blend(image, Image.effect_noise((SIDE, SIDE), 60).convert("RGB"), rng.uniform(0.03, 0.15))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1)))
    if rng.random() < 0.3:
        image = image.point([min(255, int(v * f)) for f in [rng.uniform(0.75, 1.2)] for v in range(256)] * 3)
    return image


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(shape: str) -> str:
    return {"cross": "crosses"}.get(shape, f"{shape}s")


def pair(rng: random.Random, unseen: bool, apart: str = "") -> tuple[str, str]:
    """A colour and a shape; held-out pairs only where asked for, and no colour of the background."""
    while True:
        one = (rng.choice(list(COLOURS)), rng.choice(SHAPES))
        if (one in UNSEEN) == unseen and one[0] != apart:
            return one


def shape_scene(rng: random.Random, unseen: bool = False) -> tuple[Image.Image, str]:
    """One shape, several of one kind, or two side by side or above each other."""
    behind = rng.choice(list(COLOURS))
    image = ground(rng, behind)
    colour, shape = pair(rng, unseen, behind)
    angle = rng.uniform(-0.25, 0.25)
    said = rng.random() < 0.4
    on = f" on {article(behind)} background" if said else ""
    kind = rng.choices(("one", "several", "two"), (0.5, 0.2, 0.3))[0]
    if kind == "one":
        size = rng.choice(("small", "large", ""))
        radius = {"small": rng.uniform(7, 10), "large": rng.uniform(20, 26), "": rng.uniform(11, 24)}[size]
        at = tuple(rng.uniform(radius + 3, SIDE - radius - 3) for _ in "xy")
        draw(image, shape, tint(colour, rng), at, radius, angle)
        words = article(f"{size} {colour} {shape}".strip() if rng.random() < 0.8 else f"{colour} {shape}")
    elif kind == "several":
        n = rng.randint(2, 5)
        places = rng.sample([(x, y) for x in (12, 32, 52) for y in (12, 32, 52)], n)
        for x, y in places:
            draw(
                image,
                shape,
                tint(colour, rng),
                (x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)),
                rng.uniform(7, 9),
                angle,
            )
        words = f"{NUMBERS[n - 1]} {colour} {plural(shape)}"
    else:
        other = pair(rng, False, behind)
        across, swap = rng.random() < 0.5, rng.random() < 0.5
        near, far = rng.uniform(15, 19), rng.uniform(45, 49)
        for (c, s), along in (((colour, shape), near), (other, far)):
            at = (along, rng.uniform(24, 40)) if across else (rng.uniform(24, 40), along)
            draw(image, s, tint(c, rng), at, rng.uniform(10, 14), rng.uniform(-0.25, 0.25))
        first, second = article(f"{colour} {shape}"), article(" ".join(other))
        if swap:
            words = f"{second} {'to the right of' if across else 'below'} {first}"
        elif rng.random() < 0.3:
            words = f"{first} and {second}"
        else:
            words = f"{first} {'to the left of' if across else 'above'} {second}"
    return finish(image, rng), words + on


def sign_scene(rng: random.Random) -> tuple[Image.Image, str]:
    """A digit or a letter."""
    behind, colour = rng.sample(list(COLOURS), 2)
    image = ground(rng, behind)
    sign = rng.choice("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    size = rng.randint(28, 54)
    at = (32 + rng.uniform(-8, 8), 32 + rng.uniform(-8, 8))
    ImageDraw.Draw(image).text(at, sign, tint(colour, rng), font(rng.choice(FONTS), size), anchor="mm")
    name = f"number {sign}" if sign.isdigit() else f"letter {sign}"
    words = rng.choice(
        (
            f"the {name}",
            f"the {colour} {name}",
            f"the {name} in {colour}",
            f"the {name} on {article(behind)} background",
        )
    )
    return finish(image, rng), words


def place_icon(image: Image.Image, path: Path, at: tuple[float, float], size: float, rng: random.Random) -> None:
    one = picture(path)
    scale = size / max(one.size)
    one = one.resize((max(1, round(one.width * scale)), max(1, round(one.height * scale))), Image.Resampling.BILINEAR)
    if rng.random() < 0.3:
        one = one.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True)
    image.paste(one, (int(at[0] - one.width / 2), int(at[1] - one.height / 2)), one)


def icon_scene(rng: random.Random, known: list[Icon]) -> tuple[Image.Image, str]:
    """One emoji, or two."""

    def file(icon: Icon) -> Path:
        return icon.files[rng.choice(("google", "fluent") if icon.unseen else SETS)]

    behind = rng.choice([*COLOURS, "white", "white", "white"])
    image = ground(rng, behind)
    icon = rng.choice(known)
    if rng.random() < 0.15:
        other, across = rng.choice(known), rng.random() < 0.5
        for one, along in ((icon, 17), (other, 47)):
            place_icon(image, file(one), (along, 32) if across else (32, along), rng.uniform(24, 32), rng)
        join = rng.choice(("and", "to the left of" if across else "above"))
        return finish(image, rng), f"{article(icon.name)} {join} {article(other.name)}"
    place_icon(image, file(icon), (32 + rng.uniform(-6, 6), 32 + rng.uniform(-6, 6)), rng.uniform(36, 62), rng)
    words = rng.choice(
        (icon.name, icon.name, article(icon.name), article(icon.name), f"an icon of {article(icon.name)}",
         f"{article(icon.name)} on {article(behind)} background")
    )  # fmt: skip
    if icon.words and rng.random() < 0.35:
        extra = rng.sample(icon.words, min(len(icon.words), rng.randint(1, 3)))
        words = ", ".join([icon.name, *extra] if rng.random() < 0.6 else extra)
    return finish(image, rng), words


def scene(rng: random.Random, known: list[Icon], kind: str = "") -> tuple[Image.Image, str]:
    """One picture for training and its caption, in one of the ways that people write captions."""
    kind = kind or rng.choices(("icon", "shape", "sign"), (0.5, 0.4, 0.1))[0]
    image, words = (
        icon_scene(rng, known) if kind == "icon" else shape_scene(rng) if kind == "shape" else sign_scene(rng)
    )
    if re.match(r"(an?|the|two|three|four|five) ", words) and rng.random() < 0.3:
        words = f"{rng.choice(('a photo of', 'a picture of', 'an image of'))} {words}"
    elif rng.random() < 0.1:
        words = re.sub(r"^(an?|the) ", "", words)
    return image, words + "." * (rng.random() < 0.15)


def plain(icon: Icon, style: str) -> Image.Image:
    """An emoji on white, as one finds it."""
    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    place_icon(image, icon.files[style], (32, 32), 56, random.Random(0))
    return image
