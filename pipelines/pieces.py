"""How a job is cut so that it fits into the memory there is; and what happens when it does not fit after all.

`choose_plan` estimates before the work. `Relief` runs the work: out of memory, it frees what is not at work and runs the same piece
again, smaller each time, from the latents that are already there. No result depends on the cut, but for rounding and for the temporal
decoder, which mixes the frames that it sees together.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from errors import MemoryExhaustedError, UnknownNameError
from pipelines.memory import ALL_STAY, GIB, ONE_STAYS, STREAMED, free_bytes, is_streamed, move, on_device, release, stream
from pipelines.parameters import VRAM_LEVELS

log = logging.getLogger(__name__)
T = TypeVar("T")

SMALLEST_TILE = 16  # latents
_OF_STREAMED = 0.15  # of its weights, what a streamed model has on the device at once
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
_CANDIDATES = (
    _LEVELS["high"],
    Plan(ALL_STAY, False, 8, reason="everything stays on the device, one pass at a time"),
    Plan(ONE_STAYS, True, 8, reason="one model at a time on the device"),
    _LEVELS["medium"],
    _LEVELS["low"],
)


@dataclass(frozen=True)
class Demand:
    """What a job asks of the memory: bytes of all weights and of the largest model, latent positions of the still and of one frame,
    frames, bytes a number, and how wide the networks are beside Stable Diffusion's."""

    weights: int
    largest: int
    still_positions: int
    frame_positions: int
    frames: int
    item_bytes: int
    is_temporal: bool
    width: float = 1.0

    def bytes(self, plan: Plan) -> int:
        """An estimate, good to a fifth or so: what is resident, and the greatest of what the stages need besides."""
        weights = {ALL_STAY: self.weights, ONE_STAYS: self.largest, STREAMED: round(_OF_STREAMED * self.largest)}[plan.residence]
        both = int(plan.is_batched)
        sampled = max(self.still_positions * _STILL[both], self.frames * self.frame_positions * _MOTION[both])
        tile = plan.tile**2 or max(self.still_positions, self.frame_positions)
        together = min(plan.together, self.frames) if self.is_temporal else 1
        decoded = min(tile, self.frame_positions or tile) * together * _TEMPORAL_DECODER if self.is_temporal else tile * _DECODER
        return weights + round(max(sampled, decoded) * self.width * self.item_bytes / 2)


def choose_plan(demand: Demand, device: torch.device, vram: str = "auto", limit_gib: float = 0) -> Plan:
    """The level that was asked for, or the first that fits; the smallest if none seems to. A limit of 0 is none. Raises
    UnknownNameError."""
    if vram not in VRAM_LEVELS:
        raise UnknownNameError("vram level", vram, VRAM_LEVELS)
    if vram != "auto":
        plan = _LEVELS[vram]
        return dataclasses.replace(plan, reason=f"{plan.reason}, as asked")
    room = room_for(device, limit_gib)
    if not room:
        return _CANDIDATES[0]
    candidates = [plan for plan in _CANDIDATES if device.type != "cpu" or plan.residence == ALL_STAY]
    plan = next((plan for plan in candidates if demand.bytes(plan) <= room), candidates[-1])
    need = demand.bytes(plan)
    verdict = "needs about" if need <= room else "the smallest there is, may need"
    plan = dataclasses.replace(plan, reason=f"{plan.reason}: {verdict} {need / GIB:.1f} of {room / GIB:.1f} GiB")
    log.info("memory plan: %s", plan.reason)
    return plan


def room_for(device: torch.device, limit_gib: float) -> int:
    """Bytes to plan with: nine tenths of what is free, or of the limit if that is less. 0 if nobody knows."""
    known = [bytes_ for bytes_ in (free_bytes(device), round(limit_gib * GIB)) if bytes_]
    return round(0.9 * min(known)) if known else 0


def one_pass(plan: Plan) -> Plan | None:
    """The next smaller cut of sampling."""
    return dataclasses.replace(plan, is_batched=False) if plan.is_batched else None


