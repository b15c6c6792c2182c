"""What is faster or smaller at a price, each with its price: the PSNR against the exact still and film.

    python -m benchmarks.lossy [--size tiny|demo|full] [--prompt WORDS] [--rounds N] [--bfloat16] [--sheet FILE.png]

Deep features used again every 2, 3 and 5 calls, the UNets' weights in float8, both, and few steps of LCM without guidance. To be held
against: a part of the steps, exact, which anybody can have. All films begin with the exact still, so that each is compared for itself;
`worst` is the frame that differs most. Seconds are the process's own, of the whole stage, the least of the rounds; `of exact` is their
share. MiB are those of the UNet's weights.

`demo`: the bundled checkpoints, with the settings of the form. `tiny` and `full` have random weights: their seconds and bytes count, and
their PSNR says nothing of pictures. Few steps are meant for models that were trained for them, which the demo's were not.

Prints a table and, last, one JSON document. `--sheet` writes some frames of each film as a picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.random_models import random_motion, random_still
from pipelines.compare import psnr_of
from pipelines.image_to_video import image_to_video
from pipelines.memory import choose_placement
from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL
from pipelines.models import MotionModels, Single, StillModels, load_motion, load_still
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.shelf import bytes_of
from pipelines.text_to_image import text_to_image

MIB = 2**20
PROMPT = "a red boat sails on the sea, sun"
STILL = StillSettings(prompt="", seed=1)
MOTION = MotionSettings(seed=2)
SIZES = {  # what is other than usual, of the still and of the film
    "tiny": ({"width": 48, "height": 32, "steps": 4}, {"width": 48, "height": 32, "frames": 3, "steps": 4}),
    "demo": ({}, {}),
    "full": ({"width": 128, "height": 128, "steps": 6}, {"width": 128, "height": 64, "frames": 6, "steps": 6}),
}
SHOWN = 5  # frames of a film


@dataclass(frozen=True)
class Variant:
    """`changes` of both stages' settings, then without guidance; or this `share` of their steps."""

    every: int = 1
    weights: str = "auto"
    dtype: str = "float32"
    changes: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0

    def of(self, settings: StillSettings | MotionSettings) -> Any:
        settings = dataclasses.replace(settings, steps=max(1, round(self.share * settings.steps)))
        unguided = {"guidance": 1.0} | ({"min_guidance": 1.0} if isinstance(settings, MotionSettings) else {})
        return dataclasses.replace(settings, **(self.changes | unguided if self.changes else {}))


EXACT = "exact"
VARIANTS = {
    EXACT: Variant(),
    **{f"reuse every {every}": Variant(every) for every in (2, 3, 5)},
    "float8": Variant(weights="float8"),
    "float8, reuse every 2": Variant(2, "float8"),
    **{f"{name} of the steps": Variant(share=share) for name, share in (("two thirds", 2 / 3), ("half", 1 / 2))},
    **{f"lcm, {steps} steps": Variant(changes={"sampler": "lcm", "steps": steps}) for steps in (4, 8)},
}
BFLOAT16 = {"bfloat16": Variant(dtype="bfloat16"), "bfloat16, reuse every 2": Variant(2, dtype="bfloat16")}
Models = StillModels | MotionModels
Stage = Callable[[Models, Any], np.ndarray]


def loaded(size: str, weights: str, dtype: str) -> dict[str, Models]:
    placement = choose_placement("cpu", "sdpa", dtype, weights=weights)
    if size == "demo":
        return {"still": load_still(BUNDLED / DEMO_STILL, placement), "motion": load_motion(BUNDLED / DEMO_MOTION, placement)}
    is_tiny = size == "tiny"
    return {"still": random_still(placement, is_tiny=is_tiny), "motion": random_motion(placement, is_tiny=is_tiny)}


