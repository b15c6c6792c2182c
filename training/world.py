"""A procedural cartoon world: scenes with captions and motion, the whole training set of the demo checkpoints.

A `Scene` is a set of facts (subject, colour, place, extras, where, which way). `caption` says them in one of many phrasings,
`frame` draws them at a moment, `position` tells where the subject then is. Same scene, same picture, at every size.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from training import drawing

# Colours that cannot be told from the place are left out of training and of the evaluation.
UNSEEN = {
    "night": {"black", "blue"},
    "space": {"black", "purple"},
    "sunset": {"orange"},
    "desert": {"orange", "yellow"},
    "sea": {"blue"},
    "sky": {"blue"},
}
HOMES = {
    "rocket": ("sky", "sunset", "night", "space", "field", "desert"),
    "airplane": ("sky", "sunset", "night", "city", "sea"),
    "car": ("city", "desert", "field", "sunset"),
    "boat": ("sea",),
    "balloon": ("sky", "sunset", "field", "city"),
    "ball": ("field", "desert", "city"),
    "bird": ("sky", "sunset", "sea", "field"),
    "fish": ("sea",),
    "ufo": ("space", "night", "city", "desert"),
    "train": ("field", "desert", "city", "sunset"),
}
SUBJECTS = tuple(HOMES)
NAMES = {
    "airplane": ("airplane", "airplane", "plane", "aeroplane", "jet"),
    "car": ("car", "car", "automobile"),
    "boat": ("boat", "boat", "sailboat", "ship"),
    "balloon": ("balloon", "hot air balloon"),
    "rocket": ("rocket", "rocket", "space rocket", "rocket ship"),
    "ufo": ("ufo", "flying saucer"),
    "train": ("train", "train", "locomotive"),
}
DEEDS = {
    "rocket": ("takes off from the ground", "takes off", "is taking off", "launches", "lifts off", "flies up", "rises"),
    "airplane": ("flies", "is flying", "crosses", "flying"),
    "car": ("drives", "is driving", "races", "driving"),
    "boat": ("sails", "is sailing", "sailing"),
    "balloon": ("floats", "rises", "is floating", "floating"),
    "ball": ("bounces", "is bouncing", "bouncing"),
    "bird": ("flies", "is flying", "flying", "flaps its wings"),
    "fish": ("swims", "is swimming", "swimming"),
    "ufo": ("hovers", "is hovering", "flies", "hovering"),
    "train": ("runs", "is moving", "rolls", "passes"),
}
WHERE = {
    "sky": (("in the sky", "in the blue sky", "up in the sky"), ("sky", "blue sky")),
    "sunset": (("at sunset", "in the evening", "at dusk"), ("sunset", "sunset sky", "evening")),
    "night": (("at night", "in the night sky", "in the dark"), ("night", "night sky", "stars")),
    "space": (("in space", "in outer space"), ("space", "outer space", "space, stars")),
    "sea": (("on the sea", "at sea", "over the ocean", "in the water"), ("sea", "ocean", "water, waves")),
    "field": (("in a green field", "over the grass", "in a meadow"), ("field", "green field", "grass", "meadow")),
    "desert": (("in the desert", "over the sand"), ("desert", "desert, sand", "sand dunes")),
    "city": (("in the city", "in a town", "in front of buildings"), ("city", "city, buildings", "town, street")),
}
EXTRAS = {
    "airplane": ("airplane", "a plane", "small airplane"),
    "sun": ("sun", "sunny", "bright sun"),
    "moon": ("moon", "full moon"),
    "fire": ("fire", "flames", "with fire"),
}
STYLES = ("", "", "", "", "", "cartoon of ", "a picture of ", "a film of ", "cute ", "simple cartoon, ")


@dataclass(frozen=True)
class Scene:
    """`x`, `y`: offsets of the subject in picture sizes; `size`: 1 is usual; `side`: 1 faces right, -1 left."""

    subject: str
    colour: str
    place: str
    extras: tuple[str, ...]
    seed: int
    x: float
    y: float
    size: float
    side: int

    def position(self, t: float) -> tuple[float, float]:
        """The subject's centre after `t` seconds, in picture sizes (0..1; outside once it has left)."""
        x, y, side = 0.5 + self.x, 0.45 + self.y, self.side
        start = x - 0.07 * side  # what crosses the picture has room before it
        match self.subject:
            case "rocket":
                return x, 0.62 + self.y - 0.12 * t - 0.02 * t * t
            case "airplane":
                return start + 0.13 * side * t, y - 0.02 * t
            case "car":
                return start + 0.15 * side * t, 0.77
            case "boat":
                return start + 0.11 * side * t, 0.68 + 0.012 * math.sin(4 * t)
            case "balloon":
                return x + 0.02 * t, y + 0.05 - 0.11 * t
            case "ball":
                return x + 0.05 * t, 0.76 - 0.13 * abs(math.cos(1.2 * t))
            case "bird":
                return start + 0.13 * side * t, y + 0.02 - 0.03 * t
            case "fish":
                return start + 0.12 * side * t, 0.84 + 0.01 * math.sin(5 * t)
            case "ufo":
                return x + 0.13 * math.sin(1.6 * t), y - 0.03 + 0.02 * math.sin(3 * t)
            case _:
                return start + 0.12 * side * t, 0.76

    def frame(self, t: float, width: int, height: int) -> np.ndarray:
        """The picture after `t` seconds: (height, width, 3) uint8."""
        rng, k = random.Random(self.seed), 2  # drawn twice as large, then averaged: smooth edges
        image = drawing.backdrop(self.place, width * k, height * k)
        b = drawing.Brush(ImageDraw.Draw(image), width * k, height * k, min(width, height) * k / 5)
        if self.place in ("night", "space"):
            drawing.stars(b)
        if self.place == "space":
            drawing.planet(b, rng)
        for name in ("sun", "moon", "mountains"):
            if name in self.extras:
                getattr(drawing, name)(b, rng)
        if self.place == "city":
            drawing.skyline(b, rng)
            drawing.road(b)
        if self.place == "sea":
            drawing.waves(b, t)
        if self.subject == "rocket" and self.place == "sky":  # something to take off from
            b.box(0, b.height * 0.9, b.width, b.height, (96, 168, 84))
        if "trees" in self.extras:
            drawing.trees(b, rng)
        if "clouds" in self.extras:
            drawing.clouds(b, rng, t)
        if "airplane" in self.extras:
            x = (0.2 if self.side > 0 else 0.8) + 0.1 * self.side * t
            drawing.airplane(b, b.width * x, b.height * 0.2, b.unit * 0.45, drawing.COLOURS["white"], self.side, t)
        x, y = self.position(t)
        extra = {"fire": "fire" in self.extras} if self.subject == "rocket" else {}
        paint = getattr(drawing, self.subject)
        paint(b, x * b.width, y * b.height, b.unit * 1.6 * self.size, drawing.COLOURS[self.colour], self.side, t, **extra)
        for name in ("rain", "snow"):
            if name in self.extras:
                getattr(drawing, name)(b, rng, t)
        return np.asarray(image.resize((width, height), Image.Resampling.BOX))

    def caption(self, rng: random.Random) -> str:
        """One of the many ways to say this scene. Colour and extras are sometimes left unsaid, as people do."""
        colour = f"{self.colour} " if rng.random() < 0.85 else ""
        subject = colour + rng.choice(NAMES.get(self.subject, (self.subject,)))
        inside, listed = (rng.choice(phrases) for phrases in WHERE[self.place])
        extras = [rng.choice(EXTRAS.get(e, (e,))) for e in self.extras]
        rng.shuffle(extras)
        deed, article = rng.choice(DEEDS[self.subject]), "an " if subject[0] in "aeio" else "a "
        match rng.randrange(5):
            case 0 | 1:
                text = ", ".join([f"{article}{subject} {deed} {inside}", *extras])
            case 2:
                words = [listed, *extras]
                rng.shuffle(words)
                text = ", ".join([f"{subject} {deed}", *words])
            case 3:
                text = ", ".join([subject, listed, *extras])
            case _:
                text = f"{article}{subject} {inside}" + (" with " + " and ".join(extras) if extras else "")
        text = rng.choice(STYLES) + text
        return text[0].upper() + text[1:] if rng.random() < 0.3 else text


