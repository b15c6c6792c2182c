"""Train the demo motion model: a UNetSpatioTemporalConditionModel, from the still model's weights, behind the finished vision tower.

    python -m training.vision_encoder
    python -m training.latents films --count 1400
    python -m training.image_to_video --minutes 70

Stable Video Diffusion's objective (Blattmann et al. 2023, arXiv 2311.15127): EDM v-prediction over continuous noise levels (Karras et
al. 2022, arXiv 2206.00364); conditioned on the first frame's latent (concatenated on the channels), its CLIP embedding, and
fps - 1, motion bucket and augmentation level. Both image conditions are dropped together one time in ten, for guidance.

Most steps show a few neighbouring frames of many films instead of all frames of one: fourteen frames of one film at one noise level
teach little more than three do. What is learnt from them is where things are at that time; the UNet is told which frames it sees.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

from pipelines.model_files import BUNDLED, DEMO_MOTION
from training.architecture import VAE, make_motion_unet, make_vision
from training.latents import load_latents
from training.loop import Run, arguments, load_average, load_bundled, lower_precision
from training.text_to_image import StillModel, weights_at
from training.vision_encoder import VisionModel, normalised

FRAMES_A_STEP = 12_000  # latent positions in one step: a film of 14x24x24, or 7 windows of 3x24x24
WINDOWS = (1, 3, 3, 6)  # neighbouring frames that a step shows, at most, if not all there are
STARTS_AS_IDENTITY = (".temporal_res_block.conv2.", ".attn1.to_out.0.", ".attn2.to_out.0.", ".ff.net.2.", ".ff_in.net.2.")


class FrameNumbers(torch.nn.Module):
    """In the place of a temporal transformer's `time_proj`, which numbers the frames from 0: numbers them from `first` (films,)."""

    def __init__(self, time_proj: torch.nn.Module) -> None:
        super().__init__()
        self.time_proj, self.first = time_proj, torch.zeros(1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.time_proj(numbers + self.first.to(numbers.device).repeat_interleave(len(numbers) // len(self.first)))


class MotionModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unet, self.vision = make_motion_unet(), make_vision().requires_grad_(False)
        self.unet.set_attn_processor(AttnProcessor())
        transformers = [module for module in self.unet.modules() if isinstance(module, TransformerSpatioTemporalModel)]
        for transformer in transformers:
            transformer.time_proj = FrameNumbers(transformer.time_proj)
        self.numbers = [transformer.time_proj for transformer in transformers]

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, pictures: torch.Tensor, kept: torch.Tensor, ids: torch.Tensor, first: torch.Tensor
    ) -> torch.Tensor:
        """x: (films, frames, 8, h, w), the first frame of each being its film's frame `first` (films,)."""
        for numbers in self.numbers:
            numbers.first = first
        embedding = self.vision(pictures).image_embeds[:, None] * kept.view(-1, 1, 1)
        return self.unet(x, t, embedding, ids).sample


@torch.no_grad()
def start_from_still_model(motion: torch.nn.Module, still: torch.nn.Module) -> None:
    """Copy the spatial weights; let the temporal layers begin as if they were not there."""
    target = motion.state_dict()
    for key, value in still.state_dict().items():
        name = re.sub(r"(\.resnets\.\d+)\.", r"\1.spatial_res_block.", key)
        if key == "conv_in.weight":  # the other four channels take the still's unscaled latent
            target[name][:, :4] = value
            target[name][:, 4:] = value * VAE["scaling_factor"] * 0.5
        elif name in target and target[name].shape == value.shape:
            target[name].copy_(value)
    for name, value in target.items():
        if ("temporal" in name and any(end in name for end in STARTS_AS_IDENTITY)) or ".time_pos_embed.linear_2." in name:
            value.zero_()


def first_weights(model: MotionModel, runs: Path) -> None:
    still = load_average(runs / "text_to_image.pt", StillModel())
    start_from_still_model(model.unet, still.unet)
    model.vision.load_state_dict(load_average(runs / "vision_encoder.pt", VisionModel()).vision.state_dict())


def main() -> None:
    options = arguments(__doc__.split("\n")[0], minutes=70).parse_args()
    torch.manual_seed(4)
    model = MotionModel()
    if options.fine_tune:
        load_bundled(model, BUNDLED / DEMO_MOTION)
    elif not (options.runs / "image_to_video.pt").exists():
        first_weights(model, options.runs)
    run = Run("image_to_video", model.to(options.device), options, lr=1e-3, ema=0.997)
    rng, device = random.Random(run.seed), options.device
    torch.manual_seed(run.seed)
    data = load_latents(options.runs, "films")
    sizes, counts = list(data), [len(entry["latents"]) for entry in data.values()]
    for _ in run:
        size = rng.choices(sizes, weights=weights_at(1 if options.fine_tune else run.progress, sizes, counts))[0]
        entry = data[size]
        whole = entry["latents"].shape[1]
        frames = whole if rng.random() < 0.2 + 0.5 * run.progress else min(whole, rng.choice(WINDOWS))
        pick = torch.randint(0, len(entry["latents"]), (max(1, FRAMES_A_STEP // (entry["latents"][0, :frames, 0].numel())),))
        first = torch.randint(0, whole - frames + 1, (len(pick),))
        x0 = torch.stack([entry["latents"][p, f : f + frames] for p, f in zip(pick, first, strict=True)]).float().to(device)
        kept = (torch.rand(len(pick)) > 0.1).float().to(device)
        variant = torch.tensor([rng.choice((0, 0, 1, 2)) for _ in pick])
        still = entry["stills"][pick, variant].float().to(device) * kept.view(-1, 1, 1, 1)
        ids = torch.stack([entry["fps"][pick] - 1, entry["motion"][pick], entry["augmentation"][pick, variant]], 1).to(device)
        pictures = normalised(entry["pictures"][pick]).to(device)
        log_sigma = torch.where(torch.rand(len(pick)) < 0.9, 1.0 + 1.6 * torch.randn(len(pick)), torch.empty(len(pick)).uniform_(-4, 6.55))
        sigma = log_sigma.clamp(-6, 6.55).exp().to(device).view(-1, 1, 1, 1, 1)
        x = x0 + sigma * torch.randn_like(x0)
        scale = (sigma**2 + 1).sqrt()
        target = (x / scale**2 - x0) * scale / sigma
        shown = torch.cat([x / scale, still[:, None].expand(-1, frames, -1, -1, -1)], 2)
        with lower_precision(device):
            v = model(shown, 0.25 * sigma.log().flatten(), pictures, kept, ids, entry["start"][pick] + first)
        run.learn((v.float() - target).square().mean())


if __name__ == "__main__":
    main()
