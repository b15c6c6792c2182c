from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from errors import Canceled, CheckpointError, InputError, StorageError
from pipelines.checkpoints import examine
from pipelines.filenames import check_room
from pipelines.memory import choose_placement
from pipelines.metadata import read_settings, settings_in
from pipelines.parameters import MachineSettings
from pipelines.progress import Progress
from pipelines.read_video import read_video
from pipelines.shelf import Shelf
from pipelines.values import Saved
from tests.conftest import MOTION_NAME, STILL_NAME
from workflows.cache import Cache
from workflows.demand import demand_of
from workflows.folders import Folders
from workflows.graph import Workflow
from workflows.nodes import catalog
from workflows.run import Cached, Engine, Event, Glimpse, NodeDone, NodeStarted, Run
from workflows.workload import workload

CPU = MachineSettings(device="cpu")
CATALOG = catalog()
VENDORS = Path(__file__).parent.parent / "data" / "comfyui" / "two_stage.json"


@pytest.fixture
def seed() -> dict[str, Any]:
    """The vendor's workflow, with the tiny models, and small."""
    graph = json.loads(VENDORS.read_text())
    graph["4"]["inputs"]["ckpt_name"], graph["18"]["inputs"]["ckpt_name"] = STILL_NAME, MOTION_NAME
    graph["5"]["inputs"] |= {"width": 64, "height": 48}
    graph["16"]["inputs"] |= {"width": 64, "height": 48, "video_frames": 3}
    for i in ("3", "13"):
        graph[i]["inputs"]["steps"] = 2
    return graph


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf(2**30)


@pytest.fixture
def engine(data_dir: Path, shelf: Shelf) -> Engine:
    return Engine(CPU, shelf, Cache(data_dir / "cache"))


@pytest.fixture
def run(data_dir: Path, engine: Engine) -> Callable[..., Run]:
    def run(graph: dict[str, Any], **options: Any) -> Run:
        folders = Folders(data_dir, options.pop("owner", ""))
        return options.pop("engine", engine).execute(Workflow.parse(graph, CATALOG, folders), folders, **options)

    return run


def pixels(run: Run, node: str) -> np.ndarray:
    with Image.open(run.files[node][0]) as image:
        return np.asarray(image.convert("RGB"), int)


def test_the_vendors_workflow_makes_what_comfyui_lists(run: Callable[..., Run], seed: dict[str, Any], data_dir: Path) -> None:
    told: list[Event] = []
    result = run(seed, tell=told.append, extra={"workflow": {"nodes": []}})
    assert result.outputs["9"] == {"images": [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]}
    assert result.outputs["15"] == {"images": [{"filename": "ComfyUI_00002_.webp", "subfolder": "", "type": "output"}], "animated": [True]}
    (film,) = result.outputs["19"]["gifs"]
    assert film["filename"] == "comfyUI_00003.mp4"
    assert film["workflow"] == "comfyUI_00003.png"
    assert (film["format"], film["frame_rate"]) == ("video/h264-mp4", 10.0)
    assert Path(film["fullpath"]) == data_dir / "output" / "comfyUI_00003.mp4"
    for paths in result.files.values():
        assert read_settings(paths[0])["prompt"]["3"]["inputs"]["seed"] == 367490676387803
        assert read_settings(paths[0])["workflow"] == {"nodes": []}
    assert told[0] == Cached(())
    assert [event.node for event in told if isinstance(event, NodeStarted)] == [event.node for event in told if isinstance(event, NodeDone)]
    assert {event.node for event in told if isinstance(event, Progress) and event.stage == "motion"} == {"13"}
    assert result.is_whole
    assert result.peak_bytes > 2**20


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"13": {"seed": 1}}, {"13", "14", "15", "19"}),
        ({"16": {"motion_bucket_id": 20}}, {"16", "13", "14", "15", "19"}),
        ({"17": {"min_cfg": 1.5}}, {"17", "13", "14", "15", "19"}),
        ({"15": {"quality": 10}}, {"15"}),
        ({"19": {"crf": 40}}, {"19"}),
        ({}, set()),
        ({"6": {"text": "another"}}, {"6", "3", "8", "16", "13", "14", "15", "19"}),
    ],
)
def test_only_what_changed_is_worked_again(run: Callable[..., Run], seed: dict[str, Any], change: dict, again: set[str]) -> None:
    run(seed)
    changed = copy.deepcopy(seed)
    for i, inputs in change.items():
        changed[i]["inputs"] |= inputs
    told: list[Event] = []
    result = run(changed, tell=told.append)
    started = {event.node for event in told if isinstance(event, NodeStarted)}
    assert started == again | {"9", "15", "19"}  # files are written for every job
    assert set(result.files) == {"9", "15", "19"}
    assert set(result.cached) == seed.keys() - started
    assert result.is_whole == ("3" not in result.cached)


