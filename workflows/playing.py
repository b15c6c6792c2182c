"""How long the film of a workflow is, told from its nodes: frames, and seconds at the speed at which it plays."""

from __future__ import annotations

from workflows.folders import Folders
from workflows.graph import Link, Node, Workflow
from workflows.workload import size_of

_WRITERS = (("VHS_VideoCombine", "images", "frame_rate"), ("CreateVideo", "images", "fps"), ("SaveAnimatedWEBP", "images", "fps"))


def length(workflow: Workflow, folders: Folders) -> tuple[int | None, float | None]:
    """Of the first film: frames that are made, and seconds that it plays, forwards, backwards and again. None where there is no film, or
    where nobody can tell before."""
    for name, images, speed in _WRITERS:
        for node in workflow.named(name):
            link, fps = node.inputs[images], node.inputs[speed]
            frames = _frames(workflow, link, folders) if isinstance(link, Link) else None
            is_told = frames and isinstance(fps, int | float) and fps > 0
            return frames, round(_played(node, frames) / fps, 3) if is_told else None
    return None, None


def _frames(workflow: Workflow, link: Link, folders: Folders) -> int | None:
    """None too where films are put together: how long the other one is stands in no node."""
    size = None if workflow.named("ImageBatch") else size_of(workflow, link, folders)
    return size[2] if size else None


def _played(node: Node, frames: int) -> int:
    backwards = max(0, frames - 2) if node.inputs.get("pingpong") is True else 0
    times = node.inputs.get("loop_count", 0)
    return (frames + backwards) * (1 + times if isinstance(times, int) else 1)
