"""Go on training the demo autoencoder's decoder alone. The latents stay what they are, so this may run beside the other trainings.

    python -m training.decoder --minutes 40

It sees latents with a little noise on them, as a diffusion model makes them, and learns to draw crisp edges from those too.
"""

from __future__ import annotations

import random

import torch

from training.architecture import VAE
from training.autoencoder import BATCH, crop_source, crops, reconstruction_loss
from training.latents import standardised_vae
from training.loop import Run, arguments

NOISE = 0.06 / VAE["scaling_factor"]  # of latents with unit spread


def main() -> None:
    options = arguments(__doc__.split("\n")[0], minutes=40).parse_args()
    vae = standardised_vae(options.runs).to(options.device).train()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    run = Run("decoder", vae, options, lr=8e-4)
    rng = random.Random(1000 + run.step)
    torch.manual_seed(1000 + run.step)
    frames = crop_source(2500, rng)
    device_type = torch.device(options.device).type
    for step in run:
        if step % 1500 == 1499:
            frames = crop_source(2500, rng)
        x = crops(frames, rng, options.device)
        with torch.autocast(device_type, dtype=torch.bfloat16):
            with torch.no_grad():
                z = vae.encode(x).latent_dist.mean
            noise = torch.rand(BATCH, 1, 1, 1, device=z.device) * NOISE * torch.randn_like(z)
            y = vae.decode(z + noise).sample
        run.learn(reconstruction_loss(y.float(), x))
        if step % 200 == 0:
            print(f"  l1 {(y - x).abs().mean():.4f} psnr {-10 * ((y - x) / 2).square().mean().log10():.1f} dB", flush=True)


if __name__ == "__main__":
    main()
