"""The baseline: diffusers' own pipelines on the weights of our models, as a user would write them.

Not the same pictures as ours: their noise levels are rounded otherwise and their still is scaled otherwise. The work is the same, call for
call: same sizes, steps, guidance and Euler's method on Karras' schedule.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableVideoDiffusionPipeline
from PIL import Image
from transformers import CLIPImageProcessor

from pipelines.models import MotionModels, StillModels
from pipelines.parameters import MotionSettings, StillSettings


def stock_still(models: StillModels) -> StableDiffusionPipeline:
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", use_karras_sigmas=True, steps_offset=1,
        prediction_type=models.spacing.prediction_type,
    )  # fmt: skip
    parts = {name: getattr(models, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    pipeline = StableDiffusionPipeline(
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_motion(models: MotionModels) -> StableVideoDiffusionPipeline:
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", timestep_spacing="leading", use_karras_sigmas=True,
        sigma_min=models.spacing.sigma_min, sigma_max=models.spacing.sigma_max, steps_offset=1, beta_schedule="scaled_linear",
    )  # fmt: skip
    pipeline = StableVideoDiffusionPipeline(
        vae=models.vae, image_encoder=models.vision, unet=models.unet, scheduler=scheduler, feature_extractor=CLIPImageProcessor()
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_stock_still(pipeline: StableDiffusionPipeline, settings: StillSettings) -> np.ndarray:
    """(height, width, 3) in 0..1."""
    found = pipeline(
        settings.prompt, negative_prompt=settings.negative_prompt, height=settings.height, width=settings.width, output_type="np",
        num_inference_steps=settings.steps, guidance_scale=settings.guidance, generator=torch.Generator().manual_seed(settings.seed),
    )  # fmt: skip
    return found.images[0]


def run_stock_motion(pipeline: StableVideoDiffusionPipeline, still: np.ndarray, settings: MotionSettings) -> np.ndarray:
    """(frames, height, width, 3) in 0..1."""
    picture = Image.fromarray((still * 255).round().astype(np.uint8)).resize((settings.width, settings.height))
    found = pipeline(
        picture, height=settings.height, width=settings.width, num_frames=settings.frames, num_inference_steps=settings.steps,
        min_guidance_scale=settings.min_guidance, max_guidance_scale=settings.guidance, fps=settings.fps, output_type="np",
        motion_bucket_id=settings.motion_bucket_id, noise_aug_strength=settings.augmentation_level,
        generator=torch.Generator().manual_seed(settings.seed),
    )  # fmt: skip
    return found.frames[0]
