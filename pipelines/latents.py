"""Where a run of sampling starts, and what else is done with latents between two models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipelines.parameters import Sampling
from pipelines.sampling import initial_noise
from pipelines.schedules import ContinuousSigmas, DiscreteSigmas, make_sigmas
from pipelines.values import Draw, Latents


def empty(width: int, height: int, count: int = 1) -> Latents:
    """`count` latents of nothing, for pictures of width x height pixels; what is no multiple of 8 is cut off."""
    return Latents(np.zeros((count, 4, height // 8, width // 8), np.float32))


def visited_sigmas(spacing: DiscreteSigmas | ContinuousSigmas, sampling: Sampling) -> Tensor:
    """The noise levels that this run visits, falling; fewer than two if it has nothing to do."""
    sigmas = make_sigmas(sampling.schedule, sampling.steps, spacing, sampler=sampling.sampler, denoise=sampling.denoise)
    if sampling.last_step < len(sigmas) - 1:
        sigmas = sigmas[: sampling.last_step + 1].clone()
        if not sampling.leaves_noise and len(sigmas):
            sigmas[-1] = 0
    return sigmas[sampling.first_step :]


def start(spacing: DiscreteSigmas | ContinuousSigmas, sampling: Sampling, latents: Latents, scale: float, sigmas: Tensor) -> Tensor:
    """x at the first noise level, (n, 4, h, w): the latents at unit spread with noise from the seed, one draw for all of them."""
    samples = torch.from_numpy(latents.samples) * scale
    noise = initial_noise(samples.shape, sampling.seed) if sampling.adds_noise else torch.zeros_like(samples)
    return spacing.noise_latent(noise, samples, sigmas[0])


def draw_of(sampling: Sampling, latents: Latents) -> Draw | None:
    """What a run leaves ComfyUI's global generator at: it is seeded for the initial noise, if there is any, and one later for ddim's
    unused noise."""
    if not sampling.adds_noise:
        return latents.draw
    seed = (sampling.seed + 1) % 2**64 if sampling.sampler == "ddim" else sampling.seed
    return Draw(seed, latents.samples.shape)


def repeat(latents: Latents, times: int) -> Latents:
    """All of them, `times` times over."""
    return Latents(np.tile(latents.samples, (times, 1, 1, 1)), latents.draw)
