from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from errors import Canceled, CheckpointError
from pipelines.memory import Placement, choose_placement
from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL
from pipelines.models import load_motion, load_still
from pipelines.progress import Progress

ROOT = Path(__file__).parents[2]
STILL = "checkpoints/tiny_still.safetensors"


def test_loaded_weights_are_the_files(tiny_models: Path) -> None:
    models, file = load_still(tiny_models / STILL, choose_placement("cpu")), load_file(tiny_models / STILL)
    for part in ("unet", "vae", "text_encoder"):
        weights = getattr(models, part).state_dict()
        assert len(weights) == sum(name.startswith(f"{part}.") for name in file)
        assert all(torch.equal(value, file[f"{part}.{name}"]) for name, value in weights.items())


def test_a_model_for_the_other_stage_is_refused(tiny_models: Path) -> None:
    with pytest.raises(CheckpointError, match="makes a still from a prompt, not a film from a still"):
        load_motion(tiny_models / STILL, choose_placement("cpu"))


def test_a_missing_tensor_is_named(tiny_models: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_models / STILL)
    del tensors["unet.conv_in.weight"]
    save_file(tensors, tmp_path / "x.safetensors", metadata=_metadata(tiny_models / STILL))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of its unet, first 'unet\.conv_in\.weight'"):
        load_still(tmp_path / "x.safetensors", choose_placement("cpu"))


@pytest.mark.parametrize("strange", [torch.zeros(8, 4, 3, 3, dtype=torch.int8), torch.zeros(8, 4, 3, 1)])
def test_a_tensor_of_another_type_or_shape_is_named(tiny_models: Path, tmp_path: Path, strange: torch.Tensor) -> None:
    tensors = load_file(tiny_models / STILL) | {"unet.conv_in.weight": strange}
    save_file(tensors, tmp_path / "x.safetensors", metadata=_metadata(tiny_models / STILL))
    with pytest.raises(CheckpointError, match=r"1 tensors of another type or shape in its unet .* first 'unet\.conv_in\.weight'"):
        load_still(tmp_path / "x.safetensors", choose_placement("cpu"))


def test_loaded_weights_outlive_the_file(tiny_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((tiny_models / STILL).read_bytes())
    models = load_still(path, choose_placement("cpu"))
    before = models.unet.conv_in.weight.clone()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(models.unet.conv_in.weight, before)


def test_a_configuration_that_makes_no_model_is_refused(tiny_models: Path, tmp_path: Path) -> None:
    metadata = _metadata(tiny_models / STILL)
    described = json.loads(metadata["stillmotion"])
    described["components"]["unet"]["down_block_types"] = ["NoSuchBlock", "DownBlock2D"]
    save_file(load_file(tiny_models / STILL), tmp_path / "x.safetensors", metadata={"stillmotion": json.dumps(described)})
    with pytest.raises(CheckpointError, match="describes a unet that cannot be built"):
        load_still(tmp_path / "x.safetensors", choose_placement("cpu"))


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_loading_is_told_by_the_mebibyte_and_can_be_canceled() -> None:
    told: list[Progress] = []
    load_still(BUNDLED / DEMO_STILL, choose_placement("cpu"), told.append)
    mebibytes = (BUNDLED / DEMO_STILL).stat().st_size // 2**20
    assert told[0].step == 0
    assert told[-1] == Progress("loading", told[-1].total, told[-1].total)
    assert mebibytes - 1 <= told[-1].total <= mebibytes
    assert [progress.step for progress in told] == sorted(progress.step for progress in told)
    with pytest.raises(Canceled):
        load_motion(BUNDLED / DEMO_MOTION, choose_placement("cpu"), is_canceled=lambda: len(told) > 0)


def test_weights_are_never_held_twice(tmp_path: Path) -> None:
    """In a process of its own, in whose peak nothing else shows: a file of 64 MB, read in its precision and in twice of it."""
    script = """
import resource, sys, torch
from pathlib import Path
from pipelines.families import read_safetensors_header
from pipelines.weights import read_tensors
path, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
places = {name: (path, info) for name, info in read_safetensors_header(path)[0].items()}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
weights = {name: tensor.to(dtype) for name, tensor in read_tensors(places, lambda count: None)}
print((peak() - before) / sum(w.numel() * w.itemsize for w in weights.values()))
"""
    save_file({f"w{k}": torch.ones(1024, 1024, dtype=torch.float16) for k in range(64)}, tmp_path / "x.safetensors")
    for dtype in ("float16", "float32"):
        command = [sys.executable, "-c", script, str(tmp_path / "x.safetensors"), dtype]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert float(found.stdout) < 1.15


def test_everything_of_a_model_is_on_its_device(tiny_models: Path) -> None:
    """Buffers too, that are in no file: there is no second device here but `meta`, which takes everything."""
    placement = Placement(torch.device("meta"), torch.float32, torch.float32, "sdpa", "")
    loaded = load_still(tiny_models / STILL, placement), load_motion(tiny_models / "checkpoints/tiny_motion.safetensors", placement)
    for model in (value for models in loaded for value in vars(models).values() if isinstance(value, torch.nn.Module)):
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


@pytest.mark.parametrize(
    ("where", "change"),
    [("sampling", {"steps": 0}), ("sampling", {"beta_start": float("nan")}), ("text_encoder", {"pad_token_id": -1}),
     ("text_encoder", {"pad_token_id": 10**9})],
)  # fmt: skip
def test_metadata_that_would_fail_later_is_refused_first(tiny_models: Path, tmp_path: Path, where: str, change: dict) -> None:
    described = json.loads(_metadata(tiny_models / STILL)["stillmotion"])
    (described["sampling"] if where == "sampling" else described["components"][where]).update(change)
    save_file(load_file(tiny_models / STILL), tmp_path / "x.safetensors", metadata={"stillmotion": json.dumps(described)})
    with pytest.raises(CheckpointError, match=r"x\.safetensors is of an unknown family"):
        load_still(tmp_path / "x.safetensors", choose_placement("cpu"))
