from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.parameters import FileSettings, MotionSettings, StillSettings
from workflows.comfy_graph import film_graph

VENDORS = Path(__file__).parent.parent / "data" / "comfyui" / "two_stage.json"


def test_the_vendors_workflow_comes_out_input_for_input() -> None:
    """Its settings, said in our words, give its graph."""
    vendors = json.loads(VENDORS.read_text())
    still = StillSettings(
        prompt="Rocket takes off from the ground, fire, sky, airplane", checkpoint="LandscapeBING_v10.safetensors", width=720, height=1280,
        steps=40, guidance=7, sampler="dpmpp_sde_gpu", schedule="karras", seed=367490676387803,
    )  # fmt: skip
    motion = MotionSettings(
        checkpoint="svd_xt_image_decoder.safetensors", width=512, height=768, frames=35, motion_bucket_id=140, fps=15,
        augmentation_level=0.15, steps=40, guidance=2.5, min_guidance=1, sampler="euler_ancestral", seed=510424455529432,
    )  # fmt: skip
    ours = film_graph(still, motion, FileSettings(prefix="ComfyUI", frame_rate=10))
    assert ours.keys() == vendors.keys()
    for node_id, node in vendors.items():
        assert ours[node_id]["class_type"] == node["class_type"]
        expected = {name: value for name, value in node["inputs"].items() if name != "filename_prefix"}
        assert {name: value for name, value in ours[node_id]["inputs"].items() if name != "filename_prefix"} == expected


def test_another_vae_is_loaded_by_a_node_of_its_own() -> None:
    graph = film_graph(StillSettings(prompt="x", vae="anime/soft.safetensors"), MotionSettings(), FileSettings())
    assert graph["10"]["class_type"] == "VAELoader"
    assert graph["10"]["inputs"] == {"vae_name": "anime/soft.safetensors"}
    assert graph["8"]["inputs"]["vae"] == ["10", 0]
    assert graph["14"]["inputs"]["vae"] == ["18", 2]


def test_loras_are_a_chain_of_nodes_between_the_checkpoint_and_all_that_use_it() -> None:
    graph = film_graph(StillSettings(prompt="x", loras="anime/soft, sharp.safetensors:-0.6"), MotionSettings(), FileSettings())
    assert {node["class_type"] for node in (graph["20"], graph["21"])} == {"LoraLoader"}
    assert graph["20"]["inputs"] == {
        "lora_name": "anime/soft.safetensors", "strength_model": 1.0, "strength_clip": 1.0, "model": ["4", 0], "clip": ["4", 1],
    }  # fmt: skip
    assert graph["21"]["inputs"] == {
        "lora_name": "sharp.safetensors", "strength_model": -0.6, "strength_clip": -0.6, "model": ["20", 0], "clip": ["20", 1],
    }  # fmt: skip
    assert graph["3"]["inputs"]["model"] == ["21", 0]
    assert graph["6"]["inputs"]["clip"] == graph["7"]["inputs"]["clip"] == ["21", 1]
    assert graph["17"]["inputs"]["model"] == ["18", 0]


@pytest.mark.parametrize("source", ["cat.png", StillSettings(prompt="x"), StillSettings(prompt="x", vae="v", loras="a,b")])
def test_every_link_leads_to_a_node(source: str | StillSettings) -> None:
    graph = film_graph(source, MotionSettings(guidance_shape="triangle"), FileSettings())
    links = [value for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert links
    assert all(node_id in graph for node_id, _ in links)
    assert graph["17"]["class_type"] == "VideoTriangleCFGGuidance"