def test_a_fresh_run_takes_nothing_that_is_kept_and_makes_the_same(run: Callable[..., Run], seed: dict[str, Any]) -> None:
    first, told = run(seed), []
    again = run(seed, tell=told.append, is_fresh=True)
    assert {event.node for event in told if isinstance(event, NodeStarted)} == seed.keys()
    assert (again.cached, again.is_whole) == ((), True)
    assert np.array_equal(pixels(first, "9"), pixels(again, "9"))
    assert run(seed).cached  # what it made is kept as ever


def test_another_process_finds_what_took_long_on_the_disk(
    run: Callable[..., Run], seed: dict[str, Any], data_dir: Path, shelf: Shelf
) -> None:
    first = run(seed)
    fresh = Engine(CPU, shelf, Cache(data_dir / "cache"))
    told: list[Event] = []
    second = run(seed, engine=fresh, tell=told.append)
    assert {event.node for event in told if isinstance(event, NodeStarted)} == {"9", "15", "19"}
    assert np.array_equal(pixels(first, "9"), pixels(second, "9"))
    assert first.files["19"][0].read_bytes() != b""
    for path in (data_dir / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-9])  # damaged, all of them
    third = run(seed, engine=Engine(CPU, shelf, Cache(data_dir / "cache")))
    assert np.array_equal(pixels(first, "9"), pixels(third, "9"))
    assert third.cached == ()


def test_a_model_file_that_was_replaced_is_another_model(
    run: Callable[..., Run], seed: dict[str, Any], data_dir: Path, tmp_path: Path
) -> None:
    models = tmp_path / "own" / "models" / "checkpoints"
    models.mkdir(parents=True)
    for name in (STILL_NAME, MOTION_NAME):
        (models / name).write_bytes((data_dir / "models" / "checkpoints" / name).read_bytes())
    folders, engine = Folders(tmp_path / "own"), Engine(CPU, Shelf(2**30), Cache())
    del seed["15"], seed["19"]
    workflow = Workflow.parse(seed, CATALOG, folders)
    engine.execute(workflow, folders)
    assert engine.execute(workflow, folders).cached
    (models / STILL_NAME).write_bytes((models / STILL_NAME).read_bytes())
    assert not {"3", "8"} & set(engine.execute(workflow, folders).cached)


