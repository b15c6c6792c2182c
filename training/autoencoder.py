"""Train the demo autoencoder (AutoencoderKL, 8x smaller, 4 channels) on crops of the cartoon world.

    python -m training.autoencoder --minutes 25

Three of the four latent channels are drawn towards the picture's own colours at 1/8 of its size (brightness and two colour
differences). Latents that look like a small picture are quickly learnt by the diffusion models that come after; the network
stays free to hide edges in them.
"""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F

from training.architecture import make_vae
from training.loop import Run, arguments, lower_precision
from training.world import random_scene

CROP, BATCH = 64, 16


def crop_source(count: int, rng: random.Random) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Frames of many sizes, each with the pixel where its subject is."""
    frames = []
    for _ in range(count):
        width, height = rng.choice(range(128, 321, 16)), rng.choice(range(128, 321, 16))
        scene, t = random_scene(rng), rng.uniform(0, 1.5)
        x, y = scene.position(t)
        frames.append((scene.frame(t, width, height), (int(x * width), int(y * height))))
    return frames


def crop(frames: list, rng: random.Random) -> np.ndarray:
    picture, (x, y) = rng.choice(frames)
    height, width = picture.shape[:2]
    if rng.random() < 0.65:  # near the subject, where the edges are
        x, y = x + rng.randint(-40, 40) - CROP // 2, y + rng.randint(-40, 40) - CROP // 2
    else:
        x, y = rng.randint(0, width), rng.randint(0, height)
    x, y = min(max(x, 0), width - CROP), min(max(y, 0), height - CROP)
    return picture[y : y + CROP, x : x + CROP]


def crops(frames: list, rng: random.Random, device: str) -> torch.Tensor:
    """A batch of them, (16, 3, 64, 64) in -1..1."""
    x = torch.from_numpy(np.stack([crop(frames, rng) for _ in range(BATCH)])).permute(0, 3, 1, 2)
    return x.to(device).float() / 127.5 - 1


def small_picture(x: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w) in -1..1 to (n, 3, h/8, w/8): brightness, warm-cold and green-purple, of about unit spread."""
    r, g, b = F.avg_pool2d(x, 8).unbind(1)
    return torch.stack([(r + g + b) * 0.7, (r - b) * 1.4, (2 * g - r - b) * 1.6], 1)


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Pixels, and the differences between neighbouring pixels: crisp edges."""
    error = output - target
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def main() -> None:
    parser = arguments(__doc__.split("\n")[0], minutes=25)
    options = parser.parse_args()
    rng = random.Random(1)
    torch.manual_seed(1)
    vae = make_vae().to(options.device)
    run = Run("autoencoder", vae, options, lr=1.5e-3)
    rng.seed(run.step)
    frames = crop_source(2500, rng)
    for step in run:
        if step % 1500 == 1499:
            frames = crop_source(2500, rng)
        x = crops(frames, rng, options.device)
        with lower_precision(options.device):
            posterior = vae.encode(x).latent_dist
            z = posterior.sample()
            y = vae.decode(z).sample
        aligned = (posterior.mean[:, :3].float() - small_picture(x)).square().mean()
        kl = posterior.kl().float().mean() / (CROP // 8) ** 2
        loss = reconstruction_loss(y.float(), x) + 0.03 * aligned + 2e-4 * kl
        run.learn(loss)
        if step % 100 == 0:
            print(f"  l1 {(y - x).abs().mean():.4f} aligned {aligned:.3f} kl {kl:.2f} std {posterior.std.mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
