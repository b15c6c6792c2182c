"""Does the same workflow give here what it gives in ComfyUI? Measured on full-size models, tensor by tensor, in float32 on the CPU.

    python -m benchmarks.parity --checkpoints FOLDER         makes the checkpoints there first, 6.6 GB; about 15 GB of memory

`recorded/` holds three runs of ComfyUI 0.3.64 (torch 2.13.0, CPU, float32): requests, and every tensor on the way. This runs the same
requests through the same functions that make films, listens at the models' doors, and compares in the order of the work, so the first
line that differs says where. Latents are those that the autoencoder takes, without its scale.

Prints a table and ends with one JSON document; the exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import random_checkpoints
from pipelines import memory
from pipelines.image_to_video import draw_of_still, image_to_video
from pipelines.models import MotionModels, StillModels, load_motion, load_still
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.text_to_image import text_to_image

RECORDED = Path(__file__).parent / "recorded"
CASES = ("tiny_noaug", "tiny", "shrunk")
RECORDED_CALLS = 4
ERROR, DECIBELS = 1e-3, 60.0  # what may be lost in float32: relative error of every tensor, PSNR of pictures
Tensors = dict[str, Tensor]


def settings_of(graph: dict[str, Any]) -> tuple[StillSettings, MotionSettings]:
    """What a request of ComfyUI's says, in our words."""

    def inputs(node: str) -> dict[str, Any]:
        return graph[node]["inputs"]

    def sampling(node: str) -> dict[str, Any]:
        said = inputs(node)
        names = {"steps": "steps", "guidance": "cfg", "sampler": "sampler_name", "schedule": "scheduler", "seed": "seed"}
        return {ours: said[theirs] for ours, theirs in names.items()}

    size, motion = inputs("5"), inputs("16")
    still = StillSettings(
        prompt=inputs("6")["text"], negative_prompt=inputs("7")["text"], checkpoint=inputs("4")["ckpt_name"],
        width=size["width"], height=size["height"], **sampling("3"),
    )  # fmt: skip
    same = {name: motion[name] for name in ("width", "height", "motion_bucket_id", "fps", "augmentation_level")}
    film = MotionSettings(
        checkpoint=inputs("18")["ckpt_name"], frames=motion["video_frames"], min_guidance=inputs("17")["min_cfg"], **same, **sampling("13")
    )
    return still, film


