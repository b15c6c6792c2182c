from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines import doctor
from pipelines.doctor import Finding, examine
from pipelines.model_files import DEMO_MOTION, DEMO_STILL
from tests.conftest import TINY_VAE

STILL = "checkpoints/tiny_still.safetensors"


@pytest.fixture
def data_dir(tiny_models: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_models, tmp_path / "models")
    return tmp_path


def by_subject(data_dir: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(data_dir)}


def test_here_all_is_well(data_dir: Path) -> None:
    found = by_subject(data_dir)
    assert [finding for finding in found.values() if finding.level == "bad"] == []
    assert {"Python", "torch", "CUDA", "device", "ffmpeg", "data", "disk", DEMO_STILL, DEMO_MOTION} <= found.keys()
    assert "complete; makes stills from prompts" in found["tiny_still.safetensors"].found


def test_every_unusable_file_is_named_with_what_to_do(data_dir: Path) -> None:
    whole = (data_dir / "models" / STILL).read_bytes()
    folder = data_dir / "models" / "checkpoints"
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    (folder / "old.ckpt").write_bytes(b"\x80\x02")
    found = by_subject(data_dir)
    for name, says in (("cut.safetensors", "truncated"), ("old.ckpt", "pickle")):
        assert found[name].level == "bad"
        assert says in found[name].found
        assert found[name].advice


def test_vaes_and_loras_are_looked_over_too(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data_dir / "sd1.json").write_text(json.dumps({"components": {"vae": TINY_VAE}}))
    monkeypatch.setattr("pipelines.families.CONFIGS", data_dir)
    file = load_file(data_dir / "models" / STILL)
    (data_dir / "models" / "vae").mkdir(exist_ok=True)  # the models may be shared
    (data_dir / "models" / "loras").mkdir(exist_ok=True)
    vae = {name.removeprefix("vae."): x for name, x in file.items() if name.startswith("vae.")}
    save_file(vae, data_dir / "models" / "vae" / "good.safetensors")
    vae.pop("encoder.conv_in.bias")
    save_file(vae, data_dir / "models" / "vae" / "half.safetensors")
    names = [f"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_{side}.weight" for side in "AB"]
    save_file({names[0]: torch.zeros(1, 768), names[1]: torch.zeros(16, 1)}, data_dir / "models" / "loras" / "good.safetensors")
    save_file({names[0]: torch.zeros(1, 768)}, data_dir / "models" / "loras" / "half.safetensors")
    (data_dir / "models" / "loras" / "old.pt").write_bytes(b"\x80\x02")
    found = by_subject(data_dir)
    assert found["vae/good.safetensors"] == Finding("vae/good.safetensors", "ok", "VAE for stills, 0 MiB, complete")
    assert (found["vae/half.safetensors"].level, "lacks 1 tensors" in found["vae/half.safetensors"].found) == ("bad", True)
    lora = found["loras/good.safetensors"]
    assert lora.level == "ok"
    assert lora.found.startswith("LoRA for Stable Diffusion 1, 0 MiB, changes 1 layer; whether it fits")
    assert (found["loras/half.safetensors"].level, "half of a change" in found["loras/half.safetensors"].found) == ("bad", True)
    assert found["loras/old.pt"].level == "bad"


def test_a_data_directory_that_cannot_be_is_bad_and_a_missing_one_is_fine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert by_subject(tmp_path / "file")["data"].level == "bad"
    assert by_subject(tmp_path / "file" / "below")["data"].level == "bad"
    later = by_subject(tmp_path / "new" / "place")["data"]
    assert (later.level, (tmp_path / "new").exists()) == ("ok", False)
    assert "will be made" in later.found


def test_a_missing_library_ends_the_examination_with_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-library"))
    found = by_subject(tmp_path)
    assert found["no-such-library"] == Finding("no-such-library", "bad", "not installed", "Run: pip install -r requirements.txt")
    assert "ffmpeg" not in found


def test_without_any_checkpoint_it_says_which_stage_lacks_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.model_files.BUNDLED", tmp_path / "nothing")
    found = by_subject(tmp_path)
    assert {kind for kind in ("still", "motion") if found[kind].level == "bad"} == {"still", "motion"}


def test_an_ffmpeg_that_cannot_run_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(tmp_path / "none"))
    assert by_subject(tmp_path)["ffmpeg"].level == "bad"
