from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.fetch import Record, Wanted, note
from pipelines.model_files import DEMO_MOTION, DEMO_STILL
from tests.pipelines.headers import SVD, VAE, write_header
from workflows.known_models import known_models
from workflows.model_list import ModelList, needs_of
from workflows.templates import find_template


def by(key: str, found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one[key]: one for one in found}


def test_out_of_the_box_every_template_can_be_made(tmp_path: Path) -> None:
    document = ModelList(tmp_path).document()
    assert by("name", document["models"]).keys() == {DEMO_STILL, DEMO_MOTION}
    assert all(one["is_bundled"] for one in document["models"])
    assert not any(one["missing"] for one in document["templates"])
    json.dumps(document)


def test_what_a_model_serves(tmp_path: Path) -> None:
    write_header(tmp_path / "models/checkpoints/sub/svd_xt.safetensors", SVD)
    write_header(tmp_path / "models/vae/soft.safetensors", VAE)
    write_header(tmp_path / "models/checkpoints/broken.safetensors", SVD, cut=1)
    (tmp_path / "models/checkpoints/old.ckpt").write_bytes(b"\x80")
    document = ModelList(tmp_path).document()
    models = by("name", document["models"])
    assert models["sub/svd_xt.safetensors"]["serves"] == ["text_to_film", "still_to_film", "extend_film"]
    assert "text_to_still" in models["soft.safetensors"]["serves"]
    assert (models["broken.safetensors"]["state"], models["broken.safetensors"]["serves"]) == ("damaged", [])
    assert models["old.ckpt"]["state"] == "unknown"
    assert by("id", document["known"])["svd_xt"]["state"] == "complete"


def test_a_template_of_ones_own_says_what_it_lacks(tmp_path: Path) -> None:
    template = {"title": {"en": "Mine"}, "description": {"en": ""}, "groups": [], "workflow": {
        "1": {"class_type": "ImageOnlyCheckpointLoader", "inputs": {"ckpt_name": "svd_xt.safetensors"}},
        "2": {"class_type": "LoraLoader", "inputs": {"lora_name": "waves.safetensors", "model": ["1", 0]}},
    }}  # fmt: skip
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "mine.json").write_text(json.dumps(template))
    write_header(tmp_path / "models/checkpoints/SVD_XT_fp16.safetensors", SVD)
    mine = by("id", ModelList(tmp_path).document()["templates"])["mine"]
    motion, lora = mine["missing"]
    assert (motion["kind"], motion["known"], motion["nearest"]) == ("motion", "svd_xt", "SVD_XT_fp16.safetensors")
    assert motion["path"] == "models/checkpoints/svd_xt.safetensors"
    assert (lora["known"], lora["nearest"], lora["path"]) == (None, None, "models/loras/waves.safetensors")
    assert mine["kinds"] == ["motion", "lora"]


def test_what_is_on_its_way(tmp_path: Path) -> None:
    known = known_models()["svd"]
    note(tmp_path / "models", Record(known.wanted, True, 10, "0" * 64))
    document = ModelList(tmp_path).document(shows_paths=False)
    assert by("name", document["models"])["svd.safetensors"]["state"] == "downloading"
    assert by("id", document["known"])["svd"]["state"] == "downloading"
    assert document["folders"]["loras"] == "models/loras"


def test_needs_of_any_workflow() -> None:
    needs = needs_of(find_template("text_to_film").workflow)
    assert [(one.kind, one.name) for one in needs] == [("still", DEMO_STILL), ("motion", DEMO_MOTION)]
    strange = {
        "1": None,
        "2": {"class_type": "VAELoader"},
        "3": {"class_type": "VAELoader", "inputs": {"vae_name": ["1", 0]}},
        "4": {"class_type": []},
    }
    assert needs_of(strange) == []


def test_known_models_are_what_they_should_be() -> None:
    for one in known_models().values():
        assert one.wanted.checked() == one.wanted
        assert one.about.keys() == {"en", "zh"}
        assert one.kind in ("still", "motion")
    assert (
        Wanted("stabilityai/stable-video-diffusion-img2vid-xt", "svd_xt.safetensors", "checkpoints", "svd_xt.safetensors")
        == known_models()["svd_xt"].wanted
    )
