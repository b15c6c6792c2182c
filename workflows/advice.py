"""What is allowed and yet seldom meant: said, never refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from workflows.folders import Folders
from workflows.graph import Link, Workflow
from workflows.workload import Work, workload

MOST_FRAMES = 25  # of the longest films that Stable Video Diffusion was trained on
DRIFTS_FROM = 0.1  # augmentation level
_DEMO = "stillmotion_demo_"
_USUAL_PIXELS = {"still": (256 * 256, 1536 * 1536), "motion": (256 * 256, 1024 * 1024)}
_NODE = re.compile(r"^Node \S+: (.)")
_FROM = re.compile(r" \[(input|output|temp)\]$")  # the folder, beside the name of a file
_IGNORED = {"VHS_VideoCombine": ("audio", "meta_batch", "vae"), "CreateVideo": ("audio",)}


def advice(workflow: Workflow, folders: Folders) -> list[str]:
    """A line each, with the node that is meant."""
    return [f"Node {i}: {text}" for i, text in (*_of_motion(workflow), *_of_sizes(workload(workflow, folders)), *_of_ignored(workflow))]


def for_people(lines: Iterable[str], *, is_form: bool) -> list[str]:
    """Without the nodes, for those who filled in a form and never saw one."""
    return [_NODE.sub(lambda found: found[1].upper(), line, count=1) if is_form else line for line in lines]


def _of_motion(workflow: Workflow) -> Iterator[tuple[str, str]]:
    played = {speed for node in workflow.nodes.values() for name in ("frame_rate", "fps") if (speed := _speed(node, name))}
    for node in workflow.named("SVD_img2vid_Conditioning"):
        frames, level, fps = (node.inputs[name] for name in ("video_frames", "augmentation_level", "fps"))
        if isinstance(frames, int) and frames > MOST_FRAMES:
            yield (
                node.id,
                f"{frames} frames are more than the {MOST_FRAMES} that such models learnt; the film may repeat or dissolve.",
            )
        if isinstance(level, float) and level > DRIFTS_FROM:
            yield node.id, f"an augmentation level of {level:g} lets the film drift away from the still; up to {DRIFTS_FROM:g} is usual."
        if isinstance(fps, int):
            for speed in sorted(played):
                if not 0.6 <= speed / fps <= 1.7:
                    yield (
                        node.id,
                        f"the motion is made for {fps} frames a second and played at {speed:g}: too fast or too slow.",
                    )


def _speed(node: object, name: str) -> float | None:
    """How fast a node that writes plays its frames."""
    value = node.inputs.get(name) if node.node_class.is_output or node.node_class.name == "CreateVideo" else None
    return float(value) if isinstance(value, (int, float)) else None


def _of_sizes(work: list[Work]) -> Iterator[tuple[str, str]]:
    uneven = {(one.width, one.height): one.node for one in reversed(work) if one.width % 8 or one.height % 8}  # each size once
    for (width, height), i in reversed(uneven.items()):
        yield i, f"{width}x{height} pixels become {width // 8 * 8}x{height // 8 * 8}: both sides are multiples of 8."
    for one in work:
        low, high = _USUAL_PIXELS[one.kind]
        if one.width and not one.checkpoint.startswith(_DEMO) and not low <= one.width * one.height <= high:
            yield one.node, f"{one.width}x{one.height} pixels is far from what such models were trained for; expect odd pictures."


def _of_ignored(workflow: Workflow) -> Iterator[tuple[str, str]]:
    for node in workflow.named(*_IGNORED):
        given = workflow.graph[node.id].get("inputs", {})
        for name in _IGNORED[node.node_class.name]:
            if isinstance(given.get(name), list):
                yield node.id, f"{name} is not supported and left out; films are silent."


def unknown(name: str) -> str:
    """A `known` of who knows no titles."""
    return ""


def title_of(workflow: Workflow, known: Callable[[str], str] = unknown) -> str:
    """What a person would call it: the prompt of the first sampler, else any other, else the title or the name of a picture or film.
    `known` gives the title of one that is written as "name [output]", or ""."""
    for node in workflow.nodes.values():
        link = node.inputs.get("positive")
        while isinstance(link, Link):
            source = workflow.nodes[link.node]
            if words := _words(source.inputs.get("text")):
                return words
            link = source.inputs.get("positive")
    told = [words for node in workflow.named("CLIPTextEncode") if (words := _words(node.inputs.get("text")))]
    names = [node.inputs.get(name) for node in workflow.named("LoadImage", "LoadVideo") for name in ("image", "file")]
    return next(iter(told), "") or next((known(name) or _FROM.sub("", _words(name)) for name in names if isinstance(name, str)), "")


def _words(text: object) -> str:
    """In one line, not too long."""
    return " ".join(text.split())[:200].encode("utf-8", "replace").decode() if isinstance(text, str) else ""
