from __future__ import annotations

import dataclasses
import errno
import gc
import io
import pkgutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import save_file

from errors import Canceled, CheckpointError, InputError, MemoryExhaustedError, StorageError, UnknownNameError
from pipelines import filenames, models
from pipelines.memory import choose_placement
from pipelines.metadata import read_settings, settings_in
from pipelines.models import StillModels, load_still
from pipelines.parameters import FileSettings, MachineSettings, MotionSettings, StillSettings
from pipelines.pieces import Relief
from pipelines.progress import Progress
from pipelines.shelf import Shelf
from workflows.film import Film, make_film
from workflows.run import StageClock

CPU = MachineSettings(device="cpu")
TINY = {"checkpoint": "tiny_still.safetensors", "width": 64, "height": 48, "steps": 2}
FILM = Film(
    StillSettings(prompt="a red boat", seed=2**63 + 1, **TINY),
    MotionSettings(**TINY | {"checkpoint": "tiny_motion.safetensors"}, frames=4, seed=7),
    FileSettings(prefix="boat"),
)

EXACT = dataclasses.replace(FILM, file=dataclasses.replace(FILM.file, webp_lossless=True))


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    """With the models of the tests before."""
    return Shelf(2**30)


@pytest.fixture(scope="module")
def another(tiny_models: Path) -> StillModels:
    """A model of another film: something that can be freed."""
    return load_still(tiny_models / "checkpoints" / TINY["checkpoint"], choose_placement("cpu"))


