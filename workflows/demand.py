"""What a job asks of the memory, told from its work and from the headers of its models; and what would fit if it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from errors import blamed_on
from pipelines import memory
from pipelines.checkpoints import CheckpointFile, is_temporal
from pipelines.parameters import MachineSettings
from pipelines.pieces import Demand, Plan, Relief, choose_plan, room_for
from pipelines.shelf import Shelf
from workflows.folders import Folders
from workflows.graph import Node
from workflows.workload import Work

_USUAL_WIDTH = 320  # of the first level of Stable Diffusion's UNets
_PARTS = (0.5, 0.25, 0.1, 0.03, 0.01)
_LOADERS = {"CheckpointLoaderSimple": "still", "ImageOnlyCheckpointLoader": "motion"}
_ENCODERS = ("text_encoder", "text_encoder_2", "vision")


Examined = tuple[CheckpointFile, dict[str, int]]  # a checkpoint's header, and how many weights each part has


def checkpoints_of(nodes: Iterable[Node], folders: Folders, examined: Callable[[Path, str], Examined]) -> list[Examined]:
    """Those that these nodes load. Raises CheckpointError, with the node in `node`."""
    found = {}
    for node in nodes:
        if kind := _LOADERS.get(node.node_class.name):
            with blamed_on(node.id):
                path = folders.model("checkpoints", node.inputs["ckpt_name"])
                found[path, kind] = examined(path, kind)
    return list(found.values())


def relief_for(
    work: Sequence[Work],
    models: Sequence[Examined],
    placement: memory.Placement,
    machine: MachineSettings,
    shelf: Shelf,
    held: int = 0,
) -> Relief:
    """The plan that fits this work on this machine, and what runs the work by it. `models`: every checkpoint that is used. `held`: bytes
    that are taken now and will not be, besides those of models that are kept."""
    memory.release(placement.device)
    if not models:
        return Relief(device=placement.device, spare=shelf.drop_others, models=shelf.modules)
    demand = demand_of(work, models, placement, shelf.budget_bytes)
    held = max(held, shelf.bytes_on(placement.device))
    plan = choose_plan(demand, placement.device, machine.vram, machine.vram_limit, held)

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

    return Relief(plan, placement.device, spare=shelf.drop_others, models=shelf.modules, advice=advice, demand=demand)


def demand_of(work: Sequence[Work], models: Sequence[Examined], placement: memory.Placement, kept_bytes: int) -> Demand:
    """Of the work. `kept_bytes`: so much of models is kept while others work."""
    sizes = [{part: number * placement.item_bytes(part) for part, number in numbers.items()} for _, numbers in models]
    headers = [header for header, _ in models]
    widths = [header.components["unet"].get("block_out_channels", [_USUAL_WIDTH])[0] for header in headers]
    films = [one for one in work if one.kind == "motion"]
    together = sum(sum(parts.values()) for parts in sizes)
    return Demand(
        weights=together if together <= kept_bytes else max(sum(parts.values()) for parts in sizes),
        largest=max(max(parts.values()) for parts in sizes),
        encoder=max(size for parts in sizes for part, size in parts.items() if part in _ENCODERS),
        still_positions=max((one.width * one.height // 64 * one.count for one in work if one.kind == "still"), default=0),
        frame_positions=max((one.width * one.height // 64 for one in films), default=0),
        frames=max((one.count for one in films), default=1),
        item_bytes=placement.dtype.itemsize,
        vae_item_bytes=placement.vae_dtype.itemsize,
        is_temporal=any(is_temporal(header) for header in headers if header.kind == "motion"),
        width=max(widths) / _USUAL_WIDTH,
        keeps_features=any(one.every > 1 for one in work),
    )
