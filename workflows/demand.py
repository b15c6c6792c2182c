"""What a film asks of the memory, told from its settings and from the headers of its models; and what would fit if it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines import memory
from pipelines.checkpoints import CheckpointFile, check_complete, is_temporal
from pipelines.parameters import MachineSettings
from pipelines.pieces import Demand, Plan, Relief, choose_plan, room_for

if TYPE_CHECKING:
    from workflows.film import Film

_USUAL_WIDTH = 320  # of the first level of Stable Diffusion's UNets
_PARTS = (0.5, 0.25, 0.1, 0.03, 0.01)


def relief_for(film: Film, headers: Mapping[str, CheckpointFile], placement: memory.Placement, machine: MachineSettings) -> Relief:
    """The plan that fits this film on this machine, and what runs the work by it. `headers` by kind: of the motion and, if one is made,
    of the still. Raises CheckpointError if one of them lacks weights."""
    plan = choose_plan(demand_of(film, headers, placement), placement.device, machine.vram, machine.vram_limit)

    def advice(plan: Plan) -> str:
        """The largest of smaller films that should fit; of half the size at most, since the estimate was wrong for this one."""
        room, motion = room_for(placement.device, machine.vram_limit), film.motion
        fits = (part for part in _PARTS if not room or demand_of(film, headers, placement, part).bytes(plan) <= room)
        part = next(fits, None)
        if part is None:
            return "The models alone hardly fit; use smaller ones, or a machine with more memory."
        width, height = (max(16, int(side * part**0.5) // 8 * 8) for side in (motion.width, motion.height))
        frames = f", or {int(motion.frames * part)} frames of this size" if motion.frames * part >= 1 else ""
        return f"What should fit: {width}x{height} pixels{frames}."

    return Relief(plan, placement.device, advice=advice)


def demand_of(film: Film, headers: Mapping[str, CheckpointFile], placement: memory.Placement, part: float = 1.0) -> Demand:
    """Of the film, or of one with a `part` of its pixels."""
    item = placement.dtype.itemsize
    sizes = [size * item for header in headers.values() for size in check_complete(header).values()]
    widths = [header.components["unet"].get("block_out_channels", [_USUAL_WIDTH])[0] for header in headers.values()]
    still, motion = film.still, film.motion
    return Demand(
        weights=sum(sizes),
        largest=max(sizes),
        still_positions=round(part * still.width * still.height / 64) if "still" in headers else 0,
        frame_positions=round(part * motion.width * motion.height / 64),
        frames=motion.frames,
        item_bytes=item,
        is_temporal=is_temporal(headers["motion"]),
        width=max(widths) / _USUAL_WIDTH,
    )
