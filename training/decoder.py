"""Go on training the demo autoencoder's decoder alone. The latents stay what they are, so this may run beside the other trainings.

    python -m training.decoder --minutes 40

It sees whole pictures, not crops: its group norms take their statistics from all of a picture, and a decoder that has only seen crops
tints the sky. And it sees latents with a little noise on them, as a diffusion model makes them, and learns crisp edges from those too.
"""

from __future__ import annotations

import random

import numpy as np
import torch

from training.architecture import VAE
from training.autoencoder import reconstruction_loss
from training.latents import STILL_SIZES, choose, standardised_vae
from training.loop import Run, arguments, lower_precision
from training.world import random_scene

NOISE = 0.06 / VAE["scaling_factor"]  # of latents with unit spread
PIXELS_A_STEP = 2 * 192 * 192


def pictures(rng: random.Random) -> torch.Tensor:
    """A batch of one size, (n, 3, height, width) in -1..1."""
    height, width = (8 * side for side in choose(STILL_SIZES, rng))
    count = max(1, PIXELS_A_STEP // (height * width))
    frames = [random_scene(rng).frame(rng.uniform(0, 2), width, height) for _ in range(count)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def main() -> None:
    options = arguments(__doc__.split("\n")[0], minutes=40).parse_args()
    vae = standardised_vae(options.runs).to(options.device).train()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    run = Run("decoder", vae, options, lr=4e-4)
    rng = random.Random(1000 + run.seed)
    torch.manual_seed(1000 + run.seed)
    for step in run:
        x = pictures(rng).to(options.device)
        with lower_precision(options.device):
            with torch.no_grad():
                z = vae.encode(x).latent_dist.mean
            noise = torch.rand(len(x), 1, 1, 1, device=z.device) * NOISE * torch.randn_like(z)
            y = vae.decode(z + noise).sample
        run.learn(reconstruction_loss(y.float(), x))
        if step % 200 == 0:
            print(f"  l1 {(y - x).abs().mean():.4f} psnr {-10 * ((y - x) / 2).square().mean().log10():.1f} dB", flush=True)


if __name__ == "__main__":
    main()