def extras_of(subject: str, place: str, rng: random.Random) -> tuple[str, ...]:
    chances = {
        "fire": 0.8 * (subject == "rocket"),
        "airplane": 0.3 * (subject in ("rocket", "balloon") and place != "space"),
        "clouds": 0.4 * (place in ("sky", "sunset", "field", "sea", "city")),
        "sun": 0.35 * (place in ("sky", "field", "sea", "desert")),
        "moon": 0.4 * (place == "night"),
        "mountains": 0.35 * (place in ("field", "desert")),
        "trees": 0.35 * (place == "field"),
        "rain": 0.08 * (place in ("city", "field", "sea")),
        "snow": 0.1 * (place in ("city", "field", "night")),
    }
    return tuple(name for name, chance in chances.items() if rng.random() < chance)


def is_held_out(subject: str, colour: str, place: str) -> bool:
    """Of one combination in seven no picture is ever trained on; the evaluation asks for these. (Captions of all are read by the text
    encoder, as CLIP's has read of everything.)"""
    return (SUBJECTS.index(subject) + 3 * list(drawing.COLOURS).index(colour) + 5 * list(drawing.PLACES).index(place)) % 7 == 3


def random_scene(rng: random.Random, *, subject: str | None = None, held_out: bool = False) -> Scene:
    """A scene of the training set or, with `held_out`, of the combinations kept from it; a given subject is kept. All face right: shown
    both sides, a still model of this size draws planes with a tail at either end, and no film can tell which way they fly."""
    while True:
        chosen = subject or rng.choice(SUBJECTS)
        place = rng.choice(HOMES[chosen])
        colour = rng.choice([c for c in drawing.COLOURS if c not in UNSEEN.get(place, ())])
        if is_held_out(chosen, colour, place) == held_out:
            break
    return Scene(
        chosen, colour, place, extras_of(chosen, place, rng), rng.randrange(1 << 30),
        x=rng.uniform(-0.04, 0.04), y=rng.uniform(-0.03, 0.03), size=rng.uniform(0.95, 1.06), side=1,
    )  # fmt: skip


def film(scene: Scene, frames: int, width: int, height: int, *, motion_bucket: float = 127, fps: float = 7) -> np.ndarray:
    """(frames, height, width, 3) uint8. Time runs at motion_bucket / 210 (127, Stable Video Diffusion's default, is three fifths: at
    200 a subject is still in the picture after two seconds); one frame lasts 1/fps seconds."""
    return np.stack([scene.frame(k / fps * motion_bucket / 210, width, height) for k in range(frames)])
