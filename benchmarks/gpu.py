"""What a GPU makes of it: one script of at most ten minutes, full architectures with random weights.

    python -m benchmarks.gpu [--size full|tiny] [--device cuda|cpu] [--dtype float16] [--minutes 9] [--no-compile]
    python -m benchmarks.gpu --device cpu --film 256x256x4 --only "stock diffusers,all savings,all but folds"     one film, some rows

For each film (the seeds' 35 frames of 512x768 and 25 frames of 1024x576) and for the still of 720x1280: one call of the UNet with both
passes, by stock diffusers and by ours with each saving, attention and memory format: seconds, peak memory, TFLOP/s and their share of
what a product of large matrices reaches here in bfloat16. `error` is the relative difference from stock diffusers' output. Then the whole
two-stage job by both. Rows for which no time is left are named. FLOPs are those of stock diffusers' call, so what is left out counts as
speed. Where deep features are used again (lossy, as float8 is) a call is the mean of a whole one and those between; their input is the
same here, so `error` says nothing of it. For whole jobs `psnr` is the film's, in dB, against all savings without loss.

Prints a table and, last, one JSON document. `--size tiny` runs anywhere in seconds, so that the script is never untested.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_models import random_motion, random_still
from benchmarks.stock import run_stock_motion, run_stock_still, stock_motion, stock_still
from pipelines.attention import BACKENDS, attending
from pipelines.compare import psnr_of
from pipelines.image_to_video import image_to_video
from pipelines.lean_motion import told_once
from pipelines.memory import GIB, Placement, choose_placement, peak_bytes, place, release, reset_peak
from pipelines.models import MotionModels, StillModels
from pipelines.parameters import MotionSettings, StillSettings
from pipelines.pieces import Relief
from pipelines.reuse import BOTH, Reuse
from pipelines.savings import ALL, NONE, Savings
from pipelines.text_to_image import text_to_image

FULL = {
    "still": StillSettings(prompt="a rocket", width=720, height=1280, steps=40, sampler="euler", schedule="karras", seed=1),
    "film 512x768x35": MotionSettings(width=512, height=768, frames=35, steps=40, sampler="euler", schedule="karras", seed=2),
    "film 1024x576x25": MotionSettings(width=1024, height=576, frames=25, steps=25, sampler="euler", schedule="karras", seed=2),
}
TINY = {
    "still": dataclasses.replace(FULL["still"], width=48, height=64, steps=2),
    "film 48x32x3": dataclasses.replace(FULL["film 512x768x35"], width=48, height=32, frames=3, steps=2),
}


@dataclass(frozen=True)
class Variant:
    """`savings` of None is stock diffusers."""

    name: str
    savings: Savings | None = ALL
    attention: str = "sdpa"
    is_channels_last: bool = False
    is_compiled: bool = False
    is_float8: bool = False
    every: int = 1  # of so many calls one is whole


LOSSY = (Variant("float8", is_float8=True), *(Variant(f"reuse every {every}", every=every) for every in (2, 3)))


def variants(device: torch.device, *, compiles: bool) -> list[Variant]:
    has_xformers = device.type == "cuda" and importlib.util.find_spec("xformers") is not None
    singles = [
        Variant(f"all but {flag}", dataclasses.replace(ALL, **{flag: False})) for flag in ("folds", "keeps_positions", "spares_copies")
    ]
    return [
        Variant("stock diffusers", None),
        *([Variant("stock, xFormers", None, "xformers"), Variant("all savings, xFormers", ALL, "xformers")] if has_xformers else []),
        Variant("no savings", NONE),
        Variant("all savings"),
        *singles,
        *(Variant(f"all savings, {name} attention", attention=name) for name in (BACKENDS if device.type == "cuda" else ["flash"])),
        Variant("all savings, channels_last", is_channels_last=True),
        *LOSSY,
        *([Variant("stock, compiled", None, is_compiled=True), Variant("all savings, compiled", is_compiled=True)] if compiles else []),
    ]


def prepared(unet: nn.Module, variant: Variant, placement: Placement) -> nn.Module:
    """Modules of its own on the same weights."""
    module = copy.deepcopy(unet, {id(tensor): tensor for tensor in chain(unet.parameters(), unet.buffers())})
    module = place(module, _placement_of(variant, placement))
    if variant.is_channels_last:
        for layer in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
            layer.weight = nn.Parameter(layer.weight.detach().to(memory_format=torch.channels_last), requires_grad=False)
    if variant.is_compiled:
        for block in (*module.down_blocks, module.mid_block, *module.up_blocks):
            block.compile()
    return module


def _placement_of(variant: Variant, placement: Placement) -> Placement:
    return dataclasses.replace(placement, savings=variant.savings or NONE, attention=variant.attention, is_float8=variant.is_float8)


def call_of(module: nn.Module, variant: Variant, settings: StillSettings | MotionSettings, like: Tensor) -> Callable[[], Tensor]:
    """One call with both passes of guidance, as a job makes it; or as many as make one that is whole and those between."""
    generator = torch.Generator(like.device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=like.device).to(like.dtype)

    height, width, config = settings.height // 8, settings.width // 8, module.config
    if isinstance(settings, StillSettings):
        x, context = draw(2, 4, height, width), draw(2, 77, config.cross_attention_dim)
        return repeated(module, variant, x, torch.tensor(500.0, device=like.device), context)
    x, token = draw(2, settings.frames, 8, height, width), draw(2, 1, config.cross_attention_dim)
    ids = torch.tensor([[6.0, 127.0, 0.0]] * 2, device=like.device)
    told = token if variant.savings is None else told_once(module, token, settings.frames, variant.savings)
    return repeated(module, variant, x, torch.tensor(1.0, device=like.device), told, ids)


def repeated(module: nn.Module, variant: Variant, *given: Any) -> Callable[[], Tensor]:
    if variant.every == 1:
        return lambda: module(*given).sample

    def work() -> Tensor:
        reuse = Reuse(module, variant.every)
        with reuse.listening(Relief(device=given[0].device)):
            for _ in range(variant.every):
                reuse.begin_call()
                found = reuse(BOTH, *given)
        return found

    return work


def timed(work: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """The median of as many calls as fit, three at least."""
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceiling(device: torch.device, *, is_tiny: bool) -> float:
    """TFLOP/s of a product of large matrices in bfloat16."""
    side = 256 if is_tiny else 8192
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, device, 0.01 if is_tiny else 1) / 1e12


@torch.inference_mode()
def measure_calls(
    name: str,
    settings: StillSettings | MotionSettings,
    unet: nn.Module,
    placement: Placement,
    kinds: list[Variant],
    end: float,
    most: float,
) -> Iterator[dict[str, Any]]:
    """A row a variant; the first is stock diffusers. `end`: when to stop beginning. `most`: TFLOP/s of the ceiling."""
    device, like, stock, work = placement.device, next(unet.parameters()), None, 0.0
    for variant in kinds:
        row: dict[str, Any] = {"case": name, "variant": variant.name}
        if time.monotonic() > end:
            yield row | {"left_out": "no time was left"}
            continue
        try:
            module = prepared(unet, variant, placement)
            with attending(variant.attention):
                call = call_of(module, variant, settings, like)
                if stock is None:
                    with FlopCounterMode(display=False) as counter:
                        stock = call()
                    work = counter.get_total_flops() / 1e12
                begun = time.perf_counter()
                found = call()
                wait(device)
                row["first_call_s"] = (time.perf_counter() - begun) / variant.every
                reset_peak(device)
                row["seconds"] = timed(call, device, min(2.0, 3 * row["first_call_s"])) / variant.every
        except Exception as error:  # a kernel that is not for this card is a result too
            yield row | {"left_out": [*str(error).splitlines(), type(error).__name__][0][:120]}
            continue
        row |= {"peak_gib": peak_bytes(device) / GIB, "tflops": work / row["seconds"], "share": work / row["seconds"] / most}
        yield row | {"error": float((found.float() - stock.float()).norm() / stock.float().norm())}
        del module, call, found
        if device.type != "cpu":
            release(device)


def measure_jobs(still: StillModels, motion: MotionModels, cases: dict[str, Any], end: float) -> Iterator[dict[str, Any]]:
    """The first film whole, from prompt to frames, by stock diffusers and by ours, exact and not."""
    (one, film), exact = list(cases.values())[:2], None
    for variant in (Variant("stock diffusers", None), Variant("all savings"), *LOSSY, Variant("no savings", NONE)):
        row: dict[str, Any] = {"case": "whole job", "variant": variant.name}
        if time.monotonic() > end:
            yield row | {"left_out": "no time was left"}
            continue
        work = job_of(still, motion, variant)
        work(*(dataclasses.replace(settings, steps=1) for settings in (one, film)))
        wait(still.placement.device)
        reset_peak(still.placement.device)
        begun = time.perf_counter()
        frames = work(one, film)
        wait(still.placement.device)
        row |= {"seconds": time.perf_counter() - begun, "peak_gib": peak_bytes(still.placement.device) / GIB}
        if variant == Variant("all savings"):
            exact = frames
        elif exact is not None:
            row["psnr"] = psnr_of(exact, frames)[0]  # none where they are equal
        yield row
        del work
        release(still.placement.device)


def job_of(still: StillModels, motion: MotionModels, variant: Variant) -> Callable[[StillSettings, MotionSettings], np.ndarray]:
    if variant.savings is None:
        pipelines = stock_still(still), stock_motion(motion)
        return lambda a, b: run_stock_motion(pipelines[1], run_stock_still(pipelines[0], a), b)
    ours = [rebuilt(models, variant) for models in (still, motion)]
    return lambda a, b: image_to_video(ours[1], text_to_image(ours[0], a), b)


def rebuilt(models: Any, variant: Variant) -> Any:
    """The same weights, as this variant has them."""
    modules = {name: prepared(value, variant, models.placement) for name, value in vars(models).items() if isinstance(value, nn.Module)}
    return dataclasses.replace(models, placement=_placement_of(variant, models.placement), every=variant.every, **modules)


def table(rows: list[dict[str, Any]]) -> str:
    keys = ("seconds", "of_stock", "first_call_s", "peak_gib", "tflops", "share", "error", "psnr")
    lines = [f"| case | variant | {' | '.join(keys)} |", "| --- |" + " --- |" * (1 + len(keys))]
    for row in rows:
        said = " | ".join("" if row.get(key) is None else f"{row[key]:.3g}" for key in keys)
        lines.append(f"| {row['case']} | {row['variant']} | {row.get('left_out') or said} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--film", metavar="WIDTHxHEIGHTxFRAMES", help="calls for this film alone, and no whole job")
    parser.add_argument("--only", metavar="NAMES", help="these variants, separated by commas; stock diffusers is always one")
    options = parser.parse_args(arguments)
    begun, is_tiny = time.monotonic(), options.size == "tiny"
    end, cases = begun + 60 * options.minutes, TINY if is_tiny else FULL
    if options.film:
        width, height, frames = map(int, options.film.split("x"))
        usual = list(cases.values())[1]
        cases = {f"film {options.film}": dataclasses.replace(usual, width=width, height=height, frames=frames)}
    placement = choose_placement(options.device, "sdpa", options.dtype, NONE)
    most = ceiling(placement.device, is_tiny=is_tiny)
    kinds = variants(placement.device, compiles=not options.no_compile and placement.device.type == "cuda")
    if options.only:
        kinds = [kinds[0], *(kind for kind in kinds[1:] if kind.name in options.only.split(","))]
    still, motion = random_still(placement, is_tiny=is_tiny), random_motion(placement, is_tiny=is_tiny)
    rows = []
    # The whole job comes after the first film, so that it has its share of the time.
    for name, settings in cases.items():
        unet = (still if isinstance(settings, StillSettings) else motion).unet
        for row in measure_calls(name, settings, unet, placement, kinds, end, most):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
        if len({row["case"] for row in rows}) == 2 and not options.film:
            rows += measure_jobs(still, motion, cases, end)
    stock = {row["case"]: row["seconds"] for row in rows if row["variant"] == "stock diffusers" and "seconds" in row}
    for row in rows:
        if "seconds" in row and row["case"] in stock:
            row["of_stock"] = row["seconds"] / stock[row["case"]]
    print(table(rows))
    machine = placement.describe() | {"torch": torch.__version__, "bf16_ceiling_tflops": most, "seconds": time.monotonic() - begun}
    print(json.dumps({"rows": rows} | machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