class Listener:
    """Keeps what goes into modules and what comes out, under the recordings' names, while it is open."""

    def __init__(self) -> None:
        self.heard: Tensors = {}
        self._ends: list[Callable[[], None]] = []

    def unet(self, unet: nn.Module, node: str) -> None:
        calls = iter(range(10_000))

        def keep(module: nn.Module, arguments: tuple, output: Any) -> None:
            x, name = arguments[0], f"{node}.unet{next(calls)}"
            out = output.sample
            self.heard |= {f"{name}.x": x.flatten(0, -4), f"{name}.out": out.flatten(0, -4), f"{name}.context": arguments[2]}

        self._ends.append(unet.register_forward_hook(keep).remove)

    def module(self, module: nn.Module, keep: Callable[[tuple, Any], Tensors]) -> None:
        self._ends.append(module.register_forward_hook(lambda _, arguments, output: self.heard.update(keep(arguments, output))).remove)

    def method(self, owner: nn.Module, name: str, keep: Callable[[tuple, Any], Tensors]) -> None:
        original = getattr(owner, name)

        def listening(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            self.heard.update(keep(arguments, result))
            return result

        setattr(owner, name, listening)
        self._ends.append(lambda: delattr(owner, name))

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end()


def run_still(models: StillModels, settings: StillSettings) -> Tensors:
    with Listener() as listener:
        listener.unet(models.unet, "3")
        listener.method(models.vae, "decode", lambda a, _: {"3.samples": a[0]})
        picture = text_to_image(models, settings)
    heard = {name: x for name, x in listener.heard.items() if not name.endswith(".context")}
    uncond, cond = listener.heard["3.unet0.context"]
    return heard | {"6.cond": cond[None], "7.cond": uncond[None], "8.image": torch.from_numpy(picture)[None]}


def run_motion(models: MotionModels, image: Tensor, still: StillSettings, settings: MotionSettings) -> Tensors:
    frames: list[Tensor] = []
    with Listener() as listener:
        listener.unet(models.unet, "13")
        listener.module(models.vision, lambda a, out: {"16.clip_pixels": a[0], "16.image_embeds": out.image_embeds})
        listener.method(models.vae, "encode", lambda a, out: {"16.concat_latent": out.latent_dist.mean})
        listener.method(models.vae, "decode", lambda a, _: frames.append(a[0]) or {})
        film = image_to_video(models, image[0].numpy(), settings, after_still=draw_of_still(still))
    heard = {name: x for name, x in listener.heard.items() if not name.endswith(".context")}
    return heard | {"13.samples": torch.cat(frames), "14.frames": torch.from_numpy(film)}


def order(name: str) -> tuple[int, str]:
    """Of the work: conditioning, the still's calls of the UNet, its latent and picture, then the same for the film."""
    steps = ("6.", "7.", "3.unet", "3.samples", "8.", "16.clip", "16.image", "16.concat", "13.unet", "13.samples", "14.")
    return next(k for k, step in enumerate(steps) if name.startswith(step)), name


def compare(ours: Tensors, theirs: Tensors) -> list[dict[str, Any]]:
    """One row a tensor: its relative error, and the PSNR of pictures in 0..1. Of a run's calls of the UNet only the first four were
    recorded. Raises KeyError if there is nothing to compare anything else with."""
    rows = []
    for name in sorted(ours, key=order):
        if name not in theirs and int((re.search(r"\.unet(\d+)\.", name) or [0, 0])[1]) >= RECORDED_CALLS:
            continue
        a, b = ours[name].double(), theirs[name].double()
        if a.shape != b.shape:
            raise ValueError(f"{name} has the shape {tuple(a.shape)}, ComfyUI's {tuple(b.shape)}")
        row = {"tensor": name, "error": float((a - b).norm() / b.norm())}
        if name in ("8.image", "14.frames"):
            row["psnr"] = float(-10 * torch.log10((a - b).square().mean().clamp(min=1e-20)))
        rows.append(row | {"reached": row["error"] < ERROR and row.get("psnr", DECIBELS) >= DECIBELS})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoints", type=Path, help="where the two checkpoints are, or are made and kept; else made and removed")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.checkpoints or Path(temporary)
        random_checkpoints.make(folder)
        results = run_cases(folder, options.cases or list(CASES))
    print("\n| case | tensor | relative error | PSNR | goal reached |\n| --- | --- | --- | --- | --- |")
    for case, rows in results.items():
        for row in rows:
            psnr = f"{row['psnr']:.1f} dB" if "psnr" in row else ""
            print(f"| {case} | {row['tensor']} | {row['error']:.1e} | {psnr} | {'yes' if row['reached'] else 'NO'} |")
    reached = all(row["reached"] for rows in results.values() for row in rows)
    print(json.dumps({"torch": torch.__version__, "seconds": round(time.monotonic() - began), "reached": reached, "cases": results}))
    return 0 if reached else 1


def run_cases(folder: Path, cases: list[str]) -> dict[str, list[dict[str, Any]]]:
    """One model after the other, to need less memory; stage two starts from our own still."""
    placement = memory.choose_placement("cpu", "sdpa")
    wanted = {case: settings_of(json.loads((RECORDED / f"{case}.json").read_text())) for case in cases}
    theirs = {case: load_file(RECORDED / f"{case}.safetensors") for case in cases}
    ours: dict[str, Tensors] = {}
    models = load_still(folder / "LandscapeBING_v10.safetensors", placement)
    for case, (still, _) in wanted.items():
        ours[case] = run_still(models, still)
        print(f"{case}: still done", flush=True)
    models = load_motion(folder / "svd_xt_image_decoder.safetensors", placement)
    for case, (still, motion) in wanted.items():
        ours[case] |= run_motion(models, ours[case]["8.image"], still, motion)
        print(f"{case}: film done", flush=True)
    return {case: compare(ours[case], theirs[case]) for case in cases}


if __name__ == "__main__":
    sys.exit(main())
