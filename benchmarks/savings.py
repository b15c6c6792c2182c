"""What each saving is worth, and all of them against stock diffusers, on the same weights and settings, in one go.

    python -m benchmarks.savings [--size tiny|demo|full] [--rounds N] [--width W --height H --frames F --steps S --motion-steps S]

`tiny` runs in seconds. `demo` are the bundled checkpoints. `full` are the whole architectures of Stable Diffusion 1.5 and Stable Video
Diffusion with random weights, at a small size (14 GB of memory). A job is a still, from prompt to pixels, then a film of it, to frames;
models are loaded and have run once before. In every round each variant runs once, in turn; what counts is the least of the rounds. Seconds
are the process's own on one thread: on an idle machine that is the time it takes, on a busy one what others do counts little.
`pixels` is how far the film is from the one without savings, of 0..1.

Prints a table and, last, one JSON document.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.random_models import random_motion, random_still
from benchmarks.stock import run_stock_motion, run_stock_still, stock_motion, stock_still
from pipelines.image_to_video import image_to_video
from pipelines.memory import choose_placement, place
from pipelines.models import MotionModels, StillModels, load_motion, load_still
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.savings import ALL, NONE, Savings
from pipelines.text_to_image import text_to_image

DEMO = Path(__file__).parent.parent / "assets" / "checkpoints"
PROMPT = "a red rocket flies over the sea"
SIZES = {  # width, height, frames, steps of the still, steps of the film, rounds
    "tiny": (48, 32, 3, 2, 2, 1),
    "demo": (192, 128, 14, 8, 6, 3),
    "full": (64, 64, 4, 4, 2, 2),
}
STOCK = "stock diffusers"
FLAGS = ("folds", "keeps_positions", "spares_copies", "packs_weights")
VARIANTS: dict[str, Savings | None] = {
    STOCK: None, "no savings": NONE, "all savings": ALL,
    **{f"all but {flag}": dataclasses.replace(ALL, **{flag: False}) for flag in FLAGS},
}  # fmt: skip
Models = StillModels | MotionModels
Seconds = dict[str, dict[str, list[float]]]


def base_models(size: str, stage: str) -> Models:
    """Without savings."""
    placement = choose_placement("cpu", "sdpa", "float32", NONE)
    if size != "demo":
        return (random_still if stage == "still" else random_motion)(placement, is_tiny=size == "tiny")
    return (load_still if stage == "still" else load_motion)(DEMO / f"stillmotion_demo_{stage}.safetensors", placement)


def with_savings(base: Models, savings: Savings) -> Models:
    """The same weights in modules of their own."""
    placement = dataclasses.replace(base.placement, savings=savings)
    modules = {name: place(_sharing(value), placement) for name, value in vars(base).items() if isinstance(value, nn.Module)}
    return dataclasses.replace(base, placement=placement, **modules)


def _sharing(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module, {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())})


def work_of(base: Models, savings: Savings | None, picture: np.ndarray) -> Callable[[Any], np.ndarray]:
    """What makes a still or a film of settings."""
    if isinstance(base, StillModels):
        if savings is None:
            pipeline = stock_still(base)
            return lambda settings: run_stock_still(pipeline, settings)
        models = with_savings(base, savings)
        return lambda settings: text_to_image(models, settings)
    if savings is None:
        pipeline = stock_motion(base)
        return lambda settings: run_stock_motion(pipeline, picture, settings)
    models = with_savings(base, savings)
    return lambda settings: image_to_video(models, picture, settings)


def measure(size: str, still: StillSettings, motion: MotionSettings, rounds: int) -> tuple[Seconds, dict[str, float]]:
    """Seconds by stage and variant, and how far each variant's film is from the one without savings."""
    seconds: Seconds = {"still": defaultdict(list), "motion": defaultdict(list)}
    results: dict[str, np.ndarray] = {}
    picture = np.random.default_rng(1).random((motion.height, motion.width, 3), np.float32)
    for stage, settings in (("still", still), ("motion", motion)):
        base = base_models(size, stage)
        for _ in range(rounds):
            for name, savings in VARIANTS.items():
                work = work_of(base, savings, picture)
                work(dataclasses.replace(settings, steps=2))  # packed at the second call
                begun = time.process_time()
                results[name] = work(settings)
                seconds[stage][name].append(time.process_time() - begun)
                print(f"{stage}, {name}: {seconds[stage][name][-1]:.2f} s", file=sys.stderr, flush=True)
    plain = results["no savings"]
    return seconds, {name: float(np.abs(found - plain).max()) for name, found in results.items() if name != STOCK}


def measure_skipping(size: str, motion: MotionSettings, rounds: int) -> dict[str, float]:
    """A film with guidance 1, with both passes and with one."""
    base, settings = base_models(size, "motion"), dataclasses.replace(motion, guidance=1.0, min_guidance=1.0)
    picture, taken = np.full((motion.height, motion.width, 3), 0.5, np.float32), defaultdict(list)
    for _ in range(rounds):
        for name, savings in (("one pass", ALL), ("both passes", dataclasses.replace(ALL, skips_unconditional=False))):
            work = work_of(base, savings, picture)
            work(dataclasses.replace(settings, steps=2))
            begun = time.process_time()
            work(settings)
            taken[name].append(time.process_time() - begun)
    return {name: min(times) for name, times in taken.items()}


def rows_of(seconds: Seconds, far: dict[str, float]) -> list[dict[str, Any]]:
    least = {name: {stage: min(times[name]) for stage, times in seconds.items()} for name in VARIANTS}
    whole = {name: sum(stages.values()) for name, stages in least.items()}
    return [
        {
            "variant": name,
            **least[name],
            "both": whole[name],
            "of_stock": whole[name] / whole[STOCK],
            "of_all": whole[name] / whole["all savings"],
            "pixels": far.get(name),
        }
        for name in VARIANTS
    ]


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| variant | still s | motion s | both s | of stock | of all savings | pixels |", "| --- |" + " --- |" * 6]
    for row in rows:
        numbers = " | ".join(f"{row[key]:.2f}" for key in ("still", "motion", "both", "of_stock", "of_all"))
        pixels = "" if row["pixels"] is None else f"{row['pixels']:.0e}"
        lines.append(f"| {row['variant']} | {numbers} | {pixels} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="demo")
    for option in ("rounds", "width", "height", "frames", "steps", "motion-steps"):
        parser.add_argument(f"--{option}", type=int)
    options = parser.parse_args(arguments)
    names = ("width", "height", "frames", "steps", "motion_steps", "rounds")
    said = {name: getattr(options, name) or usual for name, usual in zip(names, SIZES[options.size], strict=True)}
    picture = {"width": said["width"], "height": said["height"], "sampler": "euler", "schedule": "karras"}
    still = StillSettings(prompt=PROMPT, seed=1, steps=said["steps"], guidance=7.0, **picture)
    motion = MotionSettings(seed=2, frames=said["frames"], steps=said["motion_steps"], guidance=2.5, augmentation_level=0.0, **picture)
    seconds, far = measure(options.size, still, motion, said["rounds"])
    rows, skipping = rows_of(seconds, far), measure_skipping(options.size, motion, said["rounds"])
    print(table(rows))
    print(f"\nGuidance 1: {skipping['one pass']:.2f} s with one pass, {skipping['both passes']:.2f} s with both.\n")
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    print(json.dumps({"size": options.size, "settings": said, "rows": rows, "guidance_1": skipping} | machine))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
