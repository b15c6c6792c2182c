"""What a film takes of a card's memory, by stage and plan, and of its time: computed without a card, on PyTorch's meta device.

    python -m benchmarks.memory [--size full|tiny] [--card 16] [--weights float8]

The models are Stable Diffusion 1.5 and Stable Video Diffusion (`tiny`: models that are quick to build), in half precision, without their
weights: every operation is run on shapes alone, and the storages that are alive are counted after each. `activations` is the most there
was at once; what a kernel takes for itself, and what an allocator loses between blocks, is not in it. Attention is counted as kernels do
it that never hold the whole matrix. `estimate` is what plans are made with (`pipelines/pieces.py`), which may rather be too much than too
little. `together`: with the weights that the plan keeps on the device.

Prints a table and, last, one JSON document; the exit code is 1 if the film does not fit where it should: 12 GiB on a card of 16, 8 GiB
with `--vram low`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_models import described
from pipelines.checkpoints import build
from pipelines.lean_motion import told_once
from pipelines.memory import GIB, Placement, place
from pipelines.parameters import WEIGHTS
from pipelines.pieces import Demand, choose_plan
from pipelines.savings import ALL, NONE, Savings

META = torch.device("meta")
SIZES = {  # the still's width and height, the film's, and frames
    "full": [(512, 512, 1024, 576, 25), (720, 1280, 512, 768, 35)],
    "tiny": [(64, 64, 64, 48, 4)],
}
LEVELS = ("high", "medium", "low")
GOALS = {"auto": 12 * GIB, "low": 8 * GIB}


class Alive(TorchDispatchMode):
    """`most` bytes were alive at once of all that was made since it began."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device == META:
                storage = tensor.untyped_storage()
                self._storages.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self._storages = {key: (weak, size) for key, (weak, size) in self._storages.items() if not weak.expired()}
        self.most = max(self.most, sum(size for _, size in self._storages.values()))
        return made


