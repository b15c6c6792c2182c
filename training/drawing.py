"""The brushes of the cartoon world: places, subjects and extras, drawn with Pillow.

Every brush takes a `Brush` (canvas and unit) and positions in pixels. One unit, `brush.unit`, is a fifth of the picture's
shorter side, so a scene looks the same at every size.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (222, 38, 42), "orange": (248, 140, 24), "yellow": (250, 218, 44), "green": (44, 168, 72), "blue": (40, 86, 224),
    "purple": (140, 54, 196), "pink": (248, 128, 186), "white": (246, 246, 248), "black": (30, 30, 36),
}  # fmt: skip
DARK, GLASS, STEEL, WOOD = (34, 34, 42), (176, 224, 248), (96, 98, 112), (128, 86, 48)
FLAME, FLAME_CORE, GOLD, SNOW = (255, 130, 16), (255, 232, 90), (255, 224, 90), (252, 252, 255)

# place -> (top of the sky, sky at the horizon, top of the ground, bottom of the ground); no ground: the sky fills the picture
PLACES: dict[str, tuple[Rgb, Rgb, Rgb | None, Rgb | None]] = {
    "sky": ((84, 164, 244), (204, 232, 252), None, None),
    "sunset": ((236, 92, 72), (254, 214, 140), (92, 50, 72), (60, 32, 56)),
    "night": ((10, 16, 58), (44, 56, 124), (20, 30, 40), (12, 18, 26)),
    "space": ((6, 4, 18), (26, 14, 50), None, None),
    "sea": ((120, 190, 248), (216, 236, 250), (36, 120, 204), (12, 56, 132)),
    "field": ((112, 186, 248), (216, 238, 250), (112, 196, 84), (52, 132, 52)),
    "desert": ((250, 196, 120), (254, 234, 190), (236, 198, 120), (206, 152, 80)),
    "city": ((140, 164, 204), (222, 228, 240), (100, 100, 108), (64, 64, 72)),
}
HORIZON = 0.70  # where the ground begins, in picture heights


def shade(colour: Rgb, factor: float) -> Rgb:
    """Darker below 1, lighter above."""
    if factor <= 1:
        return tuple(int(c * factor) for c in colour)
    return tuple(int(c + (255 - c) * (factor - 1)) for c in colour)


@dataclass(frozen=True)
class Brush:
    draw: ImageDraw.ImageDraw
    width: int
    height: int
    unit: float

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Rgb) -> None:
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def polygon(self, fill: Rgb, *points: tuple[float, float]) -> None:
        self.draw.polygon(points, fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, radius: float = 0) -> None:
        left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        self.draw.rounded_rectangle((left, top, right, bottom), radius, fill=fill)


def backdrop(place: str, width: int, height: int) -> Image.Image:
    """Sky and ground as vertical gradients, (height, width) pixels."""
    top, low, ground_top, ground_low = PLACES[place]
    horizon = height if ground_top is None else int(height * HORIZON)
    rows = np.linspace(top, low, horizon)
    if ground_top is not None:
        rows = np.concatenate([rows, np.linspace(ground_top, ground_low, height - horizon)])
    return Image.fromarray(np.repeat(rows[:, None].astype(np.uint8), width, axis=1))


# Extras. `rng` is seeded by the scene, so that they stand still from frame to frame; `t` moves what moves.


def stars(b: Brush) -> None:
    rng = random.Random(5)  # the same sky every night: a model of this size cannot guess sixteen places
    for _ in range(16):
        r = b.unit * 0.05
        b.ellipse(rng.random() * b.width, rng.random() * b.height * 0.66, r, r, (255, 255, 226))


def planet(b: Brush, rng: random.Random) -> None:
    x, y, r = b.width * (0.8 + rng.uniform(-0.03, 0.03)), b.height * 0.86, b.unit * 0.8
    b.ellipse(x, y, r, r, (196, 128, 92))
    b.ellipse(x, y, r * 1.7, r * 0.22, (236, 206, 160))


def waves(b: Brush, t: float) -> None:
    for row in range(3):
        y = b.height * (HORIZON + 0.07 + row * 0.09)
        for k in range(-1, math.ceil(b.width / b.unit) + 1):
            x = (k + 0.5 * row + 0.5 * math.sin(2 * t + row)) * b.unit
            b.box(x, y, x + b.unit * 0.45, y + b.unit * 0.07, (120, 184, 240), b.unit * 0.03)


def skyline(b: Brush, rng: random.Random) -> None:
    foot, x = b.height * HORIZON, b.unit * rng.uniform(-0.35, 0)
    for w, h, tone in cycle(((1.0, 1.3, 108), (1.1, 2.0, 86), (1.0, 0.9, 128), (1.1, 1.6, 108), (1.0, 1.2, 86))):
        if x > b.width:
            break
        w, h = w * b.unit, h * b.unit
        b.box(x, foot - h, x + w, foot, (tone, tone, tone + 16))
        for row in range(int((h - b.unit * 0.1) / (b.unit * 0.5))):
            for column in (0.16, 0.56):
                wx, wy = x + w * column, foot - h + b.unit * (0.16 + 0.5 * row)
                b.box(wx, wy, wx + b.unit * 0.27, wy + b.unit * 0.27, (250, 226, 136))
        x += w + b.unit * 0.05


def road(b: Brush) -> None:
    y = b.height * (HORIZON + 0.19)
    for k in range(math.ceil(b.width / b.unit)):
        b.box((k + 0.2) * b.unit, y, (k + 0.75) * b.unit, y + b.unit * 0.09, (232, 226, 190))


def sun(b: Brush, rng: random.Random) -> None:
    x, r = b.width * (0.82 + rng.uniform(-0.05, 0.05)), b.unit * 0.5
    b.ellipse(x, b.height * 0.15, r, r, GOLD)


def moon(b: Brush, rng: random.Random) -> None:
    x, r = b.width * (0.82 + rng.uniform(-0.05, 0.05)), b.unit * 0.46
    b.ellipse(x, b.height * 0.16, r, r, (240, 238, 214))
    b.ellipse(x - r * 0.3, b.height * 0.16 - r * 0.2, r * 0.22, r * 0.22, (206, 204, 184))


def mountains(b: Brush, rng: random.Random) -> None:
    foot, start = b.height * HORIZON, rng.uniform(-0.2, 0.2)
    for k in range(math.ceil(b.width / (2 * b.unit)) + 1):
        x, h, w = (start + 2 * k) * b.unit, b.unit * (1.2, 1.6)[k % 2], b.unit * 1.3
        b.polygon((124, 120, 142), (x - w, foot), (x, foot - h), (x + w, foot))
        b.polygon(SNOW, (x - w * 0.3, foot - h * 0.7), (x, foot - h), (x + w * 0.3, foot - h * 0.7))


def trees(b: Brush, rng: random.Random) -> None:
    foot = b.height * HORIZON + b.unit * 0.1
    for side in (0.08, 0.24, 0.78, 0.93):
        x, r = b.width * (side + rng.uniform(-0.03, 0.03)), b.unit * 0.42
        b.box(x - r * 0.2, foot - r, x + r * 0.2, foot, WOOD)
        b.ellipse(x, foot - r * 1.7, r, r, (36, 122, 54))


def clouds(b: Brush, rng: random.Random, t: float) -> None:
    for k in range(max(2, round(b.width / (2.5 * b.unit)))):
        x = (0.7 + 2.6 * k + rng.uniform(-0.25, 0.25) + 0.2 * t) * b.unit
        y, r = b.height * ((0.14, 0.22)[k % 2] + rng.uniform(-0.03, 0.03)), b.unit * 0.32
        for dx, dy, s in ((-1.1, 0.1, 0.8), (0, -0.15, 1.05), (1.1, 0.1, 0.8), (0, 0.25, 1.2)):
            b.ellipse(x + dx * r, y + dy * r, s * r * 1.1, s * r * 0.85, SNOW)


def rain(b: Brush, rng: random.Random, t: float) -> None:
    for _ in range(22):
        x, y = rng.random() * b.width, ((rng.random() + 0.5 * t) % 1) * b.height
        b.draw.line((x, y, x - b.unit * 0.06, y + b.unit * 0.34), fill=(150, 186, 236), width=max(1, round(b.unit * 0.06)))


def snow(b: Brush, rng: random.Random, t: float) -> None:
    for _ in range(24):
        x, y = rng.random() * b.width, ((rng.random() + 0.16 * t) % 1) * b.height
        b.ellipse(x, y, b.unit * 0.07, b.unit * 0.07, SNOW)


# Subjects: centred on (x, y), `s` the half size in pixels, `side` 1 facing right or -1 facing left, `t` seconds for what flaps:
# slowly enough that seven frames a second show every beat.


def rocket(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float, *, fire: bool) -> None:
    if fire:
        f = 1 + 0.22 * math.sin(5 * t)
        b.polygon(FLAME, (x - 0.3 * s, y + 0.6 * s), (x + 0.3 * s, y + 0.6 * s), (x, y + (1.05 + 0.35 * f) * s))
        b.polygon(FLAME_CORE, (x - 0.16 * s, y + 0.6 * s), (x + 0.16 * s, y + 0.6 * s), (x, y + (0.85 + 0.2 * f) * s))
    for k in (-1, 1):
        b.polygon(STEEL, (x + 0.28 * k * s, y + 0.1 * s), (x + 0.62 * k * s, y + 0.72 * s), (x + 0.22 * k * s, y + 0.62 * s))
    b.box(x - 0.32 * s, y - 0.55 * s, x + 0.32 * s, y + 0.66 * s, c, 0.06 * s)
    nose = COLOURS["white"] if c == COLOURS["red"] else (206, 48, 46)
    b.polygon(nose, (x - 0.33 * s, y - 0.5 * s), (x, y - 1.1 * s), (x + 0.33 * s, y - 0.5 * s))
    b.ellipse(x, y - 0.15 * s, 0.18 * s, 0.18 * s, GLASS)


def airplane(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    dark = shade(c, 0.68) if c != COLOURS["black"] else shade(c, 1.3)
    b.polygon(
        dark,
        (x - 0.7 * side * s, y),
        (x - 1.1 * side * s, y - 0.55 * s),
        (x - 0.72 * side * s, y - 0.55 * s),
        (x - 0.3 * side * s, y),
    )
    b.ellipse(x, y, 1.05 * s, 0.26 * s, c)
    b.polygon(
        dark,
        (x + 0.25 * side * s, y),
        (x - 0.15 * side * s, y),
        (x - 0.6 * side * s, y + 0.62 * s),
        (x - 0.3 * side * s, y + 0.62 * s),
    )
    b.ellipse(x + 0.66 * side * s, y - 0.08 * s, 0.15 * s, 0.1 * s, GLASS)


def car(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    b.polygon(
        c,
        (x - 0.75 * side * s, y - 0.15 * s),
        (x - 0.55 * side * s, y - 0.62 * s),
        (x + 0.15 * side * s, y - 0.62 * s),
        (x + 0.45 * side * s, y - 0.15 * s),
    )
    b.polygon(
        GLASS,
        (x - 0.56 * side * s, y - 0.18 * s),
        (x - 0.44 * side * s, y - 0.52 * s),
        (x + 0.1 * side * s, y - 0.52 * s),
        (x + 0.3 * side * s, y - 0.18 * s),
    )
    b.box(x - s, y - 0.2 * s, x + s, y + 0.3 * s, c, 0.14 * s)
    b.ellipse(x + 0.9 * side * s, y, 0.11 * s, 0.11 * s, GOLD)
    for k in (-0.55, 0.55):
        b.ellipse(x + k * s, y + 0.32 * s, 0.28 * s, 0.28 * s, DARK)
        b.ellipse(x + k * s, y + 0.32 * s, 0.12 * s, 0.12 * s, (200, 200, 206))


def boat(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    b.box(x - 0.06 * s, y - 1.05 * s, x + 0.06 * s, y + 0.1 * s, WOOD)
    b.polygon(SNOW, (x + 0.1 * side * s, y - 1.0 * s), (x + 0.1 * side * s, y - 0.05 * s), (x + 0.75 * side * s, y - 0.05 * s))
    b.polygon(
        c,
        (x - 0.85 * side * s, y + 0.06 * s),
        (x + 1.05 * side * s, y + 0.06 * s),
        (x + 0.6 * side * s, y + 0.52 * s),
        (x - 0.65 * side * s, y + 0.52 * s),
    )


def balloon(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    for k in (-1, 1):
        b.polygon(
            WOOD,
            (x + 0.4 * k * s, y + 0.2 * s),
            (x + 0.5 * k * s, y + 0.2 * s),
            (x + 0.2 * k * s, y + 0.85 * s),
            (x + 0.12 * k * s, y + 0.85 * s),
        )
    b.ellipse(x, y - 0.3 * s, 0.75 * s, 0.78 * s, c)
    b.ellipse(x, y - 0.3 * s, 0.3 * s, 0.78 * s, shade(c, 1.45))
    b.box(x - 0.24 * s, y + 0.75 * s, x + 0.24 * s, y + 1.08 * s, WOOD, 0.05 * s)


def ball(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    b.ellipse(x, y, 0.62 * s, 0.62 * s, c)
    b.box(x - 0.6 * s, y - 0.1 * s, x + 0.6 * s, y + 0.1 * s, SNOW if c != COLOURS["white"] else (206, 48, 46))
    b.ellipse(x - 0.2 * s, y - 0.32 * s, 0.13 * s, 0.13 * s, shade(c, 1.7))


def bird(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    flap, dark = math.sin(4 * t + 1.1), shade(c, 0.68) if c != COLOURS["black"] else shade(c, 1.3)
    b.polygon(c, (x - 0.5 * side * s, y), (x - 1.0 * side * s, y - 0.16 * s), (x - 1.0 * side * s, y + 0.2 * s))
    b.ellipse(x, y, 0.66 * s, 0.3 * s, c)
    b.ellipse(x + 0.6 * side * s, y - 0.2 * s, 0.27 * s, 0.25 * s, c)
    b.polygon(
        (250, 168, 30),
        (x + 0.82 * side * s, y - 0.28 * s),
        (x + 1.12 * side * s, y - 0.16 * s),
        (x + 0.82 * side * s, y - 0.08 * s),
    )
    b.ellipse(x + 0.66 * side * s, y - 0.26 * s, 0.06 * s, 0.06 * s, SNOW if c == COLOURS["black"] else DARK)
    b.polygon(dark, (x - 0.3 * s, y - 0.05 * s), (x + 0.3 * s, y - 0.05 * s), (x - 0.25 * side * s, y - (0.1 + 0.75 * flap) * s))


def fish(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    wag = 0.16 * math.sin(5 * t)
    b.polygon(
        shade(c, 0.75),
        (x - 0.5 * side * s, y),
        (x - 1.1 * side * s, y + (wag - 0.42) * s),
        (x - 1.1 * side * s, y + (wag + 0.42) * s),
    )
    b.polygon(shade(c, 0.75), (x - 0.3 * side * s, y - 0.3 * s), (x - 0.1 * side * s, y - 0.68 * s), (x + 0.3 * side * s, y - 0.3 * s))
    b.ellipse(x, y, 0.8 * s, 0.44 * s, c)
    b.ellipse(x + 0.45 * side * s, y - 0.1 * s, 0.13 * s, 0.13 * s, SNOW)
    b.ellipse(x + 0.48 * side * s, y - 0.1 * s, 0.06 * s, 0.06 * s, DARK)


def ufo(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    b.ellipse(x, y - 0.14 * s, 0.52 * s, 0.5 * s, GLASS)
    b.ellipse(x, y + 0.1 * s, 1.08 * s, 0.32 * s, c)
    for k in (-0.6, 0, 0.6):
        b.ellipse(x + k * s, y + 0.14 * s, 0.13 * s, 0.13 * s, GOLD if c != COLOURS["yellow"] else DARK)


def train(b: Brush, x: float, y: float, s: float, c: Rgb, side: int, t: float) -> None:
    for k in (1, 0):  # the wagon behind, then the engine
        cx = x - side * (k * 1.15 - 0.4) * s
        b.box(cx - 0.52 * s, y - (0.35 if k else 0.2) * s, cx + 0.52 * s, y + 0.28 * s, shade(c, 0.72) if k else c, 0.05 * s)
        if k:
            for w in (-0.26, 0.2):
                b.box(cx + (w - 0.12) * s, y - 0.24 * s, cx + (w + 0.16) * s, y, GLASS)
        else:
            b.box(cx - side * 0.52 * s, y - 0.6 * s, cx - side * 0.05 * s, y, c)
            b.box(cx - side * 0.42 * s, y - 0.5 * s, cx - side * 0.15 * s, y - 0.22 * s, GLASS)
            b.box(cx + side * 0.18 * s, y - 0.55 * s, cx + side * 0.38 * s, y - 0.2 * s, DARK)
        for w in (-0.28, 0.28):
            b.ellipse(cx + w * s, y + 0.32 * s, 0.2 * s, 0.2 * s, DARK)
