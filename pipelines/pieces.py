"""How a job is cut so that it fits into the memory there is; and what happens when it does not fit after all.

`choose_plan` estimates before the work. `Relief` runs the work: out of memory, it frees what is not at work and runs the same piece
again, smaller each time, from the latents that are already there. No result depends on the cut, but for rounding, for the temporal
decoder, which mixes the frames that it sees together, and for tiles, whose seams are soft.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from errors import MemoryExhaustedError, UnknownNameError
from pipelines.memory import ALL_STAY, GIB, ONE_STAYS, STREAMED, free_bytes, is_streamed, move, on_device, release, stream
from pipelines.parameters import VRAM_LEVELS

log = logging.getLogger(__name__)
T = TypeVar("T")

TILES = (64, 32, 16)  # sides, in latents
_OF_STREAMED = 0.15  # of its weights, what a streamed UNet has on the device at once
_FEATURES = 2 * 2 * 320 * 2  # bytes a latent position, of deep features that are kept: of two calls, in both passes
# Bytes of activations that a latent position needs at its peak, for the widths of Stable Diffusion (320) in half precision: of the
# still's UNet and the motion's in one pass and in both, of the decoders.
_STILL, _MOTION, _DECODER, _TEMPORAL_DECODER = (36_000, 72_000), (24_500, 43_200), 100_000, 132_000


@dataclass(frozen=True)
class Plan:
    """`residence`: what of the models is on the device. `is_batched`: the passes with and without the prompt in one call. `together`:
    frames that a temporal decoder sees at once. `tile`: side of what is decoded in one piece, in latents; 0 is the whole frame."""

    residence: str = ALL_STAY
    is_batched: bool = True
    together: int = 8
    tile: int = 0
    reason: str = "everything stays on the device"


_LEVELS = {
    "high": Plan(),
    "medium": Plan(ONE_STAYS, False, 4, reason="one model at a time on the device, one pass at a time"),
    "low": Plan(STREAMED, False, 2, reason="one layer at a time on the device, one pass at a time"),
}
_ONE_PASS = Plan(ALL_STAY, False, 8, reason="everything stays on the device, one pass at a time")
_CANDIDATES = (_LEVELS["high"], _ONE_PASS, Plan(ONE_STAYS, True, 8, reason="one model at a time on the device"), *_LEVELS.values())


@dataclass(frozen=True)
class Demand:
    """What a job asks of the memory. In bytes: `weights` of all models that are to stay together, of the `largest`, and of the largest
    `encoder`, which cannot be streamed. In latent positions: the still's and one frame's. Bytes a number, of the UNets and of the
    autoencoders; and how wide the networks are beside Stable Diffusion's. `keeps_features`: deep features are used again."""

    weights: int
    largest: int
    encoder: int
    still_positions: int
    frame_positions: int
    frames: int
    item_bytes: int
    vae_item_bytes: int
    is_temporal: bool
    width: float = 1.0
    keeps_features: bool = False

    def bytes(self, plan: Plan) -> int:
        """An estimate, good to a fifth or so: what is resident, and the greatest of what the stages need besides."""
        return self.resident(plan) + max(self.activations(plan).values())

    def resident(self, plan: Plan) -> int:
        """Of weights, as many as are on the device at once."""
        streamed = max(round(_OF_STREAMED * self.largest), self.encoder)
        return {ALL_STAY: self.weights, ONE_STAYS: self.largest, STREAMED: streamed}[plan.residence]

    def finishing(self, plan: Plan) -> int:
        """For decoding, of frames or of a still, and for the model that does it, if it has yet to come."""
        still = round(_DECODER * self.width * self.vae_item_bytes / 2 * self.still_positions)
        return max(self.activations(plan)["decoding"], still) + (0 if plan.residence == ALL_STAY else self.largest)

    def activations(self, plan: Plan) -> dict[str, int]:
        """Of each stage."""
        both = int(plan.is_batched)
        together = min(plan.together, self.frames) * _TEMPORAL_DECODER if self.is_temporal else _DECODER
        unet, vae = (self.width * bytes_ / 2 for bytes_ in (self.item_bytes, self.vae_item_bytes))
        kept = _FEATURES if self.keeps_features else 0
        still = max((_STILL[both] + kept) * unet, _DECODER * vae) * self.still_positions
        motion = self.frames * self.frame_positions * (_MOTION[both] + kept) * unet
        decoding = self.frame_positions * together * vae
        return {"still": round(still), "motion": round(motion), "decoding": round(decoding)}


