"""The benchmark itself runs for minutes on full-size models; that it would see a difference is tested here, on tiny ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.parity import CASES, RECORDED, Tensors, compare, run_motion, run_still, settings_of
from pipelines.memory import choose_placement
from pipelines.models import load_motion, load_still
from pipelines.parameters import MotionSettings, StillSettings, check

CPU = choose_placement("cpu", "sdpa")
STILL = StillSettings(prompt="a boat", width=32, height=48, steps=2, seed=1)
MOTION = MotionSettings(width=48, height=32, frames=3, steps=2, seed=2, augmentation_level=0.1)


@pytest.fixture(scope="module")
def heard(tiny_models: Path) -> Tensors:
    still = run_still(load_still(tiny_models / "checkpoints" / "tiny_still.safetensors", CPU), STILL)
    models = load_motion(tiny_models / "checkpoints" / "tiny_motion.safetensors", CPU)
    return still | run_motion(models, still["8.image"], STILL, MOTION)


@pytest.mark.parametrize("case", CASES)
def test_requests_of_comfyui_are_understood(case: str) -> None:
    still, motion = settings_of(json.loads((RECORDED / f"{case}.json").read_text()))
    check(still)
    check(motion)
    assert (still.prompt[:6], still.sampler in ("euler", "dpmpp_sde_gpu"), motion.guidance) == ("Rocket", True, 2.5)


def test_every_tensor_on_the_way_is_heard_in_comfyuis_shapes(heard: Tensors) -> None:
    shapes = {name: tuple(x.shape) for name, x in heard.items()}
    assert shapes["3.unet1.x"] == (2, 4, 6, 4)
    assert shapes["13.unet1.x"] == (6, 8, 4, 6)
    assert shapes["13.unet1.out"] == (6, 4, 4, 6)
    assert shapes["16.concat_latent"] == (1, 4, 4, 6)
    assert shapes["13.samples"] == (3, 4, 4, 6)
    assert (shapes["8.image"], shapes["14.frames"]) == ((1, 48, 32, 3), (3, 32, 48, 3))


def test_equal_runs_reach_the_goal_and_a_small_difference_is_found_where_it_is(heard: Tensors) -> None:
    assert all(row["reached"] for row in compare(heard, heard))
    other = dict(heard)
    other["16.concat_latent"] = heard["16.concat_latent"] * 1.002
    rows = compare(heard, other)
    assert [row["tensor"] for row in rows if not row["reached"]] == ["16.concat_latent"]
    other["14.frames"] = heard["14.frames"] + 0.002
    assert [row["tensor"] for row in compare(heard, other) if not row["reached"]] == ["16.concat_latent", "14.frames"]


def test_what_has_another_shape_or_was_not_recorded_is_an_error(heard: Tensors) -> None:
    with pytest.raises(ValueError, match=r"8\.image has the shape"):
        compare(heard, heard | {"8.image": torch.zeros(1, 2, 2, 3)})
    with pytest.raises(KeyError):
        compare(heard, {})
