"""What is prepared for the job after this one, in a thread beside it."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from errors import Canceled, StorageError
from pipelines import bench, memory
from pipelines.memory import ONE_STAYS, STREAMED
from pipelines.models import Loading
from pipelines.parameters import MachineSettings
from pipelines.pieces import Plan, Relief
from pipelines.progress import Progress
from pipelines.shelf import Shelf
from pipelines.values import ModelSource, TextSource, VaeSource, VisionSource
from tests.conftest import MOTION_NAME, STILL_NAME
from workflows import ahead
from workflows.ahead import begins_at
from workflows.cache import Cache
from workflows.folders import Folders
from workflows.graph import Workflow
from workflows.nodes import catalog
from workflows.run import Engine, Run

CPU, CATALOG = MachineSettings(device="cpu"), catalog()
VENDORS = Path(__file__).parent.parent / "data" / "comfyui" / "two_stage.json"
OTHERS = ("other_still.safetensors", "other_motion.safetensors")


class House:
    """An engine of its own. `first` and `second` are films by other files; who loads what is kept."""

    def __init__(self, data_dir: Path, budget: int, *, prepares_next: bool | None) -> None:
        self.folders, self.loads = Folders(data_dir), []
        self.engine = Engine(CPU, Shelf(budget), Cache(), prepares_next=prepares_next)
        self.first, self.second = self.film(STILL_NAME, MOTION_NAME, "a red boat"), self.film(*OTHERS, "a (blue:1.2) car")

    def film(self, still: str, motion: str, prompt: str) -> Workflow:
        graph = json.loads(VENDORS.read_text())
        graph["4"]["inputs"]["ckpt_name"], graph["18"]["inputs"]["ckpt_name"] = still, motion
        graph["6"]["inputs"]["text"] = prompt
        graph["5"]["inputs"] |= {"width": 64, "height": 48}
        graph["16"]["inputs"] |= {"width": 64, "height": 48, "video_frames": 3}
        for i in ("3", "13"):
            graph[i]["inputs"]["steps"] = 2
        del graph["19"]
        return Workflow.parse(graph, CATALOG, self.folders)

    def run(self, workflow: Workflow, then: Workflow | None = None, **options: Any) -> Run:
        following = (lambda: (then, self.folders)) if then else None
        return self.engine.execute(workflow, self.folders, **({"following": following} | options))

    def beside(self) -> list[tuple[str, str]]:
        return [what for thread, *what in self.loads if thread == "preparing"]


@pytest.fixture
def make(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., House]]:
    for name, other in zip((STILL_NAME, MOTION_NAME), OTHERS, strict=True):
        shutil.copy(data_dir / "models" / "checkpoints" / name, data_dir / "models" / "checkpoints" / other)
    made: list[House] = []

    def make(budget: int = 2**30, *, prepares_next: bool | None = True) -> House:
        made.append(House(data_dir, budget, prepares_next=prepares_next))
        return made[-1]

    def listened(load: Callable) -> Callable:
        def told(source: Any, loading: Loading) -> Any:
            made[-1].loads.append((threading.current_thread().name, type(source), source.path.name))
            return load(source, loading)

        return told

    monkeypatch.setattr(bench, "_LOADERS", {kind: listened(load) for kind, load in bench._LOADERS.items()})
    yield make
    for one in made:
        one.engine.ahead.stop()


def finish() -> None:
    """What is being prepared is done."""
    for thread in [one for one in threading.enumerate() if one.name == "preparing"]:
        thread.join()


def frames(run: Run) -> np.ndarray:
    with Image.open(run.files["15"][0]) as film:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])


def blocking(monkeypatch: pytest.MonkeyPatch, kind: type, wait: Callable[[Loading], None]) -> threading.Event:
    """Set once models of this kind are about to be loaded beside a job."""
    load, is_loading = bench._LOADERS[kind], threading.Event()

    def slowly(source: Any, loading: Loading) -> Any:
        if threading.current_thread().name == "preparing":
            is_loading.set()
            wait(loading)
        return load(source, loading)

    monkeypatch.setattr(bench, "_LOADERS", bench._LOADERS | {kind: slowly})
    return is_loading


def until_canceled(loading: Loading) -> None:
    loading.report(Progress("loading", 0, 9))
    while not loading.is_canceled():
        threading.Event().wait(0.01)
    raise Canceled


def test_the_next_job_finds_its_models_and_its_prompts_and_makes_the_same(make: Callable[..., House], monkeypatch) -> None:
    plain = make()
    expected = plain.run(plain.second)
    house, read = make(), []
    encode = bench.encode_prompt
    monkeypatch.setattr(bench, "encode_prompt", lambda *a, **k: read.append(threading.current_thread().name) or encode(*a, **k))
    house.run(house.first, then=house.second)
    finish()
    assert {kind for kind, name in house.beside() if name in OTHERS} == {TextSource, ModelSource, VaeSource, VisionSource}
    assert read.count("preparing") == 2
    house.loads.clear()
    read.clear()
    told: list[Any] = []
    second = house.run(house.second, tell=told.append)
    assert (house.loads, read) == ([], [])
    assert second.cached == ("5",)  # empty latents, as the first had them
    assert np.array_equal(frames(second), frames(expected))
    assert [type(event).__name__ for event in told].count("NodeDone") == len(house.second.nodes) - 1
    assert house.engine.ahead.result("x") is None


def test_it_begins_when_nothing_is_sampled_any_more(make: Callable[..., House]) -> None:
    house, order = make(), []

    def following() -> None:
        order.append("asked")

    def tell(event: Any) -> None:
        order.append(getattr(event, "stage", type(event).__name__))

    house.run(house.first, tell=tell, following=following)
    finish()
    at = order.index("asked")
    assert "motion" not in order[at:]
    assert "decoding" not in order[:at]
    nodes = house.first.order()
    assert [node.node_class.name for node in nodes[begins_at(nodes) - 1 :]] == ["KSampler", "VAEDecode", "SaveAnimatedWEBP"]
    assert begins_at(nodes[begins_at(nodes) :]) == 0


@pytest.mark.parametrize(("device", "is_asked"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_only_beside_a_card_unless_it_is_wanted(make: Callable[..., House], device: str, is_asked: bool) -> None:
    house = make(prepares_next=None)
    house.engine.placement = dataclasses.replace(house.engine.placement, device=torch.device(device))
    assert house.engine.prepares_next == is_asked
    plain, asked = make(prepares_next=None), []
    plain.run(plain.first, following=lambda: asked.append(1))
    finish()
    assert asked == []


def test_what_is_being_loaded_for_the_next_job_is_waited_for_and_told_of(make: Callable[..., House], monkeypatch) -> None:
    house, seen = make(), threading.Event()

    def wait(loading: Loading) -> None:
        loading.report(Progress("loading", 1, 2))
        assert seen.wait(20)

    is_loading = blocking(monkeypatch, TextSource, wait)
    house.run(house.first, then=house.second)
    assert is_loading.wait(20)
    run = house.run(house.second, tell=lambda event: seen.set() if getattr(event, "stage", "") == "loading" else None)
    assert (TextSource, OTHERS[0]) in map(tuple, house.beside())
    assert run.seconds["loading"] > 0
    assert [what for thread, *what in house.loads if what == [TextSource, OTHERS[0]]] == [[TextSource, OTHERS[0]]]


def test_what_is_being_loaded_for_another_job_is_left(make: Callable[..., House], monkeypatch) -> None:
    house = make()
    is_loading = blocking(monkeypatch, TextSource, until_canceled)
    house.run(house.first, then=house.second)
    assert is_loading.wait(20)
    again = house.run(house.film(STILL_NAME, MOTION_NAME, "a ball"))
    assert house.beside() == []
    assert again.files
    assert house.run(house.second).files


def test_who_cancels_a_job_does_not_wait_for_what_is_loaded_for_it(make: Callable[..., House], monkeypatch) -> None:
    house = make()
    is_loading = blocking(monkeypatch, ModelSource, until_canceled)
    house.run(house.first, then=house.second)
    assert is_loading.wait(20)
    canceled = threading.Event()
    with pytest.raises(Canceled):
        house.run(house.second, tell=lambda event: canceled.set(), is_canceled=canceled.is_set)
    assert not [one for one in threading.enumerate() if one.name == "preparing"]


def test_nothing_is_taken_from_the_job_that_runs(make: Callable[..., House], monkeypatch) -> None:
    """Neither where both have no place on the shelf, nor where memory is short."""
    plain = make()
    plain.run(plain.first)
    enough = plain.engine.shelf.bytes
    for budget, free in ((enough + 1, 2**40), (2**30, 10_000)):
        house = make(budget)
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        house.run(house.first, then=house.second)
        finish()
        assert house.beside() == []
        house.loads.clear()
        house.run(house.film(STILL_NAME, MOTION_NAME, "a ball"))
        assert house.loads == []


def test_what_is_wrong_with_the_next_job_is_not_this_ones_trouble(make: Callable[..., House], caplog) -> None:
    house = make()
    logged = "The next job could not be prepared; it will be done without that."
    for error, told in (
        (StorageError("gone", ""), []),
        (ZeroDivisionError(), [logged]),
    ):

        def following(error: Exception = error) -> None:
            raise error

        caplog.clear()
        with caplog.at_level(logging.WARNING, "workflows.ahead"):
            assert house.run(house.film(STILL_NAME, MOTION_NAME, type(error).__name__), following=following).files
            finish()
        assert caplog.messages == told


@pytest.mark.parametrize("way", ["idle", "memory is wanted"])
def test_whoever_wants_memory_back_ends_what_is_being_loaded(make: Callable[..., House], monkeypatch, way: str) -> None:
    house = make()
    is_loading = blocking(monkeypatch, ModelSource, until_canceled)
    house.run(house.first, then=house.second)
    assert is_loading.wait(20)
    if way == "idle":
        house.engine.idle()
        assert house.engine.shelf.bytes == 0
    else:
        assert house.engine.shelf.drop_others()
    assert not [one for one in threading.enumerate() if one.name == "preparing"]
    assert len(house.run(house.second).files) == 2


def test_the_plan_is_made_of_all_models_of_the_next_job_also_of_those_that_are_known(make: Callable[..., House], monkeypatch) -> None:
    """Or it would be for less than the job, whose models would then be loaded another time."""
    house, seen, plain = make(), [], ahead.relief_for

    def relief_for(work: Any, models: Any, *more: Any, **options: Any) -> Relief:
        seen.append(len(models))
        return plain(work, models, *more, **options)

    monkeypatch.setattr(ahead, "relief_for", relief_for)
    house.run(house.first, then=house.film(STILL_NAME, MOTION_NAME, "a ball"))
    finish()
    assert seen == [2]


@pytest.mark.parametrize("plan", [Plan(STREAMED), Plan(ONE_STAYS)], ids=["streamed", "one stays"])
def test_models_come_as_the_next_job_will_have_them_or_not_at_all(make: Callable[..., House], monkeypatch, plan: Plan) -> None:
    house = make()
    monkeypatch.setattr(ahead, "relief_for", lambda *_, **__: Relief(plan))
    house.run(house.first, then=house.second)
    finish()
    assert {key[-1] for key in house.engine.shelf._kept} == ({"all"} if plan.residence == STREAMED else {"all", ONE_STAYS})
    assert (house.beside() == []) == (plan.residence == STREAMED)


def test_a_prompt_is_read_only_where_its_encoder_has_room_also_if_it_waits_on_the_host(make: Callable[..., House], monkeypatch) -> None:
    house = make()
    house.run(house.first)
    engine, still = house.engine, house.folders.model("checkpoints", STILL_NAME)
    engine.placement = dataclasses.replace(engine.placement, device=torch.device("cuda"))
    text, unet = ((source, (), engine.placement, ONE_STAYS) for source in (TextSource(still), ModelSource(still, "still")))
    for key in (text, unet):
        engine.shelf.take(key, lambda: next(models for models, _ in engine.shelf._kept.values()))
    shelf = ahead._NextShelf(engine, Relief(), Plan(ONE_STAYS))
    for on_card, is_read in ((0, False), (2**30, True)):
        monkeypatch.setattr(memory, "spare_bytes", lambda device, limit, on_card=on_card: on_card if device.type == "cuda" else 0)
        assert shelf.take(unet, pytest.fail)
        with nullcontext() if is_read else pytest.raises(ahead._NoRoom):
            shelf.take(text, pytest.fail)


def test_what_this_job_needs_to_finish_is_not_taken(make: Callable[..., House], monkeypatch) -> None:
    plain = make()
    plain.run(plain.first, then=plain.second)
    finish()
    largest = max(size for _, size in plain.engine.shelf._kept.values())
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100 * largest)
    for needed, is_any in ((0, True), (89 * largest, True), (90 * largest, False)):
        house = make()
        monkeypatch.setattr(Relief, "finishing", lambda self, needed=needed: needed)
        house.run(house.first, then=house.second)
        finish()
        assert bool(house.beside()) == is_any


def test_early_are_nodes_that_only_name_models_or_read_a_prompt() -> None:
    early = {name for name in CATALOG if CATALOG[name].is_early}
    assert {"CheckpointLoaderSimple", "CLIPTextEncode", "LoraLoader"} <= early
    for name in early:
        one = CATALOG[name]
        types = {*one.outputs, *(given.type for given in one.inputs.values())}
        assert not types & {"IMAGE", "LATENT", "MASK", "VIDEO"}
        assert not one.is_output


def test_a_graph_with_a_prompt_from_elsewhere_is_prepared_as_far_as_it_goes(make: Callable[..., House]) -> None:
    house = make()
    graph = copy.deepcopy(dict(house.second.graph))
    graph["20"] = {"class_type": "LoadImage", "inputs": {"image": "x.png"}}
    house.folders.of("input").mkdir(exist_ok=True)
    Image.new("RGB", (64, 48)).save(house.folders.of("input") / "x.png")
    graph["16"]["inputs"]["init_image"] = ["20", 0]
    house.run(house.first, then=Workflow.parse(graph, CATALOG, house.folders))
    finish()
    assert (VisionSource, OTHERS[1]) in map(tuple, house.beside())