def choose_plan(demand: Demand, device: torch.device, vram: str = "auto", limit_gib: float = 0, held: int = 0) -> Plan:
    """The level that was asked for, or the first that fits; the smallest if none seems to. A limit of 0 is none; `held` bytes are taken
    by models that are kept, and would be used or dropped. On a CPU models have nowhere else to be. Raises UnknownNameError."""
    if vram not in VRAM_LEVELS:
        raise UnknownNameError("vram level", vram, VRAM_LEVELS)
    is_cpu = device.type == "cpu"
    if vram != "auto":
        plan = dataclasses.replace(_ONE_PASS, together=_LEVELS[vram].together) if is_cpu and vram != "high" else _LEVELS[vram]
        told = "; on a CPU nothing can be moved away" if is_cpu and vram != "high" else ""
        return dataclasses.replace(plan, reason=f"{plan.reason}, as asked{told}")
    room = room_for(device, limit_gib, held)
    if room is None:
        return _LEVELS["high"]
    candidates = [plan for plan in _CANDIDATES if not is_cpu or plan.residence == ALL_STAY]
    smallest = _ONE_PASS if is_cpu else _LEVELS["low"]
    plan = next((plan for plan in candidates if demand.bytes(plan) <= room), smallest)
    need = demand.bytes(plan)
    verdict = "needs about" if need <= room else "the smallest there is, may need"
    plan = dataclasses.replace(plan, reason=f"{plan.reason}: {verdict} {need / GIB:.1f} of {room / GIB:.1f} GiB")
    log.info("memory plan: %s", plan.reason)
    return plan


def room_for(device: torch.device, limit_gib: float = 0, held: int = 0) -> int | None:
    """Bytes to plan with: nine tenths of what is free, or of the limit if that is less. None if nobody knows."""
    free = free_bytes(device)
    known = [*([] if free is None else [free + held]), *([round(limit_gib * GIB)] if limit_gib else [])]
    return round(0.9 * min(known)) if known else None


def one_pass(plan: Plan) -> Plan | None:
    """The next smaller cut of sampling."""
    return dataclasses.replace(plan, is_batched=False) if plan.is_batched else None


def less_decoded(frames: int, side: int, plan: Plan) -> Plan | None:
    """The next smaller cut of decoding: of `frames` that could be decoded together fewer, then tiles of the frame, whose longer side is
    `side` latents."""
    together = min(plan.together, frames) // 2
    if together:
        return dataclasses.replace(plan, together=together)
    tile = next((tile for tile in TILES if tile < (plan.tile or side)), None)
    return dataclasses.replace(plan, tile=tile) if tile else None


def fewer_stay(plan: Plan) -> Plan | None:
    """The next smaller cut of loading."""
    fewer = {ALL_STAY: ONE_STAYS, ONE_STAYS: STREAMED}.get(plan.residence)
    return dataclasses.replace(plan, residence=fewer) if fewer else None


def uncut(plan: Plan) -> None:
    """Of work that cannot be done in pieces."""


Smaller = Callable[[Plan], Plan | None]
_WORDS = {
    "loading": "while the models were loaded",
    "still": "while the still was made",
    "motion": "while the motion was made",
    "decoding": "while frames were decoded",
    "encoding": "while the files were written",
}
_SIGNS = ("out of memory", "allocate memory", "ALLOC_FAILED")  # of CUDA's, MPS's, the host's and cuBLAS's errors


def is_out_of_memory(error: BaseException) -> bool:
    """Memory runs out in many ways, and not every library has a class for it."""
    is_told = isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or is_told


