"""What a model is told: prompts, the still that is to move, guidance over the frames."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pipelines.parameters import MotionSettings, Number, Prompt
from pipelines.values import Conditioning, Latents, ModelSource, MotionConditioning, Pictures, TextSource, VaeSource, VisionSource
from workflows.declare import node

if TYPE_CHECKING:
    from pipelines.bench import Bench

Side = Number(16, 16384, "pixels, a multiple of 8", wire={"step": 8})
MinGuidance = Number(0.0, 100.0, "guidance of the first frame", wire={"step": 0.5, "round": 0.01})


@node("CLIPTextEncode", title="CLIP Text Encode (Prompt)", category="conditioning", is_early=True)
def encode_prompt(
    bench: Bench,
    text: Annotated[str, Prompt("what it shows; weights as (word:1.3)", wire={"multiline": True, "dynamicPrompts": True})],
    clip: TextSource,
) -> Conditioning:
    """A prompt as the model of the still reads it."""
    return bench.encode_prompt(clip, text)


@node("CLIPSetLastLayer", title="CLIP Set Last Layer", category="conditioning", is_early=True)
def set_last_layer(
    bench: Bench,
    clip: TextSource,
    stop_at_clip_layer: Annotated[int, Number(-24, -1, "counted from the end: -1 is the last", wire={"step": 1})] = -1,
) -> TextSource:
    """Reads prompts with fewer layers of the text encoder."""
    return dataclasses.replace(clip, last_layer=stop_at_clip_layer)


@node(
    "SVD_img2vid_Conditioning", title="SVD_img2vid_Conditioning", category="conditioning/video_models",
    output_names=("positive", "negative", "latent"), module="comfy_extras.nodes_video_model",
)  # fmt: skip
def condition_motion(
    bench: Bench,
    clip_vision: VisionSource,
    init_image: Pictures,
    vae: VaeSource,
    width: Annotated[int, Side] = 1024,
    height: Annotated[int, Side] = 576,
    video_frames: Annotated[int, Number(1, 4096, "length of the film in frames")] = 14,
    motion_bucket_id: Annotated[int, Number(1, 1023, "how much moves: 40 is gentle, 90 lively, 200 wild")] = 127,
    fps: Annotated[int, Number(1, 1024, "frames a second that the motion is made for")] = 6,
    augmentation_level: Annotated[
        float, Number(0.0, 10.0, "noise on the still: more moves more, and drifts from it", wire={"step": 0.01})
    ] = 0.0,
) -> tuple[MotionConditioning, MotionConditioning, Latents]:
    """The still that is to move, and how; and room for the frames."""
    settings = MotionSettings(
        width=width, height=height, frames=video_frames, motion_bucket_id=motion_bucket_id, fps=fps, augmentation_level=augmentation_level
    )
    told = bench.condition_motion(clip_vision, vae, init_image, settings)
    return told, told.without_still(), bench.empty_latents(width, height, video_frames)


@node(
    "VideoLinearCFGGuidance",
    title="VideoLinearCFGGuidance",
    category="sampling/video_models",
    is_early=True,
    module="comfy_extras.nodes_video_model",
)
def guide_linearly(bench: Bench, model: ModelSource, min_cfg: Annotated[float, MinGuidance] = 1.0) -> ModelSource:
    """Guidance that grows from the first frame to the last."""
    return dataclasses.replace(model, min_guidance=min_cfg, shape="linear")


@node(
    "VideoTriangleCFGGuidance",
    title="VideoTriangleCFGGuidance",
    category="sampling/video_models",
    is_early=True,
    module="comfy_extras.nodes_video_model",
)
def guide_up_and_down(bench: Bench, model: ModelSource, min_cfg: Annotated[float, MinGuidance] = 1.0) -> ModelSource:
    """Guidance that grows to the middle of the film and falls again."""
    return dataclasses.replace(model, min_guidance=min_cfg, shape="triangle")


NODES = (encode_prompt, set_last_layer, condition_motion, guide_linearly, guide_up_and_down)
