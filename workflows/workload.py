"""How much work a workflow is, told from its nodes alone: what is sampled, of which size, in how many steps."""

from __future__ import annotations

from dataclasses import dataclass

from errors import UnreadableFileError
from workflows.folders import Folders
from workflows.graph import Link, Node, Workflow

_PASSES_MODEL_ON = {
    "LoraLoader": "model",
    "LoraLoaderModelOnly": "model",
    "VideoLinearCFGGuidance": "model",
    "VideoTriangleCFGGuidance": "model",
}
_PASSES_SIZE_ON = {
    "KSampler": "latent_image", "KSamplerAdvanced": "latent_image", "VAEDecode": "samples", "VAEDecodeTiled": "samples",
    "VAEEncode": "pixels", "ImageFromBatch": "image",
}  # fmt: skip
Size = tuple[int, int, int]  # width, height, number of pictures


@dataclass(frozen=True)
class Work:
    """One run of a sampler in node `node`; `count` pictures of a still, or frames. A side is 0 where nobody can tell before."""

    node: str
    kind: str
    checkpoint: str
    steps: int
    width: int
    height: int
    count: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.steps}x{self.width}x{self.height}x{self.count}"

    @property
    def pixel_steps(self) -> int:
        return self.steps * self.width * self.height * self.count


def workload(workflow: Workflow, folders: Folders) -> list[Work]:
    """Of every sampler, in the order of the document."""
    found = []
    for node in workflow.named("KSampler", "KSamplerAdvanced"):
        loader = _loader(workflow, node)
        if loader is None:
            continue
        kind = "motion" if loader.node_class.name == "ImageOnlyCheckpointLoader" else "still"
        size = size_of(workflow, node.inputs["latent_image"], folders) or (0, 0, 1)
        steps = node.inputs["steps"] if isinstance(node.inputs["steps"], int) else 0
        found.append(Work(node.id, kind, str(loader.inputs["ckpt_name"]), steps, *size))
    return found


def _loader(workflow: Workflow, node: Node) -> Node | None:
    link = node.inputs.get("model")
    while isinstance(link, Link):
        node = workflow.nodes[link.node]
        if "ckpt_name" in node.inputs:
            return node
        link = node.inputs.get(_PASSES_MODEL_ON.get(node.node_class.name, ""))
    return None


def size_of(workflow: Workflow, link: Link, folders: Folders) -> Size | None:
    """Of the pictures or latents that come out there; None if nobody can tell."""
    node = workflow.nodes[link.node]
    inputs, name = node.inputs, node.node_class.name
    if any(isinstance(inputs.get(key), Link) for key in ("width", "height", "batch_size", "video_frames", "amount", "scale_by", "length")):
        return None
    if name in _PASSES_SIZE_ON:
        size = size_of(workflow, inputs[_PASSES_SIZE_ON[name]], folders)
        return (*size[:2], min(size[2], inputs["length"])) if size and name == "ImageFromBatch" else size
    match name:
        case "EmptyLatentImage":
            return inputs["width"], inputs["height"], inputs["batch_size"]
        case "SVD_img2vid_Conditioning":
            return inputs["width"], inputs["height"], inputs["video_frames"]
        case "RepeatLatentBatch":
            size = size_of(workflow, inputs["samples"], folders)
            return (*size[:2], size[2] * inputs["amount"]) if size else None
        case "ImageScale":
            size = size_of(workflow, inputs["image"], folders)
            return (inputs["width"] or size[0], inputs["height"] or size[1], size[2]) if size else None
        case "ImageScaleBy":
            size = size_of(workflow, inputs["image"], folders)
            return (round(size[0] * inputs["scale_by"]), round(size[1] * inputs["scale_by"]), size[2]) if size else None
        case "LoadImage":
            return _picture_size(folders, inputs["image"])
    return None


def _picture_size(folders: Folders, name: str) -> Size | None:
    from pipelines.picture import picture_size

    try:
        return (*picture_size(folders.picture(name)), 1)
    except UnreadableFileError:  # the node that reads it will say so
        return None
