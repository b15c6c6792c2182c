"""What a film asks of the memory, told from its settings and from the headers of its models; and what would fit if it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines import memory
from pipelines.checkpoints import CheckpointFile, check_complete, is_temporal
from pipelines.parameters import MachineSettings
from pipelines.pieces import Demand, Plan, Relief, choose_plan, room_for
from pipelines.shelf import Shelf

if TYPE_CHECKING:
    from workflows.film import Film

_USUAL_WIDTH = 320  # of the first level of Stable Diffusion's UNets
_PARTS = (0.5, 0.25, 0.1, 0.03, 0.01)
_ENCODERS = ("text_encoder", "text_encoder_2", "vision")


def relief_for(
    film: Film, headers: Mapping[str, CheckpointFile], placement: memory.Placement, machine: MachineSettings, shelf: Shelf
) -> Relief:
    """The plan that fits this film on this machine, and what runs the work by it. `headers` by kind: of the motion and, if one is made,
    of the still. Raises CheckpointError if one of them lacks weights."""
    memory.release(placement.device)
    demand = demand_of(film, headers, placement, stay_together=shelf.budget_bytes > 0)
    plan = choose_plan(demand, placement.device, machine.vram, machine.vram_limit, shelf.bytes_on(placement.device))

    def advice(phase: str, plan: Plan) -> str:
        """The largest of smaller films that should fit; of half the size at most, since the estimate was wrong for this one."""
        if phase == "loading":
            return "Use smaller checkpoints, close what else needs memory, or let fewer models stay on the device: --vram low."
        if phase == "encoding":
            return "Use a smaller size or fewer frames, or close what else needs memory."
        stage, room = film.still if phase == "still" else film.motion, room_for(placement.device, machine.vram_limit)
        fits = (part for part in _PARTS if room is None or demand.activations(plan)[phase] * part <= room)
        part = next(fits, _PARTS[-1])
        width, height = (max(16, int(side * part**0.5) // 8 * 8) for side in (stage.width, stage.height))
        frames = f" or {int(film.motion.frames * part)} frames of this size" if phase != "still" and film.motion.frames * part >= 1 else ""
        return f"What should fit: {'a still of ' if phase == 'still' else ''}{width}x{height} pixels{frames}."

    return Relief(plan, placement.device, advice=advice)


def demand_of(film: Film, headers: Mapping[str, CheckpointFile], placement: memory.Placement, *, stay_together: bool) -> Demand:
    """Of the film. `stay_together`: whether the still's models are kept while the motion's work."""
    item, vae_item = placement.dtype.itemsize, placement.vae_dtype.itemsize
    sizes = {
        (kind, part): number * (vae_item if part == "vae" else item)
        for kind, header in headers.items()
        for part, number in check_complete(header).items()
    }
    by_kind = [sum(size for (kind, _), size in sizes.items() if kind == one) for one in headers]
    widths = [header.components["unet"].get("block_out_channels", [_USUAL_WIDTH])[0] for header in headers.values()]
    return Demand(
        weights=sum(by_kind) if stay_together else max(by_kind),
        largest=max(sizes.values()),
        encoder=max(size for (_, part), size in sizes.items() if part in _ENCODERS),
        still_positions=film.still.width * film.still.height // 64 if "still" in headers else 0,
        frame_positions=film.motion.width * film.motion.height // 64,
        frames=film.motion.frames,
        item_bytes=item,
        vae_item_bytes=vae_item,
        is_temporal=is_temporal(headers["motion"]),
        width=max(widths) / _USUAL_WIDTH,
    )