@pytest.fixture(scope="module")
def usual(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What comes out when nothing goes wrong, by kind."""
    data_dir = tmp_path_factory.mktemp("usual")
    (data_dir / "models").symlink_to(tiny_models)
    result = make_film(EXACT, data_dir, CPU)
    return {kind: Path(result.files[kind]).read_bytes() for kind in ("png", "webp", "mp4")}


def pixels(webp: bytes) -> np.ndarray:
    """(frames, height, width, 3), in whole numbers that can be subtracted."""
    with Image.open(io.BytesIO(webp)) as film:
        return np.stack([np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(film)])


def output(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "output").rglob("*") if path.is_file())


def test_a_film_is_five_files_numbered_as_comfyui_does(data_dir: Path, shelf: Shelf) -> None:
    result = make_film(FILM, data_dir, CPU, shelf=shelf)
    assert output(data_dir) == ["boat_00001_.png", "boat_00002_.webp", "boat_00003.mp4", "boat_00003.mp4.json", "boat_00003.png"]
    assert {Path(path).name for path in result.files.values()} == set(output(data_dir))
    assert result.seeds == {"still": 2**63 + 1, "motion": 7}
    assert set(result.seconds) == {"loading", "still", "motion", "decoding", "encoding"}
    assert result.document()["device"] == "cpu"


def test_every_file_carries_every_setting_and_the_workflow(data_dir: Path, shelf: Shelf) -> None:
    result = make_film(FILM, data_dir, CPU, shelf=shelf)
    for path in result.files.values():
        settings = read_settings(Path(path))
        assert settings["stillmotion"]["still"] == dataclasses.asdict(FILM.still)
        assert settings["stillmotion"]["motion"] == dataclasses.asdict(FILM.motion)
        assert settings["stillmotion"]["file"] == dataclasses.asdict(FILM.file)
        assert settings["prompt"]["3"]["inputs"]["seed"] == 2**63 + 1


def test_loras_change_the_still_and_are_kept_in_the_files(data_dir: Path, tmp_path: Path) -> None:
    models = tmp_path / "mine" / "models"
    (models / "loras" / "anime").mkdir(parents=True)
    (models / "checkpoints").symlink_to(data_dir / "models" / "checkpoints")
    up, down = torch.ones(8, 1, 1, 1), torch.eye(3).expand(1, 4, 3, 3)
    lora = {"lora_unet_conv_in.lora_up.weight": up, "lora_unet_conv_in.lora_down.weight": down}
    save_file({name: x.contiguous() for name, x in lora.items()}, models / "loras" / "anime" / "soft.safetensors")
    films = {strength: dataclasses.replace(FILM.still, loras=f"anime/soft:{strength}") for strength in ("0.0", "2.5")}
    shelf = Shelf(2**30)  # what was loaded with one strength does not serve another
    made = {
        strength: make_film(dataclasses.replace(FILM, still=still), models.parent, CPU, shelf=shelf) for strength, still in films.items()
    }
    plain = make_film(FILM, data_dir, CPU)
    pixels = {name: np.asarray(Image.open(result.files["png"])) for name, result in (made | {"": plain}).items()}
    assert np.array_equal(pixels["0.0"], pixels[""])
    assert not np.array_equal(pixels["2.5"], pixels[""])
    kept = read_settings(Path(made["2.5"].files["mp4"]))
    assert kept["stillmotion"]["still"]["loras"] == "anime/soft:2.5"
    assert kept["prompt"]["20"]["inputs"]["lora_name"] == "anime/soft.safetensors"


def test_the_privacy_switch_leaves_nothing_in_the_files(data_dir: Path, shelf: Shelf) -> None:
    film = dataclasses.replace(FILM, file=dataclasses.replace(FILM.file, metadata=False))
    result = make_film(film, data_dir, CPU, shelf=shelf)
    assert set(result.files) == {"png", "webp", "mp4", "poster"}
    for path in result.files.values():
        assert settings_in(Path(path)) == {}
        assert b"red boat" not in Path(path).read_bytes()


def test_what_the_settings_say_can_be_made_again(data_dir: Path, shelf: Shelf) -> None:
    first = make_film(FILM, data_dir, CPU, shelf=shelf)
    settings = read_settings(Path(first.files["mp4"]))["stillmotion"]
    again = Film(StillSettings(**settings["still"]), MotionSettings(**settings["motion"]), FileSettings(**settings["file"]))
    second = make_film(again, data_dir, CPU, shelf=shelf)
    for kind in ("png", "webp", "mp4"):
        assert Path(first.files[kind]).read_bytes() == Path(second.files[kind]).read_bytes()


def test_a_picture_skips_stage_one(data_dir: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    told: list[Progress] = []
    result = make_film(dataclasses.replace(FILM, image=tmp_path / "mine.png"), data_dir, CPU, report=told.append)
    assert {progress.stage for progress in told} == {"loading", "motion", "decoding", "encoding"}
    assert read_settings(Path(result.files["mp4"]))["prompt"]["8"]["inputs"] == {"image": "mine.png"}
    assert (data_dir / "input" / "mine.png").read_bytes() == (tmp_path / "mine.png").read_bytes()
    assert "png" not in result.files


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"still": dataclasses.replace(FILM.still, steps=0)}, InputError),
        ({"motion": dataclasses.replace(FILM.motion, sampler="x")}, UnknownNameError),
        ({"motion": dataclasses.replace(FILM.motion, checkpoint="tiny_still.safetensors")}, CheckpointError),
        ({"still": dataclasses.replace(FILM.still, checkpoint="tiny_motion.safetensors")}, CheckpointError),
        ({"still": dataclasses.replace(FILM.still, vae="none.safetensors")}, UnknownNameError),
        ({"still": dataclasses.replace(FILM.still, loras="none")}, UnknownNameError),
        ({"still": dataclasses.replace(FILM.still, loras="none:x")}, InputError),
        ({"file": dataclasses.replace(FILM.file, prefix="../x")}, InputError),
        ({"motion": dataclasses.replace(FILM.motion, width=16376, height=16376, frames=4096)}, StorageError),
    ],
)
def test_everything_is_checked_before_any_work_starts(data_dir: Path, change: dict, error: type[Exception]) -> None:
    told: list[Progress] = []
    with pytest.raises(error):
        make_film(dataclasses.replace(FILM, **change), data_dir, CPU, report=told.append)
    assert not told
    assert not (data_dir / "output").exists() or not output(data_dir)


@pytest.mark.parametrize("stage", ["loading", "still", "motion", "decoding", "encoding"])
@pytest.mark.parametrize("step", [0, 1])
def test_cancel_in_any_stage_leaves_no_file(data_dir: Path, shelf: Shelf, stage: str, step: int) -> None:
    told: list[Progress] = []
    known = Shelf() if stage == "loading" else shelf

    def is_canceled() -> bool:
        return any(one.stage == stage and one.step >= step for one in told)

    with pytest.raises(Canceled):
        make_film(FILM, data_dir, CPU, report=told.append, is_canceled=is_canceled, shelf=known)
    assert told[-1].stage == stage
    assert output(data_dir) == []


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_disk_that_fills_while_writing_leaves_no_file(
    data_dir: Path, shelf: Shelf, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PNG, WEBP, MP4 and sidecar are each published by a link; the disk fills at one of them."""
    links, link = [], filenames.os.link

    def full(*args: object) -> None:
        links.append(args)
        if len(links) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        link(*args)

    monkeypatch.setattr(filenames.os, "link", full)
    with pytest.raises(StorageError, match=r"is full\. Free some space"):
        make_film(FILM, data_dir, CPU, shelf=shelf)
    assert output(data_dir) == []


def test_a_full_disk_is_said_before_the_work(data_dir: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = filenames.shutil.disk_usage(data_dir)
    monkeypatch.setattr(filenames.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    told: list[Progress] = []
    with pytest.raises(StorageError, match=r"has 1 MiB left, but this film may need \d+"):
        make_film(FILM, data_dir, CPU, shelf=shelf, report=told.append)
    assert not told
    assert output(data_dir) == []


def test_the_clock_gives_every_second_to_the_stage_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 3.0, 10.0, 10.0, 12.5])
    monkeypatch.setattr("workflows.run.time.monotonic", lambda: next(times))
    told: list[Progress] = []
    clock = StageClock(told.append)  # 0
    clock(Progress("loading", 0, 2))  # 1
    clock(Progress("still", 0, 1))  # 3
    clock(Progress("still", 1, 1))
    clock(Progress("loading", 1, 2))  # 10
    clock.stop()  # 10
    clock(Progress("motion", 0, 1))  # 12.5
    assert clock.seconds == {"loading": 2.0, "still": 7.0}
    assert len(told) == 5


# Where each phase calls PyTorch; the n-th call fails.
PHASES = {
    "loading the still": ("pipelines.weights._read", 1),
    "loading the motion": ("pipelines.weights._read", 150),
    "the prompt": ("transformers.CLIPTextModel.forward", 1),
    "sampling the still": ("diffusers.UNet2DConditionModel.forward", 2),
    "decoding the still": ("diffusers.AutoencoderKL.decode", 1),
    "seeing the still": ("transformers.CLIPVisionModelWithProjection.forward", 1),
    "encoding the still": ("diffusers.AutoencoderKL.encode", 1),
    "sampling the motion": ("diffusers.UNetSpatioTemporalConditionModel.forward", 2),
    "decoding the motion": ("diffusers.AutoencoderKL.decode", 3),
    "writing the files": ("pipelines.encode.save_webp", 1),
}


class Failing:
    """In the place of a function: memory runs out at its `at`-th call and, with `for_ever`, at each after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: str, *, for_ever: bool) -> None:
        place, self.at = PHASES[phase]
        self.real, self.for_ever, self.calls = pkgutil.resolve_name(place), for_ever, 0
        failing = self

        def call(*args: object, **options: object) -> object:
            failing.calls += 1
            if failing.calls == failing.at or (failing.for_ever and failing.calls > failing.at):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
            return failing.real(*args, **options)

        monkeypatch.setattr(place, call)


@pytest.mark.parametrize("phase", PHASES)
def test_memory_that_runs_out_once_costs_a_note_and_no_film(
    data_dir: Path, usual: dict[str, bytes], another: StillModels, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(2**30)
    shelf.take("another", lambda: another)
    failing = Failing(monkeypatch, phase, for_ever=False)
    result = make_film(EXACT, data_dir, CPU, shelf=shelf)
    assert failing.calls > failing.at
    assert len(result.notes) == 1
    assert result.notes[0].startswith("Memory ran out while")
    assert {kind: Path(result.files[kind]).read_bytes() for kind in usual} == usual  # what could be freed was enough: not a bit differs


@pytest.mark.parametrize("phase", PHASES)
def test_memory_that_stays_out_ends_with_what_would_fit_and_leaves_nothing(
    data_dir: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(monkeypatch, phase, for_ever=True)
    shelf, built, build = Shelf(0), [], models.build

    def recorded(*args: object) -> torch.nn.Module:
        model = build(*args)
        built.append(weakref.ref(model))
        return model

    monkeypatch.setattr(models, "build", recorded)
    with pytest.raises(MemoryExhaustedError, match=r"Memory ran out while .* smallest pieces\. (Use|What should fit)") as caught:
        make_film(FILM, data_dir, CPU, shelf=shelf)
    said = str(caught.value)
    del caught  # an error's traceback holds every frame that it passed
    assert ("smaller checkpoints" in said) == phase.startswith("loading")
    assert ("should fit: a still of" in said) == (phase in ("the prompt", "sampling the still", "decoding the still"))
    monkeypatch.undo()
    gc.collect()
    shelf.drop_others()
    assert built
    assert all(reference() is None for reference in built)
    assert output(data_dir) == []
    if phase == "decoding the motion":  # once is enough: of every phase nothing is left that the next film could meet
        assert make_film(FILM, data_dir, CPU, shelf=shelf).notes == []


def test_sampling_goes_on_one_pass_at_a_time_from_where_it_was(
    data_dir: Path, usual: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, "sampling the motion", for_ever=False)
    result = make_film(EXACT, data_dir, CPU, shelf=Shelf(0))
    assert failing.calls == 1 + 1 + 2  # one step, the failed try, then the second step pass after pass
    assert result.notes == ["Memory ran out while the motion was made; it went on with one pass of the model at a time."]
    assert np.abs(pixels(usual["webp"]) - pixels(Path(result.files["webp"]).read_bytes())).max() <= 1


def test_models_stay_for_the_next_film_while_the_budget_allows(data_dir: Path) -> None:
    shelf, told = Shelf(2**30), []
    first = make_film(FILM, data_dir, CPU, shelf=shelf)
    second = make_film(FILM, data_dir, CPU, shelf=shelf, report=told.append)
    assert "loading" not in {progress.stage for progress in told}
    for kind in ("png", "webp", "mp4"):
        assert Path(first.files[kind]).read_bytes() == Path(second.files[kind]).read_bytes()


@pytest.mark.parametrize("vram", ["high", "medium", "low"])
def test_every_memory_level_makes_the_same_film(data_dir: Path, usual: dict[str, bytes], vram: str) -> None:
    result = make_film(EXACT, data_dir, dataclasses.replace(CPU, vram=vram))
    assert "as asked" in result.document()["memory"]
    assert np.abs(pixels(usual["webp"]) - pixels(Path(result.files["webp"]).read_bytes())).max() <= 1


def test_models_that_came_to_be_streamed_are_not_kept_even_if_the_film_fails(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def streams_then_fails(*arguments: object) -> None:
        next(argument for argument in arguments if isinstance(argument, Relief)).has_streamed = True
        raise Canceled

    monkeypatch.setattr("pipelines.bench.sample_still", streams_then_fails)
    shelf = Shelf(2**30)
    with pytest.raises(Canceled):
        make_film(FILM, data_dir, CPU, shelf=shelf)
    assert shelf.bytes == 0