class Relief:
    """Runs pieces of work as `plan` cuts them, and smaller after each time that memory ran out: each phase has its own cut from then
    on. `notes` tell what happened, a line each.

    `spare()` frees what belongs to no part of this job, and says whether there was any. `models()` are those that this job has loaded.
    `advice(phase, plan)` says what would fit; `demand` is what the job was thought to ask."""

    def __init__(
        self,
        plan: Plan = _LEVELS["high"],
        device: torch.device | str = "cpu",
        spare: Callable[[], bool] = lambda: False,
        models: Callable[[], Iterable[nn.Module]] = tuple,
        advice: Callable[[str, Plan], str] = lambda phase, plan: "Use a smaller size or fewer frames.",
        demand: Demand | None = None,
    ) -> None:
        self.plan, self.device, self.notes = plan, torch.device(device), []
        self.has_streamed = False  # a model that came whole, and from now on comes layer by layer
        self.has_seams = False  # something was cut so that it is not what it would be whole; whoever asks sets it back
        self.spare, self._models, self._advice, self._demand = spare, models, advice, demand
        self._cuts: dict[str, Plan] = {}

    def __call__(
        self,
        phase: str,
        work: Callable[[Plan], T],
        smaller: Smaller = uncut,
        *,
        busy: Sequence[nn.Module] = (),
    ) -> T:
        """The result of `work(plan)`. `busy` are the models that it calls.

        Raises MemoryExhaustedError when there is nothing left to free and nothing smaller. Nothing of a failed try is kept."""
        remedies = self._remedies(phase, smaller, busy)
        while True:
            try:
                return work(self.cut(phase))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            release(self.device)  # only here, behind the handler, nothing holds the frames of the failed try any more
            note = next(remedies, None)
            if note is None:
                problem = f"Memory ran out {_WORDS[phase]}, even in the smallest pieces."
                raise MemoryExhaustedError(problem, self._advice(phase, self.cut(phase)))
            self.notes.append(f"Memory ran out {_WORDS[phase]}; {note}.")
            log.warning("%s", self.notes[-1])

    def cut(self, phase: str) -> Plan:
        """The plan of this phase by now."""
        return self._cuts.get(phase, self.plan)

    def finishing(self) -> int:
        """Bytes that the job should need on the device from where nothing is sampled any more, besides what is there; 0 if nobody knows."""
        return self._demand.finishing(self.cut("decoding")) if self._demand else 0

    @contextmanager
    def bring(self, phase: str, *modules: nn.Module) -> Iterator[None]:
        """These models are on the device for the length of the block; a UNet for which there is no room comes layer by layer."""
        with ExitStack() as there:
            for module in modules:
                self(phase, lambda _, module=module: there.enter_context(on_device(module, self.device)), busy=modules)
            yield

    @contextmanager
    def guard(self) -> Iterator[None]:
        """For the whole job: where memory runs out between two pieces of work, nothing smaller can be tried."""
        try:
            yield
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            node = getattr(error, "node", "")
        release(self.device)
        exhausted = MemoryExhaustedError("There is not enough memory for this film.", self._advice("motion", self.plan))
        exhausted.node = node
        raise exhausted

    def _remedies(self, phase: str, smaller: Smaller, busy: Sequence[nn.Module]) -> Iterator[str]:
        """One measure after the other, each told in words once it is taken."""
        if self._free(busy):
            yield "models that were not at work left it, and it went on"
        while plan := smaller(before := self.cut(phase)):
            self._cuts[phase] = plan
            yield f"it went on {_difference(before, plan)}"
        streamed = [stream(module, self.device) for module in busy] if self.device.type != "cpu" else []
        if any(streamed):
            self.has_streamed = True
            yield "it went on with one layer at a time on the device"

    def _free(self, busy: Sequence[nn.Module]) -> bool:
        here, working = self.device.type, {id(module) for module in busy}
        idle = [module for module in self._models() if id(module) not in working]
        there = [module for module in idle if not is_streamed(module) and next(module.parameters()).device.type == here != "cpu"]
        freed = self.spare()  # first: it ends who may be at work with them for the next job
        for module in there:
            move(module, torch.device("cpu"))
        release(self.device)
        return freed or bool(there)


def _difference(before: Plan, after: Plan) -> str:
    if after.residence != before.residence:
        what = "model" if after.residence == ONE_STAYS else "layer"
        return f"with one {what} at a time on the device"
    if after.is_batched != before.is_batched:
        return "with one pass of the model at a time"
    if after.tile != before.tile:
        return f"in tiles of {8 * after.tile} pixels"
    return f"{after.together} frames at a time" if after.together > 1 else "frame by frame"


def decoding_cuts(frames: int, height: int, width: int) -> Smaller:
    """For `Relief`: `frames` latents (frames, 4, height, width) that may be decoded together."""
    return partial(less_decoded, frames, max(height, width))
