"""Train the demo vision tower: a CLIPVisionModelWithProjection that knows what a picture shows, and which way it faces.

    python -m training.vision_encoder

Like the text encoder it is trained beforehand and stays as it is while the motion model learns: Stable Video Diffusion's is one half
of CLIP. Learnt together with the UNet, its embedding was not used at all after 2,300 steps, and nothing moved its way.
"""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipelines.image_to_video import CLIP_MEAN, CLIP_STD
from training.architecture import CONTEXT, make_vision
from training.drawing import COLOURS, PLACES
from training.latents import centre_square
from training.loop import Run, arguments
from training.world import SUBJECTS, random_scene

BATCH, PICTURES = 64, 7000
_SIZES = [len(SUBJECTS), len(COLOURS), len(PLACES), 2]


class VisionModel(nn.Module):
    """The tower, and the heads that read its embedding while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = make_vision()
        self.heads = nn.Linear(CONTEXT, sum(_SIZES) + 2)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 3, 224, 224), normalised, to logits of subject, colour, place, side and (n, 2) the subject's centre."""
        return self.heads(self.vision(pictures).image_embeds).split([*_SIZES, 2], dim=-1)


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """(n, 224, 224, 3) uint8 to (n, 3, 224, 224) as CLIP's vision tower takes them."""
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    return (pictures.permute(0, 3, 1, 2) / 255 - mean) / std


def main() -> None:
    options = arguments(__doc__.split("\n")[0], minutes=8).parse_args()
    torch.manual_seed(7)
    run = Run("vision_encoder", model := VisionModel().to(options.device), options, lr=2e-3, ema=0.99)
    rng = random.Random(7)
    pictures, truth = [], []
    for _ in range(PICTURES):
        scene = random_scene(rng)
        width, height = rng.choice(((192, 192), (224, 224), (128, 128), (192, 128), (128, 192)))
        pictures.append(centre_square(scene.frame(rng.choice((0, rng.uniform(0, 0.4))), width, height)))
        facts = (SUBJECTS.index(scene.subject), list(COLOURS).index(scene.colour), list(PLACES).index(scene.place), int(scene.side > 0))
        truth.append([*facts, *scene.position(0)])
    shown = torch.cat([normalised(part).bfloat16() for part in torch.stack(pictures).split(100)])
    facts_of = torch.tensor(np.array(truth), dtype=torch.float32)
    for step in run:
        pick = torch.randint(0, PICTURES, (BATCH,))
        x = shown[pick]
        if step % 4 == 0:  # decoded and augmented stills are not clean
            x = x + 0.15 * torch.rand(BATCH, 1, 1, 1, dtype=x.dtype) * torch.randn_like(x)
        *logits, centre = model(x.to(options.device).float())
        target = facts_of[pick].to(options.device)
        loss = sum(F.cross_entropy(values, target[:, k].long()) for k, values in enumerate(logits))
        run.learn(loss + 10 * F.l1_loss(centre, target[:, 4:]))
        if step % 200 == 0:
            hits = [(values.argmax(1) == target[:, k]).float().mean().item() for k, values in enumerate(logits)]
            print(f"  step {step} subject, colour, place, side right: {' '.join(f'{hit:.2f}' for hit in hits)}", flush=True)


if __name__ == "__main__":
    main()
