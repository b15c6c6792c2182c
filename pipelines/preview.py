"""How something looks while it is still being sampled: a small picture of the latents, without decoding them.

A latent's colour is nearly a linear function of its four numbers. Which one differs from autoencoder to autoencoder, so it is found by
decoding a few smooth random latents and a least-squares fit. With the demo's it explains nine tenths of the variance of pictures (98 %
would be the most), and a preview costs a few milliseconds.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.pieces import Relief, is_out_of_memory

Look = Callable[[Tensor], None]
Colours = np.ndarray  # (5, 3): what each number of a latent adds to red, green and blue, and what they are without; in 0..1

EVERY_SECONDS = 0.5
MOST_OF_THE_TIME = 0.02
_SAMPLES, _SIDE, _SPREAD = 32, 4, 0.8
_LONGEST, _QUALITY = 256, 80


def unseen(latents: Tensor) -> None:
    """A `Look` for those who show nothing."""


@dataclass(frozen=True)
class Window:
    """`show` gets the pictures, as JPEG. `known`: the colours of the autoencoders that were met, None for those that had no room; it
    outlives the job."""

    show: Callable[[bytes], None]
    known: dict[Hashable, Colours | None] = field(default_factory=dict)


class Previews:
    """A `Look` that shows the latents now and then: at most twice a second, and seldom enough to take less than a fiftieth of the time.

    They are of unit spread, as a sampler has them: `scale` brought them there."""

    def __init__(self, colours: Colours, scale: float, show: Callable[[bytes], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._colours = np.concatenate([colours[:4] / scale, colours[4:]])
        self._show, self._clock, self._due = show, clock, -np.inf

    def __call__(self, latents: Tensor) -> None:
        """Of a film the frame in the middle."""
        if self._clock() < self._due:
            return
        one = latents[len(latents) // 2].float().cpu().numpy()  # waits until a GPU has come so far: that time is not ours
        began = self._clock()
        self._show(picture(one, self._colours))
        now = self._clock()
        self._due = now + max(EVERY_SECONDS, (now - began) / MOST_OF_THE_TIME)


def picture(latent: np.ndarray, colours: Colours) -> bytes:
    """A latent (4, h, w) as a JPEG of up to 256 pixels."""
    finite = np.nan_to_num(latent, posinf=0, neginf=0)
    seen = np.tensordot(finite, colours[:4], (0, 0)) + colours[4]  # (h, w, 3)
    small = Image.fromarray((seen.clip(0, 1) * 255).astype(np.uint8))
    times = min(8, _LONGEST / max(small.size))
    large = small.resize([max(1, round(side * times)) for side in small.size], Image.Resampling.BICUBIC)
    made = io.BytesIO()
    large.save(made, "JPEG", quality=_QUALITY)
    return made.getvalue()


@torch.inference_mode()
def colours_of(vae: torch.nn.Module, phase: str, relief: Relief) -> Colours | None:
    """How the latents of an autoencoder look; None if there is no memory to find out."""
    from diffusers import AutoencoderKLTemporalDecoder

    latents = _smooth_latents() / vae.config.scaling_factor
    alone = {"num_frames": 1} if isinstance(vae, AutoencoderKLTemporalDecoder) else {}
    try:
        with relief.bring(phase, vae):
            pixels = vae.decode(latents.to(relief.device, vae.dtype), **alone).sample.float().cpu()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return fitted(latents, F.avg_pool2d(pixels, 8) / 2 + 0.5)


def fitted(latents: Tensor, pixels: Tensor) -> Colours:
    """Least squares: (n, 4, h, w) latents to (n, 3, h, w) colours in 0..1."""
    known = torch.cat([latents, torch.ones_like(latents[:, :1])], 1).movedim(1, -1).reshape(-1, 5)
    return np.linalg.lstsq(known.double().numpy(), pixels.movedim(1, -1).reshape(-1, 3).double().numpy(), rcond=None)[0]


def _smooth_latents() -> Tensor:
    """Latents that are alike where they are near, as those of pictures: noise of two sizes."""
    generator = torch.Generator().manual_seed(0)
    sizes = [torch.randn((_SAMPLES, 4, side, side), generator=generator) for side in (1, 2)]
    return sum(F.interpolate(noise, size=(_SIDE, _SIDE), mode="bilinear") for noise in sizes) * (_SPREAD / 2**0.5)