def fewer_together(plan: Plan) -> Plan | None:
    """The next smaller cut of decoding: fewer frames, then tiles of the frame."""
    if plan.together > 1:
        return dataclasses.replace(plan, together=plan.together // 2)
    return smaller_tile(plan)


def smaller_tile(plan: Plan) -> Plan | None:
    if plan.tile == 0:
        return dataclasses.replace(plan, tile=64)
    return dataclasses.replace(plan, tile=plan.tile // 2) if plan.tile > SMALLEST_TILE else None


def fewer_stay(plan: Plan) -> Plan | None:
    """The next smaller cut of loading."""
    return {ALL_STAY: dataclasses.replace(plan, residence=ONE_STAYS), ONE_STAYS: dataclasses.replace(plan, residence=STREAMED)}.get(
        plan.residence
    )


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


def is_out_of_memory(error: BaseException) -> bool:
    """Memory runs out in many ways: of Python, of the card, of PyTorch's allocator of the host."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ("allocate memory", "CUDA out of memory"))
    )


class Relief:
    """Runs pieces of work as `plan` cuts them, and smaller after each time that memory ran out. `notes` tell what happened, a line each.

    `spare()` frees what belongs to no part of this job, and says whether there was any. `advice()` says what would fit."""

    def __init__(
        self,
        plan: Plan = _LEVELS["high"],
        device: torch.device | str = "cpu",
        spare: Callable[[], bool] = lambda: False,
        advice: Callable[[Plan], str] = lambda plan: "Use a smaller size or fewer frames.",
    ) -> None:
        self.plan, self.device, self.notes = plan, torch.device(device), []
        self.spare, self._advice = spare, advice

    def __call__(
        self,
        phase: str,
        work: Callable[[Plan], T],
        smaller: Smaller = uncut,
        *,
        busy: nn.Module | None = None,
        idle: Sequence[nn.Module] = (),
    ) -> T:
        """The result of `work(plan)`. `busy` is the model that it calls, `idle` are those of this job that it does not.

        Raises MemoryExhaustedError when there is nothing left to free and nothing smaller. Nothing of a failed try is kept."""
        remedies = self._remedies(phase, smaller, busy, idle)
        while True:
            try:
                return work(self.plan)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            release(self.device)  # only here, behind the handler, nothing holds the frames of the failed try any more
            note = next(remedies, None)
            if note is None:
                raise MemoryExhaustedError(f"Memory ran out {_WORDS[phase]}, even in the smallest pieces.", self._advice(self.plan))
            self.notes.append(f"Memory ran out {_WORDS[phase]}; {note}.")
            log.warning("%s", self.notes[-1])

    @contextmanager
    def bring(self, phase: str, *modules: nn.Module, idle: Sequence[nn.Module] = ()) -> Iterator[None]:
        """These models are on the device for the length of the block; one for which there is no room comes layer by layer."""
        with ExitStack() as there:
            for module in modules:
                self(phase, lambda _, module=module: there.enter_context(on_device(module, self.device)), busy=module, idle=idle)
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
        release(self.device)
        raise MemoryExhaustedError("There is not enough memory for this film.", self._advice(self.plan))

    def _remedies(self, phase: str, smaller: Smaller, busy: nn.Module | None, idle: Sequence[nn.Module]) -> Iterator[str]:
        """One measure after the other, each told in words once it is taken."""
        if self._free(idle):
            yield "models that were not at work left it, and it went on"
        while plan := smaller(self.plan):
            self.plan = plan
            yield f"it went on {_cut(phase, plan)}"
        if busy is not None and self.device.type != "cpu" and stream(busy, self.device):
            self.plan = dataclasses.replace(self.plan, residence=STREAMED)
            yield "it went on with one layer at a time on the device"

    def _free(self, idle: Sequence[nn.Module]) -> bool:
        there = [
            module for module in idle if not is_streamed(module) and next(module.parameters()).device.type == self.device.type != "cpu"
        ]
        for module in there:
            move(module, torch.device("cpu"))
        freed = self.spare()
        release(self.device)
        return freed or bool(there)


def _cut(phase: str, plan: Plan) -> str:
    if phase == "loading":
        return {ONE_STAYS: "with one model at a time on the device", STREAMED: "with one layer at a time on the device"}[plan.residence]
    if phase in ("still", "motion") and not plan.tile:
        return "with one pass of the model at a time"
    if plan.tile:
        return f"in tiles of {8 * plan.tile} pixels"
    return f"{plan.together} frames at a time" if plan.together > 1 else "frame by frame"
