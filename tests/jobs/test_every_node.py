"""A mistake in any node that there is fails that job, under the node's name, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.job import JobStatus
from jobs.submitting import prepare
from pipelines.shelf import Shelf
from tests.conftest import MOTION_NAME, STILL_NAME
from tests.jobs.test_runner import House, breaking
from workflows.declare import MISSING, Catalog, NodeClass
from workflows.folders import Folders
from workflows.nodes import catalog

SAMPLED = {"steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal"}
MODELS = {"4": ("CheckpointLoaderSimple", {"ckpt_name": STILL_NAME})}
# Every node that needs no file but checkpoints and a picture: id -> (class, inputs).
ALL = MODELS | {
    "2": ("ImageOnlyCheckpointLoader", {"ckpt_name": MOTION_NAME}),
    "clip": ("CLIPSetLastLayer", {"clip": ["4", 1], "stop_at_clip_layer": -1}),
    "text": ("CLIPTextEncode", {"text": "a boat", "clip": ["clip", 0]}),
    "empty": ("EmptyLatentImage", {"width": 32, "height": 32, "batch_size": 1}),
    "more": ("RepeatLatentBatch", {"samples": ["empty", 0], "amount": 1}),
    "still": ("KSampler", SAMPLED | {
        "model": ["4", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["more", 0], "seed": 1, "denoise": 1.0}),
    "decode": ("VAEDecode", {"samples": ["still", 0], "vae": ["4", 2]}),
    "given": ("LoadImage", {"image": "given.png"}),
    "scale": ("ImageScale", {"image": ["given", 0], "upscale_method": "bilinear", "width": 32, "height": 32, "crop": "disabled"}),
    "by": ("ImageScaleBy", {"image": ["scale", 0], "upscale_method": "bilinear", "scale_by": 1.0}),
    "both": ("ImageBatch", {"image1": ["decode", 0], "image2": ["by", 0]}),
    "one": ("ImageFromBatch", {"image": ["both", 0], "batch_index": 0, "length": 1}),
    "encode": ("VAEEncode", {"pixels": ["one", 0], "vae": ["4", 2]}),
    "again": ("KSamplerAdvanced", SAMPLED | {
        "model": ["4", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["encode", 0], "noise_seed": 1,
        "add_noise": "enable", "start_at_step": 0, "end_at_step": 1, "return_with_leftover_noise": "disable"}),
    "tiled": ("VAEDecodeTiled", {"samples": ["again", 0], "vae": ["4", 2], "tile_size": 64, "overlap": 64}),
    "motion": ("SVD_img2vid_Conditioning", {
        "clip_vision": ["2", 1], "init_image": ["tiled", 0], "vae": ["2", 2], "width": 32, "height": 32, "video_frames": 2,
        "motion_bucket_id": 127, "fps": 6, "augmentation_level": 0.0}),
    "linear": ("VideoLinearCFGGuidance", {"model": ["2", 0], "min_cfg": 1.0}),
    "triangle": ("VideoTriangleCFGGuidance", {"model": ["linear", 0], "min_cfg": 1.0}),
    "reuse": ("StillmotionReuse", {"model": ["triangle", 0], "every": 2}),
    "moving": ("KSampler", SAMPLED | {
        "model": ["reuse", 0], "positive": ["motion", 0], "negative": ["motion", 1], "latent_image": ["motion", 2], "seed": 1,
        "denoise": 1.0}),
    "frames": ("VAEDecode", {"samples": ["moving", 0], "vae": ["2", 2]}),
    "film": ("CreateVideo", {"images": ["frames", 0], "fps": 8}),
    "parts": ("GetVideoComponents", {"video": ["film", 0]}),
    "preview": ("PreviewImage", {"images": ["parts", 0]}),
    "png": ("SaveImage", {"images": ["decode", 0]}),
    "webp": ("SaveAnimatedWEBP", {"images": ["parts", 0]}),
    "apng": ("SaveAnimatedPNG", {"images": ["parts", 0]}),
    "mp4": ("VHS_VideoCombine", {"images": ["parts", 0]}),
    "video": ("SaveVideo", {"video": ["film", 0]}),
}  # fmt: skip
# Nodes whose file nobody reads, since they break before: class -> its inputs, and what uses the result.
LOADERS = {
    "VAELoader": ({"vae_name": "any.safetensors"}, {"png": ("SaveImage", {"images": ["8", 0]}), "8": ("VAEDecode", {
        "samples": ["empty", 0], "vae": ["new", 0]}), "empty": ALL["empty"]}),
    "LoraLoader": ({"model": ["4", 0], "clip": ["4", 1], "lora_name": "any.safetensors", "strength_model": 1.0, "strength_clip": 1.0}, {
        "still": (ALL["still"][0], ALL["still"][1] | {"model": ["new", 0], "latent_image": ["empty", 0]}),
        "text": ("CLIPTextEncode", {"text": "a boat", "clip": ["new", 1]}),
        **{name: ALL[name] for name in ("empty", "decode", "png")}}),
    "LoraLoaderModelOnly": ({"model": ["4", 0], "lora_name": "any.safetensors", "strength_model": 1.0}, {
        "still": (ALL["still"][0], ALL["still"][1] | {"model": ["new", 0], "latent_image": ["empty", 0]}),
        "text": ("CLIPTextEncode", {"text": "a boat", "clip": ["4", 1]}),
        **{name: ALL[name] for name in ("empty", "decode", "png")}}),
    "LoadVideo": ({"file": "any.mp4"}, {"video": ("SaveVideo", {"video": ["new", 0]})}),
}  # fmt: skip


@pytest.fixture
def house(data_dir: Path) -> Iterator[House]:
    made = House(data_dir, Shelf(2**30))
    (data_dir / "input").mkdir()
    Image.new("RGB", (32, 32), "red").save(data_dir / "input" / "given.png")
    for name in ("input/any.mp4", "models/vae/any.safetensors", "models/loras/any.safetensors"):
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_bytes(b"nobody reads it")
    yield made
    made.store.close()


def graph(nodes: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """As a workflow; what is not said has its default."""
    classes = catalog()
    return {i: {"class_type": name, "inputs": defaults(classes[name]) | inputs} for i, (name, inputs) in nodes.items()}


def defaults(node: NodeClass) -> dict[str, Any]:
    return {name: one.default for name, one in node.inputs.items() if not (one.is_optional or one.is_extra or one.default is MISSING)}


def check_broken(house: House, workflow: dict[str, Any], node: str) -> None:
    """The job fails in this node if that breaks, and says so as it should."""
    name = workflow[node]["class_type"]
    house.runner.catalog = Catalog(house.catalog.classes | {name: breaking(house.catalog[name], 1)})
    submission, _ = prepare(workflow, house.catalog, Folders(house.data_dir))
    house.store.submit(submission)
    job = house.worker.step()
    assert (job.status, job.error.code, job.error.node) == (JobStatus.FAILED, "internal", node), (node, job.error)
    assert "RuntimeError: broken" in job.log
    assert "broken" not in job.error.message


def test_no_node_is_forgotten() -> None:
    assert {name for name, _ in ALL.values()} | LOADERS.keys() == set(catalog())


def test_a_mistake_in_any_node_fails_its_job_and_no_other(house: House) -> None:
    """In the order in which they run: what came before is known from the job before, so each job does a node's work at most."""
    workflow = graph(ALL)
    _, parsed = prepare(workflow, house.catalog, Folders(house.data_dir))
    seen = set()
    for node in parsed.order():
        if node.node_class.name not in seen:
            seen.add(node.node_class.name)
            check_broken(house, workflow, node.id)
    assert len(seen) + len(LOADERS) == len(set(catalog()))
    house.runner.catalog = house.catalog
    house.store.submit(prepare(workflow, house.catalog, Folders(house.data_dir))[0])
    assert house.worker.step().status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("name", LOADERS)
def test_a_mistake_in_what_reads_a_file(house: House, name: str) -> None:
    inputs, users = LOADERS[name]
    check_broken(house, graph(MODELS | {"new": (name, inputs)} | users), "new")
