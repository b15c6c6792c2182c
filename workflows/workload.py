"""How much work a workflow is, told from its nodes alone: what is sampled, of which size, in how many steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from errors import UnreadableFileError
from workflows.folders import Folders
from workflows.graph import Link, Node, Workflow

_PASSES_MODEL_ON = {
    "LoraLoader": "model",
    "LoraLoaderModelOnly": "model",
    "VideoLinearCFGGuidance": "model",
    "VideoTriangleCFGGuidance": "model",
    "StillmotionReuse": "model",
}
_BETWEEN = 0.25  # of a whole call's work, one of Stable Video Diffusion that uses deep features again; less of XL, more of the demo models
_PASSES_SIZE_ON = {
    "KSampler": "latent_image", "KSamplerAdvanced": "latent_image", "VAEDecode": "samples", "VAEDecodeTiled": "samples",
    "VAEEncode": "pixels", "ImageFromBatch": "image", "RepeatLatentBatch": "samples", "ImageScale": "image", "ImageScaleBy": "image",
    "ImageBatch": "image1",
}  # fmt: skip
Size = tuple[int, int, int]  # width, height, number of pictures


@dataclass(frozen=True)
class Work:
    """One run of a sampler in node `node`; `count` pictures of a still, or frames. A side is 0 where nobody can tell before. `steps`: in
    work, where some use deep features again they are so many whole ones, of which `every` says more."""

    node: str
    kind: str
    checkpoint: str
    steps: int
    width: int
    height: int
    count: int
    every: int = 1

    def __str__(self) -> str:
        return f"{self.kind}:{self.steps}x{self.width}x{self.height}x{self.count}"

    @property
    def pixel_steps(self) -> int:
        return self.steps * self.width * self.height * self.count


def workload(workflow: Workflow, folders: Folders) -> list[Work]:
    """Of every sampler, in the order of the document."""
    found = []
    for node in workflow.named("KSampler", "KSamplerAdvanced"):
        *changes, loader = _way_of_model(workflow, node)
        if "ckpt_name" not in loader.inputs:
            continue
        kind = "motion" if loader.node_class.name == "ImageOnlyCheckpointLoader" else "still"
        size = size_of(workflow, node.inputs["latent_image"], folders) or (0, 0, 1)
        every = _every(changes)
        found.append(Work(node.id, kind, str(loader.inputs["ckpt_name"]), _whole(_steps(node), every), *size, every))
    return found


def _steps(node: Node) -> int:
    """Those that are run of a sampler's."""
    steps, first, last = (node.inputs.get(name, 0) for name in ("steps", "start_at_step", "end_at_step"))
    if not isinstance(steps, int):
        return 0
    if node.node_class.name == "KSampler" or not isinstance(first, int) or not isinstance(last, int):
        return steps
    return max(0, min(steps, last) - first)


def _every(changes: Iterable[Node]) -> int:
    """Of so many calls of the model one is whole, if that can be told; the change nearest to the sampler counts."""
    every = next((node.inputs["every"] for node in changes if node.node_class.name == "StillmotionReuse"), 1)
    return every if isinstance(every, int) else 1


def _whole(steps: int, every: int) -> int:
    """As many whole steps as are as much work."""
    whole = -(-steps // every)
    return whole + round(_BETWEEN * (steps - whole))


def _way_of_model(workflow: Workflow, node: Node) -> list[Node]:
    """From a sampler back: what changes the model, and last what loads it, or the first that nobody can tell of."""
    way, link = [], node.inputs.get("model")
    while isinstance(link, Link):
        way.append(workflow.nodes[link.node])
        link = None if "ckpt_name" in way[-1].inputs else way[-1].inputs.get(_PASSES_MODEL_ON.get(way[-1].node_class.name, ""))
    return way or [node]


def size_of(workflow: Workflow, link: Link, folders: Folders) -> Size | None:
    """Of the pictures or latents that come out there; None if nobody can tell."""
    changes: list[Node] = []
    while (size := _made_by(workflow.nodes[link.node], folders)) is None:
        node = workflow.nodes[link.node]
        source = node.inputs.get(_PASSES_SIZE_ON.get(node.node_class.name, ""))
        if not isinstance(source, Link):
            return None
        changes.append(node)
        link = source
    for node in reversed(changes):
        size = _changed(node, size)
        if size is None:
            return None
    return size


def _made_by(node: Node, folders: Folders) -> Size | None:
    """By a node that needs no other for it."""
    match node.node_class.name:
        case "EmptyLatentImage":
            names = ("width", "height", "batch_size")
        case "SVD_img2vid_Conditioning":
            names = ("width", "height", "video_frames")
        case "LoadImage":
            return _picture_size(folders, node.inputs["image"])
        case _:
            return None
    found = tuple(node.inputs[name] for name in names)
    return None if any(isinstance(value, Link) for value in found) else found


def _changed(node: Node, size: Size) -> Size | None:
    """What a node makes of that size."""
    inputs, (width, height, count) = node.inputs, size
    if any(isinstance(inputs.get(name), Link) for name in ("width", "height", "amount", "scale_by", "length")):
        return None
    match node.node_class.name:
        case "ImageFromBatch":
            return width, height, min(count, inputs["length"])
        case "RepeatLatentBatch":
            return width, height, count * inputs["amount"]
        case "ImageScale":
            return inputs["width"] or width, inputs["height"] or height, count
        case "ImageScaleBy":
            return round(width * inputs["scale_by"]), round(height * inputs["scale_by"]), count
    return size


def _picture_size(folders: Folders, name: str) -> Size | None:
    from pipelines.picture import picture_size

    try:
        return (*picture_size(folders.picture(name)), 1)
    except UnreadableFileError:  # the node that reads it will say so
        return None