def attended(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


@torch.inference_mode()
def most_alive(work: Callable[[], Tensor], inputs: list[Tensor]) -> int:
    """Bytes, with those of the inputs."""
    with mock.patch("torch.nn.functional.scaled_dot_product_attention", attended), Alive() as alive:
        work()
    return alive.most + sum(one.untyped_storage().nbytes() for one in inputs)


@dataclass
class Models:
    """Without weights. `savings` as a job has them."""

    unet: nn.Module
    vae: nn.Module
    sizes: dict[str, int]  # bytes of each part's weights
    savings: Savings

    @classmethod
    def of(cls, family: str, savings: Savings, *, is_tiny: bool, is_float8: bool = False) -> Models:
        header = described(family, is_tiny=is_tiny, is_temporal=not is_tiny)
        half = Placement(META, torch.float16, torch.bfloat16, "sdpa", "", savings, is_float8=is_float8)
        precisions = {part: half.vae_dtype if part == "vae" else half.dtype for part in header.parts()}
        cast = nn.Module.to  # past the warnings of diffusers
        parts = {part: cast(build(header, part), META, dtype) for part, dtype in precisions.items()}
        placed = {part: place(model, half) for part, model in parts.items()}
        sizes = {part: sum(p.numel() * p.itemsize for p in model.parameters()) for part, model in placed.items()}
        return cls(placed["unet"], placed["vae"], sizes, savings)


def empty(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def still(models: Models, width: int, height: int, passes: int) -> int:
    x = empty(passes, 4, height // 8, width // 8)
    context = empty(passes, 77, models.unet.config.cross_attention_dim)
    when = torch.empty((), device=META)
    return most_alive(lambda: models.unet(x, when, context).sample, [x, context])


def motion(models: Models, width: int, height: int, frames: int, passes: int) -> int:
    call, inputs = motion_call(models, width, height, frames, passes)
    return most_alive(call, inputs)


def motion_call(models: Models, width: int, height: int, frames: int, passes: int) -> tuple[Callable[[], Tensor], list[Tensor]]:
    x, token = empty(passes, frames, 8, height // 8, width // 8), empty(passes, 1, models.unet.config.cross_attention_dim)
    ids, when = empty(passes, 3), torch.empty((), device=META)
    told = token if models.savings == NONE else told_once(models.unet, token, frames, models.savings)
    return lambda: models.unet(x, when, told, ids).sample, [x, told]


@torch.inference_mode()
def motion_flops(models: Models, width: int, height: int, frames: int) -> int:
    """Of one call with both passes: a multiplication and an addition are two."""
    call, _ = motion_call(models, width, height, frames, 2)
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def decoding(vae: nn.Module, width: int, height: int, frames: int) -> int:
    z = empty(frames, 4, height // 8, width // 8, dtype=torch.bfloat16)
    more = {"num_frames": frames} if is_temporal(vae) else {}
    return most_alive(lambda: vae.decode(z, **more).sample, [z])


def is_temporal(vae: nn.Module) -> bool:
    return type(vae).__name__ == "AutoencoderKLTemporalDecoder"


def rows_of(size: tuple[int, int, int, int, int], stills: Models, films: Models, card: float) -> list[dict[str, Any]]:
    wide, tall, width, height, frames = size
    parts = [*stills.sizes.values(), *films.sizes.values()]
    demand = Demand(
        weights=sum(parts), largest=max(parts), encoder=max(stills.sizes["text_encoder"], films.sizes["vision"]),
        still_positions=wide * tall // 64, frame_positions=width * height // 64, frames=frames, item_bytes=2, vae_item_bytes=2,
        is_temporal=is_temporal(films.vae), width=films.unet.config.block_out_channels[0] / 320,
    )  # fmt: skip
    with mock.patch("pipelines.pieces.free_bytes", return_value=round(card * GIB)):
        cuda = torch.device("cuda")
        plans = {"auto": choose_plan(demand, cuda)} | {level: choose_plan(demand, cuda, level) for level in LEVELS}
    rows = []
    for name, plan in plans.items():
        passes, together = 1 + plan.is_batched, min(plan.together, frames) if demand.is_temporal else 1
        activations = {
            "still": max(still(stills, wide, tall, passes), decoding(stills.vae, wide, tall, 1)),
            "motion": motion(films, width, height, frames, passes),
            "decoding": decoding(films.vae, width, height, together),
        }  # fmt: skip
        rows.append({
            "still": f"{wide}x{tall}", "film": f"{width}x{height}x{frames}", "plan": name, "means": plan.reason.partition(":")[0],
            "activations": activations, "estimate": demand.activations(plan), "weights": demand.resident(plan),
            "together": demand.resident(plan) + max(activations.values()),
        })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--card", type=float, default=16, help="GiB that are free on the card for which `auto` chooses")
    parser.add_argument("--weights", choices=WEIGHTS, default="auto", help="how the UNets' are kept")
    options = parser.parse_args()
    is_tiny, is_float8 = options.size == "tiny", options.weights == "float8"
    stills, films = (Models.of(family, ALL, is_tiny=is_tiny, is_float8=is_float8) for family in ("sd1", "svd"))
    rows = [row for size in SIZES[options.size] for row in rows_of(size, stills, films, options.card)]
    spared = saved(films, SIZES[options.size][0], is_tiny=is_tiny)
    unit, name = (1024, "MiB") if is_tiny else (1, "GiB")
    print(f"{name}: computed (estimate)")
    print(f"{'film':<16}{'plan':<8}{'still':>14}{'motion':>14}{'decoding':>14}{'weights':>9}{'together':>9}  means")
    for row in rows:
        pairs = [(row["activations"][stage] / GIB * unit, row["estimate"][stage] / GIB * unit) for stage in row["activations"]]
        cells = "".join(f"{f'{computed:.2f} ({estimate:.2f})':>14}" for computed, estimate in pairs)
        ends = f"{row['weights'] / GIB * unit:>9.2f}{row['together'] / GIB * unit:>9.2f}"
        print(f"{row['film']:<16}{row['plan']:<8}{cells}{ends}  {row['means']}")
    print(f"motion, both passes, without savings: {spared['plain'] / GIB * unit:.2f}, with them {spared['lean'] / GIB * unit:.2f}")
    for size in SIZES[options.size]:
        plain, lean = (motion_flops(one, *size[2:]) / 1e12 for one in (unspared(is_tiny=is_tiny), films))
        print(
            f"TFLOP of a call, {'x'.join(map(str, size[2:]))}: {plain:.4g} without savings, {lean:.4g} with them ({lean / plain - 1:.1%})"
        )
    first = {row["plan"]: row["together"] for row in rows if row["film"] == rows[0]["film"]}
    wrong = [f"{plan}: {first[plan] / GIB:.2f} GiB" for plan, most in GOALS.items() if first[plan] > most]
    document = {"benchmark": "memory", "size": options.size, "kept": options.weights, "rows": rows, "savings": spared, "wrong": wrong}
    print("\n".join(["", *wrong, json.dumps(document)]))
    return int(bool(wrong))


def unspared(*, is_tiny: bool) -> Models:
    """Without savings."""
    return Models.of("svd", NONE, is_tiny=is_tiny)


def saved(lean: Models, size: tuple[int, int, int, int, int], *, is_tiny: bool) -> dict[str, int]:
    """The motion's activations in both passes, with savings and without."""
    _, _, width, height, frames = size
    plain = unspared(is_tiny=is_tiny)
    return {name: motion(models, width, height, frames, 2) for name, models in (("plain", plain), ("lean", lean))}


if __name__ == "__main__":
    sys.exit(main())
