from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import model_facts
from pipelines.model_facts import KnownFacts, facts_of
from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL
from tests.pipelines.headers import LORA, SD1, SVD, VAE, write_header


@pytest.mark.parametrize(
    ("shapes", "folder", "kind", "family", "title"),
    [
        (SD1, "checkpoints", "still", "sd1", "Stable Diffusion 1"),
        (SVD, "checkpoints", "motion", "svd", "Stable Video Diffusion"),
        (VAE, "vae", "vae", "", "VAE"),
        (LORA, "loras", "lora", "sd1", "LoRA for Stable Diffusion 1"),
    ],
)
def test_what_a_file_is(tmp_path: Path, shapes: dict, folder: str, kind: str, family: str, title: str) -> None:
    path = write_header(tmp_path / "a.safetensors", shapes)
    facts = facts_of(path, folder)
    assert (facts.state, facts.kind, facts.family, facts.title) == ("complete", kind, family, title)
    assert facts.bytes == path.stat().st_size
    assert facts_of(write_header(path, shapes, cut=1), folder).state == "damaged"


def test_the_demo_checkpoints() -> None:
    found = [facts_of(BUNDLED / name, "checkpoints") for name in (DEMO_STILL, DEMO_MOTION)]
    assert [(one.kind, one.family, one.state) for one in found] == [
        ("still", "stillmotion", "complete"),
        ("motion", "stillmotion", "complete"),
    ]


def test_what_is_sound_and_yet_not_used_here(tmp_path: Path) -> None:
    lora = facts_of(write_header(tmp_path / "a.safetensors", LORA), "checkpoints")
    assert (lora.state, lora.kind) == ("unknown", "")
    assert "is a LoRA, not a checkpoint" in lora.problem
    assert "models/loras" in lora.hint
    assert (
        "without its VAE"
        in facts_of(write_header(tmp_path / "b.safetensors", {k: v for k, v in SD1.items() if "first" not in k}), "checkpoints").problem
    )
    (tmp_path / "c.ckpt").write_bytes(b"\x80")
    assert "pickle" in facts_of(tmp_path / "c.ckpt", "checkpoints").problem


@pytest.mark.parametrize(
    ("described", "state"),
    [
        ({"kind": "still", "name": "x", "components": {"unet": {}, "vae": {}}}, "damaged"),
        ({"kind": "other", "name": "x", "components": {}}, "unknown"),
        ({"kind": "still"}, "unknown"),
        ([], "unknown"),
    ],
)
def test_files_that_describe_themselves_wrongly(tmp_path: Path, described: object, state: str) -> None:
    path = write_header(tmp_path / "a.safetensors", {"unet.x": (1,)}, {"stillmotion": json.dumps(described)})
    assert facts_of(path, "checkpoints").state == state


def test_a_folder_of_diffusers_that_lacks_a_part(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    facts = facts_of(tmp_path, "checkpoints")
    assert (facts.state, "missing" in facts.problem) == ("damaged", True)


def test_a_header_is_read_once_and_again_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(model_facts, "facts_of", lambda path, folder: read.append(path) or facts_of(path, folder))
    path, known = write_header(tmp_path / "a.safetensors", SD1), KnownFacts()
    assert known.of(path, "checkpoints") == known.of(path, "checkpoints")
    assert len(read) == 1
    os.utime(path, ns=(1, 1))
    known.of(path, "checkpoints")
    assert len(read) == 2
    path.unlink()
    assert known.of(path, "checkpoints").state == "damaged"
    known.keep_only(set())
    assert known._known == {}


def test_nothing_of_it_needs_pytorch() -> None:
    code = "import sys, workflows.model_list; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