def measure(
    size: str, still: StillSettings, motion: MotionSettings, rounds: int, variants: dict[str, Variant]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """By stage and variant: seconds, what was made, as (frames, height, width, 3), and bytes of the UNet."""
    kinds = {(one.weights, one.dtype) for one in variants.values()}
    models = {kind: loaded(size, *kind) for kind in sorted(kinds)}
    seconds, made = defaultdict(list), {}
    picture = text_to_image(models["auto", "float32"]["still"], still)
    stages: dict[str, tuple[Stage, StillSettings | MotionSettings]] = {
        "still": (lambda models, settings: text_to_image(models, settings)[None], still),
        "motion": (lambda models, settings: image_to_video(models, picture, settings), motion),
    }
    for _ in range(rounds):
        for stage, (work, usual) in stages.items():
            for name, variant in variants.items():
                mine, settings = dataclasses.replace(models[variant.weights, variant.dtype][stage], every=variant.every), variant.of(usual)
                work(mine, dataclasses.replace(settings, steps=2))  # packed at the second call
                begun = time.process_time()
                made[stage, name] = work(mine, settings)
                seconds[stage, name].append(time.process_time() - begun)
                print(f"{stage}, {name}: {seconds[stage, name][-1]:.2f} s", file=sys.stderr, flush=True)
    unets = {(stage, name): models[one.weights, one.dtype][stage].unet for name, one in variants.items() for stage in stages}
    return seconds, made, {key: bytes_of(Single(unet)) for key, unet in unets.items()}


def rows_of(seconds: dict[str, Any], made: dict[str, Any], sizes: dict[str, int]) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys(name for _, name in made):
        row: dict[str, Any] = {"variant": name}
        for stage in ("still", "motion"):
            taken = min(seconds[stage, name])
            psnr, worst = psnr_of(made[stage, EXACT], made[stage, name])
            of_exact = taken / min(seconds[stage, EXACT])
            row[stage] = {"seconds": taken, "of_exact": of_exact, "psnr": psnr, "worst": worst, "bytes": sizes[stage, name]}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    titles = [f"{stage} {what}" for stage in ("still", "motion") for what in ("s", "of exact", "dB", "worst dB", "MiB")]
    titles.remove("still worst dB")
    lines = [f"| variant | {' | '.join(titles)} |", "| --- |" + " --- |" * len(titles)]
    for row in rows:
        cells = []
        for stage in ("still", "motion"):
            one = row[stage]
            psnr = [one["psnr"]] if stage == "still" else [one["psnr"], one["worst"]]
            cells += [f"{one['seconds']:.2f}", f"{one['of_exact']:.2f}", *("" if x is None else f"{x:.1f}" for x in psnr)]
            cells.append(f"{one['bytes'] / MIB:.1f}")
        lines.append(f"| {row['variant']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(made: dict[str, Any]) -> Image.Image:
    """A row a variant: its still, and frames of its film, from the first to the last."""
    frames, height, width, _ = made["motion", EXACT].shape
    chosen = sorted({round(k) for k in np.linspace(0, frames - 1, SHOWN)})
    names = list(dict.fromkeys(name for _, name in made))
    beside, whole = 160, Image.new("RGB", (160 + (1 + len(chosen)) * (width + 4), len(names) * (height + 4)), "white")
    draw = ImageDraw.Draw(whole)
    for row, name in enumerate(names):
        draw.text((4, row * (height + 4) + height // 2), name, fill="black")
        still = Image.fromarray(np.uint8(made["still", name][0] * 255 + 0.5)).resize((width, height))
        pictures = [still, *(Image.fromarray(np.uint8(made["motion", name][k] * 255 + 0.5)) for k in chosen)]
        for column, picture in enumerate(pictures):
            whole.paste(picture, (beside + column * (width + 4), row * (height + 4)))
    return whole


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.lossy", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="where some frames of each film go, as PNG")
    parser.add_argument("--bfloat16", action="store_true", help="that too, on a processor that computes in it")
    options = parser.parse_args(arguments)
    still, motion = (dataclasses.replace(usual, **change) for usual, change in zip((STILL, MOTION), SIZES[options.size], strict=True))
    still = dataclasses.replace(still, prompt=options.prompt)
    variants = VARIANTS | (BFLOAT16 if options.bfloat16 else {})
    seconds, made, sizes = measure(options.size, still, motion, options.rounds, variants)
    rows = rows_of(seconds, made, sizes)
    if options.sheet:
        sheet(made).save(options.sheet)
    print(table(rows) + "\n")
    said = {"still": dataclasses.asdict(still), "motion": dataclasses.asdict(motion)}
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    print(json.dumps({"benchmark": "lossy", "size": options.size, "settings": said, "rows": rows} | machine))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
