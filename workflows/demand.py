"""What a job asks of the memory, told from its work and from the headers of its models; and what would fit if it does not."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines import memory
from pipelines.checkpoints import CheckpointFile, check_complete, is_temporal
from pipelines.parameters import MachineSettings
from pipelines.pieces import Demand, Plan, Relief, choose_plan, room_for
from pipelines.shelf import Shelf
from workflows.workload import Work

_USUAL_WIDTH = 320  # of the first level of Stable Diffusion's UNets
_PARTS = (0.5, 0.25, 0.1, 0.03, 0.01)
_ENCODERS = ("text_encoder", "text_encoder_2", "vision")


def relief_for(
    work: Sequence[Work], headers: Sequence[CheckpointFile], placement: memory.Placement, machine: MachineSettings, shelf: Shelf
) -> Relief:
    """The plan that fits this work on this machine, and what runs the work by it. `headers`: of every checkpoint that is used. Raises
    CheckpointError if one of them lacks weights."""
    memory.release(placement.device)
    if not headers:
        return Relief(device=placement.device, spare=shelf.drop_others, models=shelf.modules)
    demand = demand_of(work, headers, placement, shelf.budget_bytes)
    plan = choose_plan(demand, placement.device, machine.vram, machine.vram_limit, shelf.bytes_on(placement.device))

    def advice(phase: str, plan: Plan) -> str:
        """The largest of smaller films that should fit; of half the size at most, since the estimate was wrong for this one."""
        if phase == "loading":
            return "Use smaller checkpoints, close what else needs memory, or let fewer models stay on the device: --vram low."
        kind = "still" if phase == "still" else "motion"
        sizes = [one for one in work if one.kind == kind and one.width]
        if phase == "encoding" or not sizes:
            return "Use a smaller size or fewer frames, or close what else needs memory."
        largest, room = max(sizes, key=lambda one: one.width * one.height * one.count), room_for(placement.device, machine.vram_limit)
        fits = (part for part in _PARTS if room is None or demand.activations(plan)[phase] * part <= room)
        part = next(fits, _PARTS[-1])
        width, height = (max(16, int(side * part**0.5) // 8 * 8) for side in (largest.width, largest.height))
        is_shorter = phase != "still" and largest.count * part >= 1
        frames = f" or {int(largest.count * part)} frames of this size" if is_shorter else ""
        return f"What should fit: {'a still of ' if phase == 'still' else ''}{width}x{height} pixels{frames}."

    return Relief(plan, placement.device, spare=shelf.drop_others, models=shelf.modules, advice=advice)


def demand_of(work: Sequence[Work], headers: Sequence[CheckpointFile], placement: memory.Placement, kept_bytes: int) -> Demand:
    """Of the work. `kept_bytes`: so much of models is kept while others work."""
    item, vae_item = placement.dtype.itemsize, placement.vae_dtype.itemsize
    parts = [
        (part, number * (vae_item if part == "vae" else item)) for header in headers for part, number in check_complete(header).items()
    ]
    by_file = [sum(number * item for number in check_complete(header).values()) for header in headers]
    widths = [header.components["unet"].get("block_out_channels", [_USUAL_WIDTH])[0] for header in headers]
    motion = [header for header in headers if header.kind == "motion"]
    films = [one for one in work if one.kind == "motion"]
    together = sum(size for _, size in parts)
    return Demand(
        weights=together if together <= kept_bytes else max(by_file),
        largest=max(size for _, size in parts),
        encoder=max(size for part, size in parts if part in _ENCODERS),
        still_positions=max((one.width * one.height // 64 * one.count for one in work if one.kind == "still"), default=0),
        frame_positions=max((one.width * one.height // 64 for one in films), default=0),
        frames=max((one.count for one in films), default=1),
        item_bytes=item,
        vae_item_bytes=vae_item,
        is_temporal=any(map(is_temporal, motion)),
        width=max(widths) / _USUAL_WIDTH,
    )
