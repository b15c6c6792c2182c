"""A film's settings as a workflow: the template of a film, filled. It makes the same film in ComfyUI."""

from __future__ import annotations

from typing import Any

from pipelines.parameters import FileSettings, MotionSettings, StillSettings
from workflows.templates import Graph, fill, find_template

_GUIDANCE = {"linear": "VideoLinearCFGGuidance", "triangle": "VideoTriangleCFGGuidance"}
_STAGE = ("steps", "guidance", "sampler", "schedule", "seed", "checkpoint")
_MOTION = ("width", "height", "frames", "motion_bucket_id", "fps", "augmentation_level", "min_guidance")
_FILE = ("prefix", "frame_rate", "crf", "pix_fmt", "pingpong", "loop_count", "webp_quality", "webp_method", "webp_lossless")


def film_graph(still: StillSettings | str, motion: MotionSettings, file: FileSettings) -> Graph:
    """From prompt, or from the picture of this file name, to WEBP and MP4."""
    values: dict[str, Any] = {f"motion_{name}": getattr(motion, name) for name in _STAGE}
    values |= {name: getattr(motion, name) for name in _MOTION} | {name: getattr(file, name) for name in _FILE}
    if isinstance(still, str):
        graph = fill(find_template("still_to_film"), values | {"image": still})
    else:
        values |= {name: getattr(still, name) for name in (*_STAGE, "prompt", "negative_prompt", "vae", "loras")}
        graph = fill(find_template("text_to_film"), values | {"still_width": still.width, "still_height": still.height})
    graph["17"]["class_type"] = _GUIDANCE[motion.guidance_shape]
    graph["19"]["inputs"]["save_metadata"] = file.metadata
    return graph