def test_what_was_cut_in_tiles_for_want_of_memory_is_not_kept(
    data_dir: Path, seed: dict[str, Any], shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with less memory, but whole, everything is."""
    folders, tight = Folders(data_dir), dataclasses.replace(CPU, vram="medium")
    workflow = Workflow.parse({i: node for i, node in seed.items() if i not in ("15", "19")}, CATALOG, folders)
    engine = Engine(tight, shelf, Cache())
    engine.execute(workflow, folders)
    assert {"3", "8"} <= set(engine.execute(workflow, folders).cached)
    real, calls = diffusers.AutoencoderKL.decode, []

    def decode(*arguments: Any, **options: Any) -> Any:
        calls.append(True)
        if len(calls) <= 2:  # the first try, and the one after what could be freed
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*arguments, **options)

    monkeypatch.setattr("diffusers.AutoencoderKL.decode", decode)
    monkeypatch.setattr("pipelines.pieces.TILES", (4,))
    engine = Engine(tight, shelf, Cache())
    assert "in tiles" in engine.execute(workflow, folders).notes[-1]
    assert "8" not in engine.execute(workflow, folders).cached
    assert "3" in engine.execute(workflow, folders).cached


def test_users_have_folders_of_their_own(run: Callable[..., Run], seed: dict[str, Any], data_dir: Path) -> None:
    run(seed, owner="anna")
    assert (data_dir / "output" / "anna" / "ComfyUI_00001_.png").exists()
    assert not list((data_dir / "output").glob("*.png"))


@pytest.mark.parametrize(
    ("change", "error", "node"),
    [
        ({"4": {"ckpt_name": MOTION_NAME}}, CheckpointError, "4"),
        ({"18": {"ckpt_name": STILL_NAME}}, CheckpointError, "18"),
        ({"19": {"pix_fmt": "yuva420p"}}, InputError, "19"),
        ({"19": {"crf": 77}}, InputError, "19"),
        ({"13": {"positive": ["6", 0]}}, InputError, "13"),
    ],
)
def test_an_error_says_in_which_node(
    run: Callable[..., Run], seed: dict[str, Any], data_dir: Path, change: dict, error: type, node: str
) -> None:
    for i, inputs in change.items():
        seed[i]["inputs"] |= inputs
    told: list[Event] = []
    with pytest.raises(error) as caught:
        run(seed, tell=told.append)
    assert caught.value.node == node
    if node != "13":
        assert not [event for event in told if isinstance(event, Progress)]  # before any work


def test_a_full_disk_is_said_before_the_work(run: Callable[..., Run], seed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.run.check_room", lambda folder, needed: check_room(folder, 10**18))
    with pytest.raises(StorageError) as caught:
        run(seed)
    assert caught.value.node == "9"


@pytest.mark.parametrize("stage", ["still", "motion", "decoding", "encoding"])
def test_a_cancel_stops_within_a_step_and_what_was_sampled_is_kept(
    run: Callable[..., Run], seed: dict[str, Any], stage: str, engine: Engine
) -> None:
    told: list[Event] = []
    with pytest.raises(Canceled):
        run(seed, tell=told.append, is_canceled=lambda: any(isinstance(e, Progress) and e.stage == stage for e in told))
    assert sum(isinstance(event, Progress) and event.stage == stage for event in told) == 1
    again = run(seed)
    assert ("3" in again.cached) == (stage != "still")
    assert ("13" in again.cached) == (stage == "decoding")  # the first file to be encoded is the still


class Crash(BaseException):
    """As if the process had died."""


class Account:
    """A journal that a second run finds as the first left it."""

    def __init__(self) -> None:
        self.kept: dict[str, Saved] = {}
        self.told_of: list[str] = []

    def result(self, node: str, key: str) -> Saved | None:
        return self.kept.get(f"{node}{key}")

    def told(self, node: str, key: str, part: Path, target: Path) -> None:
        self.told_of.append(target.name)

    def done(self, node: str, key: str, saved: Saved) -> None:
        self.kept[f"{node}{key}"] = saved


def test_a_job_that_is_run_again_writes_no_file_twice(run: Callable[..., Run], seed: dict[str, Any], data_dir: Path) -> None:
    journal = Account()

    def crash(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "motion":
            raise Crash

    with pytest.raises(Crash):
        run(seed, tell=crash, journal=journal)
    result = run(seed, journal=journal)
    assert result.outputs["9"]["images"][0]["filename"] == "ComfyUI_00001_.png"
    assert len(list((data_dir / "output").glob("ComfyUI*.png"))) == 1
    assert journal.told_of == [
        "ComfyUI_00001_.png", "ComfyUI_00002_.webp", "comfyUI_00003.mp4", "comfyUI_00003.png", "comfyUI_00003.mp4.json",
    ]  # fmt: skip


# Single nodes.


def still_graph(**samplers: Any) -> dict[str, Any]:
    inputs = {
        "model": ["4", 0], "seed": 5, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "karras", "positive": ["6", 0],
        "negative": ["7", 0], "latent_image": ["5", 0], "denoise": 1.0,
    }  # fmt: skip
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": STILL_NAME}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a boat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "3": {"class_type": "KSampler", "inputs": inputs | samplers},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    }


def advanced(graph: dict[str, Any], i: str, latent: list, **change: Any) -> None:
    given = {name: value for name, value in graph["3"]["inputs"].items() if name not in ("seed", "denoise")}
    given |= {"add_noise": "enable", "noise_seed": 5, "start_at_step": 0, "end_at_step": 10_000, "return_with_leftover_noise": "disable"}
    graph[i] = {"class_type": "KSamplerAdvanced", "inputs": given | {"latent_image": latent} | change}


def test_sampling_in_two_parts_is_sampling_in_one(run: Callable[..., Run]) -> None:
    whole, parts = still_graph(), still_graph()
    advanced(parts, "30", ["5", 0], end_at_step=2, return_with_leftover_noise="enable")
    advanced(parts, "31", ["30", 0], start_at_step=2, add_noise="disable")
    parts["8"]["inputs"]["samples"] = ["31", 0]
    assert np.abs(pixels(run(whole), "9") - pixels(run(parts), "9")).max() <= 1


def test_a_picture_is_changed_more_the_more_noise_it_gets(run: Callable[..., Run], data_dir: Path) -> None:
    (data_dir / "input").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(data_dir / "input" / "mine.png")
    changed = []
    for denoise in (0.0, 0.3, 0.9):
        graph = still_graph(denoise=denoise, latent_image=["11", 0])
        graph["10"] = {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}
        graph["11"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
        changed.append(pixels(run(graph), "9"))
    distances = [np.abs(picture - changed[0]).mean() for picture in changed]
    assert distances[0] == 0 < distances[1] < distances[2]


def test_several_stills_of_one_prompt_are_different_and_the_first_is_the_one_alone(run: Callable[..., Run]) -> None:
    graph = still_graph()
    alone = pixels(run(graph), "9")
    graph["5"]["inputs"]["batch_size"] = 3
    several = run(graph)
    assert len(several.outputs["9"]["images"]) == 3
    first, second, _ = (np.asarray(Image.open(path), int) for path in several.files["9"])
    assert np.abs(first - alone).max() <= 1
    assert np.abs(second - alone).max() > 1


def test_repeated_latents_and_the_last_layer_of_the_text_encoder(run: Callable[..., Run]) -> None:
    graph = still_graph(latent_image=["12", 0])
    graph["12"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["5", 0], "amount": 2}}
    assert len(run(graph).files["9"]) == 2
    plain, skipped = still_graph(), still_graph()
    skipped["13"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["4", 1], "stop_at_clip_layer": -2}}
    skipped["6"]["inputs"]["clip"] = ["13", 0]
    assert not np.array_equal(pixels(run(plain), "9"), pixels(run(skipped), "9"))


@pytest.mark.parametrize(
    ("name", "inputs", "size"),
    [
        ("ImageScale", {"upscale_method": "bilinear", "width": 100, "height": 0, "crop": "disabled"}, (100, 75)),
        ("ImageScale", {"upscale_method": "lanczos", "width": 40, "height": 80, "crop": "center"}, (40, 80)),
        ("ImageScale", {"upscale_method": "area", "width": 0, "height": 0, "crop": "disabled"}, (64, 48)),
        ("ImageScaleBy", {"upscale_method": "bicubic", "scale_by": 1.5}, (96, 72)),
        ("ImageScaleBy", {"upscale_method": "nearest-exact", "scale_by": 0.01}, (1, 1)),
    ],
)
def test_pictures_are_scaled(run: Callable[..., Run], name: str, inputs: dict, size: tuple[int, int]) -> None:
    graph = still_graph()
    graph["20"] = {"class_type": name, "inputs": {"image": ["8", 0]} | inputs}
    graph["9"]["inputs"]["images"] = ["20", 0]
    with Image.open(run(graph).files["9"][0]) as image:
        assert image.size == size


def test_tiles_look_like_the_whole(run: Callable[..., Run]) -> None:
    graph = still_graph()
    graph["5"]["inputs"] |= {"width": 160, "height": 128}
    whole = pixels(run(graph), "9")
    tiles = {"tile_size": 64, "overlap": 16, "temporal_size": 64, "temporal_overlap": 8}
    graph["8"] = {"class_type": "VAEDecodeTiled", "inputs": {"samples": ["3", 0], "vae": ["4", 2]} | tiles}
    assert np.abs(whole - pixels(run(graph), "9")).mean() < 40  # normalised over a tile, tiny random weights differ much


def test_a_film_goes_on_from_its_last_frame(run: Callable[..., Run], seed: dict[str, Any], data_dir: Path) -> None:
    from workflows.templates import fill, find_template

    film = run(seed).outputs["19"]["gifs"][0]["filename"]
    values = {
        "film": f"{film} [output]", "width": 64, "height": 48, "frames": 4, "motion_steps": 2, "motion_checkpoint": MOTION_NAME,
        "motion_seed": 3, "prefix": "longer",
    }  # fmt: skip
    longer = run(fill(find_template("extend_film"), values))
    with Image.open(longer.files["15"][0]) as webp:
        assert webp.n_frames == 3 + 4 - 1


def test_a_preview_is_no_result(run: Callable[..., Run], data_dir: Path) -> None:
    graph = still_graph()
    graph["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    assert run(graph).outputs["9"]["images"][0]["type"] == "temp"
    assert not (data_dir / "output").exists()


@pytest.mark.parametrize(
    ("format", "more", "frames"),
    [
        ("video/h264-mp4", {"pingpong": True, "loop_count": 1, "crf": 30}, 8),
        ("video/h265-mp4", {"pix_fmt": "yuv420p"}, 3),
        ("video/webm", {"save_metadata": False}, 3),
        ("image/gif", {"save_output": False}, 3),
        ("image/webp", {"pingpong": True}, 4),
    ],
)
def test_films_are_written_in_every_format(
    run: Callable[..., Run], seed: dict[str, Any], data_dir: Path, format: str, more: dict, frames: int
) -> None:
    seed["19"]["inputs"] = {
        "images": ["14", 0],
        "frame_rate": 10,
        "loop_count": 0,
        "filename_prefix": "film",
        "pingpong": False,
        "format": format,
    }
    seed["19"]["inputs"] |= {"save_output": True} | more
    seed = {i: node for i, node in seed.items() if i not in ("9", "15")}
    result = run(seed)
    (film,) = result.outputs["19"]["gifs"]
    path = result.files["19"][0]
    assert film["type"] == path.relative_to(data_dir).parts[0] == ("output" if more.get("save_output", True) else "temp")
    if format.startswith("image"):
        with Image.open(path) as image:
            assert image.n_frames == frames
    else:
        assert len(read_video(path)[0]) == frames
    kept = more.get("save_metadata", True)
    assert bool(settings_in(path)) == bool(settings_in(path.with_suffix(".png"))) == kept
    assert path.with_name(path.name + ".json").exists() == kept


def test_frames_as_png_and_as_a_video_of_their_own(run: Callable[..., Run], seed: dict[str, Any]) -> None:
    seed["15"] = {"class_type": "SaveAnimatedPNG", "inputs": {"images": ["14", 0], "filename_prefix": "x", "fps": 5, "compress_level": 1}}
    seed["20"] = {"class_type": "CreateVideo", "inputs": {"images": ["14", 0], "fps": 12}}
    seed["19"] = {
        "class_type": "SaveVideo",
        "inputs": {"video": ["20", 0], "filename_prefix": "video/x", "format": "auto", "codec": "auto"},
    }
    result = run(seed)
    with Image.open(result.files["15"][0]) as image:
        assert image.n_frames == 3
    assert result.outputs["19"]["images"][0]["subfolder"] == "video"
    frames, fps = read_video(result.files["19"][0])
    assert (len(frames), fps) == (3, 12)


def test_previews_are_told_of_the_nodes_that_sample_and_change_nothing(
    run: Callable[..., Run], seed: dict[str, Any], data_dir: Path, shelf: Shelf
) -> None:
    told: list[Event] = []
    seen = run(seed, tell=told.append, shows_previews=True, engine=Engine(CPU, shelf))
    plain = run(seed, engine=Engine(CPU, shelf))
    glimpses = [event for event in told if isinstance(event, Glimpse)]
    assert {event.node for event in glimpses} == {"3", "13"}
    assert all(event.image.startswith(b"\xff\xd8") for event in glimpses)
    begun = [event.node for event in told if isinstance(event, NodeStarted | Glimpse)]
    assert begun.index("3") < begun.index("13")
    assert np.array_equal(pixels(seen, "9"), pixels(plain, "9"))


def test_the_colours_of_an_autoencoder_are_found_out_once(run: Callable[..., Run], seed: dict[str, Any], shelf: Shelf) -> None:
    engine = Engine(CPU, shelf)
    run(seed, shows_previews=True, engine=engine)
    known = dict(engine.colours)
    assert len(known) == 2
    seed["3"]["inputs"]["seed"] += 1
    run(seed, shows_previews=True, engine=engine)
    assert all(engine.colours[key] is known[key] for key in known)


FASTER = Path(__file__).parents[2] / "docs" / "workflows" / "faster_film.json"


def faster(every: int) -> dict[str, Any]:
    """The ready workflow, with the tiny models, and small."""
    graph = json.loads(FASTER.read_text("utf-8"))
    graph["4"]["inputs"]["ckpt_name"], graph["18"]["inputs"]["ckpt_name"] = STILL_NAME, MOTION_NAME
    graph["5"]["inputs"] |= {"width": 64, "height": 48}
    graph["16"]["inputs"] |= {"width": 64, "height": 48, "video_frames": 3}
    graph["3"]["inputs"]["steps"], graph["13"]["inputs"]["steps"], graph["20"]["inputs"]["every"] = 2, 4, every
    return graph


def test_deep_features_are_reused_where_a_workflow_says_so(run: Callable[..., Run], shelf: Shelf, data_dir: Path) -> None:
    plain = faster(1)
    plain["17"]["inputs"]["model"] = plain.pop("20")["inputs"]["model"]
    exact = read_video(run(plain).files["19"][0])[0]
    loaded = len(shelf.modules())
    same, near = (read_video(run(faster(every)).files["19"][0])[0] for every in (1, 3))
    assert np.array_equal(same, exact)
    assert 0 < np.abs(near - exact).mean() < 0.2
    assert len(shelf.modules()) == loaded  # the same weights
    told: list[Event] = []
    run(faster(3), tell=told.append)
    assert {event.node for event in told if isinstance(event, NodeStarted)} == {"9", "15", "19"}  # a result like any other
    folders = Folders(data_dir)
    work = {every: [str(one) for one in workload(Workflow.parse(faster(every), CATALOG, folders), folders)] for every in (1, 2, 10)}
    assert [motion for _, motion in work.values()] == ["motion:4x64x48x3", "motion:2x64x48x3", "motion:2x64x48x3"]
    wrong = faster(11)
    del wrong["9"]  # it would be made all the same
    with pytest.raises(InputError):
        run(wrong)


def test_weights_in_eight_bits_give_another_film_that_is_kept_for_itself(
    run: Callable[..., Run], seed: dict[str, Any], data_dir: Path
) -> None:
    cache, small = Cache(data_dir / "cache"), MachineSettings(device="cpu", weights="float8")
    exact, near = (run(seed, engine=Engine(machine, Shelf(2**30), cache)) for machine in (CPU, small))
    assert near.cached == ()
    assert "weights" not in exact.placement
    assert near.placement["weights"] == "float8"
    assert 0 < np.abs(pixels(exact, "9") - pixels(near, "9")).mean() < 60
    assert run(seed, engine=Engine(small, Shelf(2**30), cache)).cached


def test_a_plan_counts_weights_as_they_are_kept(tiny_models: Path) -> None:
    models = [examine(tiny_models / "checkpoints" / name, kind) for name, kind in ((STILL_NAME, "still"), (MOTION_NAME, "motion"))]
    usual, small = (demand_of([], models, choose_placement("cpu", weights=weights), 2**40) for weights in ("auto", "float8"))
    assert usual.weights - small.weights == 3 * sum(numbers["unet"] for _, numbers in models)
    assert small.largest < usual.largest
    assert (small.item_bytes, small.vae_item_bytes) == (4, 4)  # of what is computed
