from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from errors import CheckpointError, UnknownNameError
from pipelines.checkpoints import read_header
from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL, find_checkpoint, list_checkpoints, look_ahead

STILL = "checkpoints/tiny_still.safetensors"


def test_looking_ahead_reads_files_and_folders_through_and_forgives_what_is_not_there(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "folder" / "unet").mkdir(parents=True)
    names = ("a.safetensors", "folder/unet/b.safetensors", "folder/unet/c.txt")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    opened, plainly = [], Path.open

    def open(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(plainly(path, *arguments, **options))
        return opened[-1]

    monkeypatch.setattr(Path, "open", open)
    look_ahead([tmp_path / "a.safetensors", tmp_path / "gone.safetensors", tmp_path / "folder"])
    assert [Path(file.name).name for file in opened] == ["a.safetensors", "b.safetensors"]
    assert all(file.closed for file in opened)


def test_own_files_come_first_in_sub_folders_too_and_the_demo_last(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "anime").mkdir(parents=True)
    for name in ("b.safetensors", "anime/a.safetensors", "notes.txt"):
        (tmp_path / "checkpoints" / name).write_bytes(b"")
    assert list(list_checkpoints(tmp_path)) == ["anime/a.safetensors", "b.safetensors", DEMO_STILL, DEMO_MOTION]


def test_linked_folders_are_looked_into(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.safetensors").write_bytes(b"")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "link").symlink_to(tmp_path / "elsewhere")
    assert "link/a.safetensors" in list_checkpoints(tmp_path)


def test_links_that_lead_back_up_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a.safetensors").write_bytes(b"")
    for name in ("loop", "again"):
        (tmp_path / "checkpoints" / name).symlink_to(tmp_path / "checkpoints")
    assert next(iter(list_checkpoints(tmp_path))) == "a.safetensors"
    assert len(list_checkpoints(tmp_path)) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"kind": ["still"]},
        {"components": ["unet"]},
        {"components": {"unet": "CompVis/stable-diffusion-v1-4", "vae": {}, "text_encoder": {}}},
        {"sampling": None},
        {"sampling": {"prediction": "v"}},
        {"sampling": {"prediction_type": "flow"}},
        {"components": {"unet": {}, "vae": {"scaling_factor": 0.13}, "text_encoder": {}}},
        {"components": {"unet": {"addition_embed_type": "text_time"}, "vae": {}, "text_encoder": {}}},
        {"components": {"unet": {}, "vae": {}, "text_encoder": {}, "text_encoder_2": {}}},
    ],
)
def test_a_description_that_is_wrong_is_refused_before_anything_is_built(tmp_path: Path, change: dict) -> None:
    described = {"kind": "still", "name": "x", "sampling": {}, "components": {"unet": {}, "vae": {}, "text_encoder": {}}} | change
    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors", metadata={"stillmotion": json.dumps(described)})
    with pytest.raises(CheckpointError, match=r"x\.safetensors is of an unknown"):
        read_header(tmp_path / "x.safetensors", "still")


def test_a_wrong_name_is_answered_with_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'stillmotion_demo_still\.safetensors'.*stillmotion_demo_motion"):
        find_checkpoint("stillmotion_demo_stil.safetensors", tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd"])
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(b"")
    with pytest.raises(UnknownNameError):
        find_checkpoint(name, tmp_path)


def test_pickles_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"can run code.*\.safetensors"):
        find_checkpoint("model.ckpt", tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as safetensors"),
        (b"not a model at all", "cannot be read as safetensors"),
        (struct.pack("<Q", 2**62) + b"{}", "cannot be read as safetensors"),
        (b"\x80\x04" + b"pickle" * 50, "cannot be read as safetensors"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"x\.safetensors {says}"):
        read_header(path, "still")


def test_a_truncated_file_is_refused(tiny_models: Path, tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.safetensors", (tiny_models / STILL).read_bytes()
    path.write_bytes(whole[: len(whole) - 100])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors cannot be read"):
        read_header(path, "still")


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="unknown family"):
        read_header(tmp_path / "lora.safetensors", "still")


@pytest.mark.parametrize(
    "described",
    [
        *("[]", "{}", "3", "{", '{"kind": [], "name": "", "sampling": {}, "components": {}}'),
        '{"kind": "cat", "name": "", "sampling": {}, "components": {}}',
        '{"kind": "still", "name": "", "sampling": {}, "components": []}',
        pytest.param("[" * 100_000, id="nested deep"),
    ],
)
def test_nonsense_in_the_metadata_is_refused(tmp_path: Path, described: str) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors", metadata={"stillmotion": described})
    with pytest.raises(CheckpointError, match=r"x\.safetensors is of"):
        read_header(tmp_path / "x.safetensors", "still")


def test_the_bundled_demo_checkpoints_are_small_and_of_their_kinds() -> None:
    assert read_header(BUNDLED / DEMO_STILL, "still").components["unet"]["cross_attention_dim"] == 64
    assert read_header(BUNDLED / DEMO_MOTION, "motion").sampling == {"sigma_min": 0.002, "sigma_max": 700.0}
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 60e6
