"""A small network that reads cartoon pictures: what, which colour, where, and at which point of the picture it is.

It is trained on the renderer alone and never sees a generated picture, so it can judge them. About five minutes on one core.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import nn

from training.drawing import COLOURS, PLACES
from training.world import SUBJECTS, random_scene

SIDE, BATCH = 96, 48
SYMMETRIC = ("rocket", "balloon", "ball", "ufo")  # the same picture, whichever side they face
COLOUR_NAMES, PLACE_NAMES = tuple(COLOURS), tuple(PLACES)


@dataclass(frozen=True)
class Verdict:
    """`x`, `y`: the subject's centre, in picture sizes. `side`: 1 faces right, -1 left."""

    subject: str
    colour: str
    place: str
    side: int
    x: float
    y: float


class Judge(nn.Module):
    """(n, 3, 96, 96) in 0..1 to subject, colour, place and side logits and (n, 2) the subject's centre."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [3, width, 2 * width, 3 * width, 3 * width]
        layers: list[nn.Module] = []
        for k, (a, b) in enumerate(pairwise(sizes)):
            layers += [nn.Conv2d(a, b, 3, padding=1, stride=2 if k < 3 else 1), nn.GroupNorm(8, b), nn.SiLU()]
            layers += [nn.Conv2d(b, b, 3, padding=1), nn.GroupNorm(8, b), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.where = nn.Conv2d(sizes[-1], 1, 3, padding=1)
        self.what = nn.Linear(2 * sizes[-1], len(SUBJECTS) + len(COLOURS) + len(PLACES) + 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.features(x * 2 - 1)
        n, _, h, w = features.shape
        attention = self.where(features).flatten(1).softmax(1).view(n, 1, h, w)
        rows, columns = torch.linspace(0.5 / h, 1 - 0.5 / h, h), torch.linspace(0.5 / w, 1 - 0.5 / w, w)
        centre = torch.stack([(attention[:, 0].sum(1) * columns).sum(1), (attention[:, 0].sum(2) * rows).sum(1)], 1)
        pooled = torch.cat([(features * attention).sum((2, 3)), features.mean((2, 3))], 1)
        return *self.what(pooled).split([len(SUBJECTS), len(COLOURS), len(PLACES), 1], 1), centre


def to_input(pictures: list[np.ndarray]) -> torch.Tensor:
    """(h, w, 3) uint8 of any size to (n, 3, 96, 96) in 0..1."""
    small = [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BOX)) for p in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255


def _example(rng: random.Random) -> tuple[np.ndarray, list[float]]:
    """A rendered picture, sometimes softened or noisy as a decoder makes them, and the truth about it."""
    while True:
        scene, t = random_scene(rng, held_out=rng.random() < 0.14), rng.uniform(0, 2)
        x, y = scene.position(t)
        if 0.02 < x < 0.98 and 0.02 < y < 0.98:
            break
    side = rng.choice((96, 128, 192))
    picture = scene.frame(t, side, side)
    if rng.random() < 0.5:
        picture = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(side / 96 * rng.uniform(0.2, 1.2))))
    if rng.random() < 0.3:
        noise = np.random.default_rng(rng.randrange(1 << 30)).normal(0, rng.uniform(2, 10), picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    truth = [SUBJECTS.index(scene.subject), COLOUR_NAMES.index(scene.colour), PLACE_NAMES.index(scene.place), scene.side > 0, x, y]
    return picture, truth


def train_judge(path: Path, steps: int = 1300) -> Judge:
    """The judge at `path`, trained there first if there is none."""
    judge = Judge()
    if path.exists():
        judge.load_state_dict(torch.load(path, weights_only=True))
        return judge.eval()
    torch.manual_seed(9)
    rng = random.Random(9)
    examples = [_example(rng) for _ in range(7000)]
    inputs, truth = to_input([picture for picture, _ in examples]), torch.tensor([facts for _, facts in examples])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        pick = torch.randint(0, len(inputs), (BATCH,))
        subject, colour, place, side, centre = judge(inputs[pick])
        facts = truth[pick]
        loss = sum(F.cross_entropy(logits, facts[:, k].long()) for k, logits in enumerate((subject, colour, place)))
        loss = loss + 0.5 * F.binary_cross_entropy_with_logits(side[:, 0], facts[:, 3]) + 20 * F.l1_loss(centre, facts[:, 4:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"judge: step {step} loss {loss:.3f}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(judge.state_dict(), path)
    return judge.eval()


@torch.no_grad()
def read(judge: Judge, pictures: list[np.ndarray]) -> list[Verdict]:
    """What the judge sees in each (h, w, 3) uint8 picture."""
    subject, colour, place, side, centre = judge(to_input(pictures))
    names = [
        (SUBJECTS[s], COLOUR_NAMES[c], PLACE_NAMES[p]) for s, c, p in zip(subject.argmax(1), colour.argmax(1), place.argmax(1), strict=True)
    ]
    return [Verdict(*names[k], 1 if side[k] > 0 else -1, *centre[k].tolist()) for k in range(len(pictures))]


def validate(judge: Judge, count: int = 500) -> dict[str, float]:
    """How well it reads fresh rendered pictures; its own error bounds what it can say of others."""
    rng = random.Random(77)
    examples = [_example(rng) for _ in range(count)]
    verdicts = read(judge, [picture for picture, _ in examples])
    truth = [facts for _, facts in examples]
    faces = [k for k, facts in enumerate(truth) if SUBJECTS[int(facts[0])] not in SYMMETRIC]
    return {
        "subject": np.mean([v.subject == SUBJECTS[int(f[0])] for v, f in zip(verdicts, truth, strict=True)]),
        "colour": np.mean([v.colour == COLOUR_NAMES[int(f[1])] for v, f in zip(verdicts, truth, strict=True)]),
        "place": np.mean([v.place == PLACE_NAMES[int(f[2])] for v, f in zip(verdicts, truth, strict=True)]),
        "side": np.mean([(verdicts[k].side > 0) == truth[k][3] for k in faces]),
        "centre_error": np.mean([abs(v.x - f[4]) + abs(v.y - f[5]) for v, f in zip(verdicts, truth, strict=True)]) / 2,
    }
