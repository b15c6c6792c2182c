"""The worker on the true engine, with the tiny models."""

from __future__ import annotations

import dataclasses
import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.estimates import Measured, models_of
from jobs.job import Job, JobStatus
from jobs.progress import Board, JobEvent
from jobs.runner import Runner
from jobs.store import JobStore
from jobs.submitting import prepare
from jobs.worker import Worker
from pipelines import bench, filenames
from pipelines.parameters import MachineSettings
from pipelines.shelf import Shelf
from tests.conftest import MOTION_NAME, STILL_NAME
from workflows.cache import Cache
from workflows.declare import Catalog
from workflows.folders import Folders
from workflows.nodes import catalog
from workflows.run import Engine
from workflows.templates import fill, find_template

SMALL = {
    "width": 32, "height": 32, "frames": 2, "steps": 1, "motion_steps": 1, "checkpoint": STILL_NAME, "motion_checkpoint": MOTION_NAME,
    "seed": 1, "motion_seed": 2,
}  # fmt: skip


class House:
    """A store, an engine and a worker that is stepped by hand."""

    def __init__(self, data_dir: Path, shelf: Shelf) -> None:
        self.data_dir, self.board, self.events = data_dir, Board(), []
        self.board.subscribe(self.events.append)
        self.store = JobStore(data_dir / "jobs.sqlite", tell=self.board.publish)
        self.catalog = catalog()
        self.engine = Engine(MachineSettings(device="cpu"), shelf, Cache(data_dir / "cache"))
        self.runner = Runner(data_dir, self.catalog, lambda: self.engine)
        self.worker = Worker(self.store, self.runner, self.board)

    def submit(self, owner: str = "", **values: Any) -> Job:
        graph = fill(find_template("text_to_film"), SMALL | values)
        return self.store.submit(prepare(graph, self.catalog, Folders(self.data_dir, owner))[0])

    def kinds(self, job: Job) -> list[str]:
        return [event.kind for event in self.events if event.job_id == job.id]

    def files(self) -> set[str]:
        return {path.name for path in (self.data_dir / "output").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf(2**30)


@pytest.fixture
def house(data_dir: Path, shelf: Shelf) -> Iterator[House]:
    made = House(data_dir, shelf)
    yield made
    made.store.close()


def at_work(job: Job) -> float:
    """Seconds, without those of loading: whether there is anything to load depends on the tests before."""
    return job.run_seconds - job.stage_seconds["loading"]


def test_the_first_job_says_that_it_waits_for_pytorch_and_counts_it_as_loading(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly() -> Engine:
        time.sleep(0.3)
        return house.engine

    monkeypatch.setattr(house.runner, "_make_engine", slowly)
    first, second = house.submit(), house.submit(seed=5)
    told = {}
    for job in (first, second):
        house.worker.step()
        told[job.id] = [event.data for event in house.events if event.job_id == job.id and event.kind == "progress"]
    nothing_yet = {"node_id": "", "stage": "loading", "step": 0, "total": 0}
    assert told[first.id][0] == nothing_yet != told[second.id][0]
    assert house.store.get(first.id).stage_seconds["loading"] >= 0.3 > house.store.get(second.id).stage_seconds["loading"]


def test_a_job_runs_from_submission_to_files(house: House) -> None:
    submitted = house.submit("anna", prompt="a red boat", frames=2, augmentation_level=0.3)
    assert submitted.title == "a red boat"
    assert "augmentation level" in submitted.warnings[0]
    assert submitted.work == "still:1x32x32x1+motion:1x32x32x2"
    job = house.worker.step()
    assert (job.status, job.error, job.attempts) == (JobStatus.SUCCEEDED, None, 1)
    assert job.outputs.keys() == {"9", "15", "19"}
    assert job.device == "cpu"
    assert job.peak_bytes > 0
    assert {"still", "motion", "encoding"} <= job.stage_seconds.keys()
    assert {file.filename for file in job.files} == house.files()
    assert all(file.bytes == (house.data_dir / "output" / "anna" / file.filename).stat().st_size for file in job.files)
    assert job.warnings == submitted.warnings
    kinds = house.kinds(job)
    assert kinds[:4] == ["queued", "started", "progress", "cached"]
    assert kinds.count("output") == 3
    assert kinds[-1] == "succeeded"
    assert Measured(house.store).seconds(job.work, models_of(job.workflow)) == pytest.approx(at_work(job))
    assert house.worker.step() is None


def test_the_job_that_waits_is_prepared_while_one_is_written(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(house.engine), "prepares_next", True)  # as beside a card
    threads = []
    encode = bench.encode_prompt
    monkeypatch.setattr(bench, "encode_prompt", lambda *a, **k: threads.append(threading.current_thread().name) or encode(*a, **k))
    first, second = house.submit(prompt="a red boat"), house.submit("anna", prompt="a blue car", negative_prompt="rain")
    monkeypatch.setattr(house.runner, "upcoming", lambda: house.store.get(second.id))
    assert house.worker.step().id == first.id
    while any(one.name == "preparing" for one in threading.enumerate()):
        time.sleep(0.01)
    assert sorted(threads) == ["MainThread", "MainThread", "preparing", "preparing"]
    done = house.worker.step()
    assert (done.id, done.status, done.warnings) == (second.id, JobStatus.SUCCEEDED, second.warnings)
    assert threads.count("MainThread") == 2
    house.runner.close()


def test_what_was_found_in_the_cache_does_not_count_for_estimates(house: House) -> None:
    house.submit()
    first = house.worker.step()
    house.submit(crf=30)
    second = house.worker.step()
    assert {"3", "13", "14"} <= set(second.cached)
    assert Measured(house.store).seconds(first.work, models_of(first.workflow)) == pytest.approx(at_work(first))
    assert {file.filename for file in first.files} & {file.filename for file in second.files} == set()


def test_a_verification_takes_nothing_from_the_cache(house: House) -> None:
    first = house.submit()
    house.worker.step()
    house.store.verify(first.id)
    again = house.worker.step()
    assert (again.status, again.cached) == (JobStatus.SUCCEEDED, ())
    assert {file.filename for file in again.files}.isdisjoint(file.filename for file in house.store.get(first.id).files)


@pytest.mark.parametrize("node", ["4", "3", "19"])
def test_a_mistake_in_a_node_fails_that_job_and_no_other(house: House, node: str) -> None:
    bad = house.submit(prefix="bad")
    broken = dict(house.catalog.classes)
    name = bad.workflow[node]["class_type"]
    failing = 1 + [i for i, one in bad.workflow.items() if one["class_type"] == name].index(node)
    broken[name] = breaking(broken[name], failing)
    house.runner.catalog = Catalog(broken)
    job = house.worker.step()
    assert (job.status, job.error.code) == (JobStatus.FAILED, "internal")
    assert job.error.id if hasattr(job.error, "id") else "id" in job.error.details
    assert "RuntimeError: broken" in job.log
    assert "broken" not in job.error.message  # the log has it, the person gets a number
    house.runner.catalog = house.catalog
    house.submit(prefix="good")
    assert house.worker.step().status == JobStatus.SUCCEEDED
    again = house.store.retry(job.id)
    assert house.worker.step().status == JobStatus.SUCCEEDED
    assert len([name for name in house.files() if name.startswith("bad")]) == 5, again.outputs


def breaking(node: Any, at: int) -> Any:
    calls = []

    def function(bench: Any, job: Any = None, **inputs: Any) -> Any:
        calls.append(inputs)
        if len(calls) == at:
            raise RuntimeError("broken")
        return node.function(bench, **inputs | ({"job": job} if job is not None else {}))

    return dataclasses.replace(node, function=function)


@pytest.mark.parametrize("place", ["diffusers.UNet2DConditionModel.forward", "diffusers.UNetSpatioTemporalConditionModel.forward",
                                   "diffusers.AutoencoderKL.decode", "pipelines.weights._read", "pipelines.encode.save_webp"])  # fmt: skip
def test_memory_that_runs_out_fails_that_job_with_what_would_help(house: House, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    house.submit(seed=77)
    house.engine.shelf.drop_others()
    monkeypatch.setattr(place, full)
    job = house.worker.step()
    assert (job.status, job.error.code) == (JobStatus.FAILED, "out_of_memory")
    assert job.error.hint
    assert job.error.node
    monkeypatch.undo()
    house.store.retry(job.id)
    assert house.worker.step().status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("stage", ["loading", "still", "motion", "decoding", "encoding"])
def test_a_cancel_in_any_stage_stops_it_and_the_next_runs(house: House, stage: str) -> None:
    house.engine.shelf.drop_others()
    unwanted, wanted = house.submit(seed=5), house.submit(seed=6)

    def cancel(event: JobEvent) -> None:
        if event.kind == "progress" and event.data["stage"] == stage and event.job_id == unwanted.id:
            house.store.cancel(unwanted.id)

    unsubscribe = house.board.subscribe(cancel)
    job = house.worker.step()
    unsubscribe()
    assert job.status == JobStatus.CANCELED
    told = [event.data["stage"] for event in house.events if event.kind == "progress" and event.job_id == job.id]
    assert told[-1] == stage
    assert told.count(stage) <= 2
    assert house.worker.step().id == wanted.id
    assert house.store.get(wanted.id).status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("failing", range(1, 6))
def test_a_full_disk_fails_the_job_and_leaves_no_half(house: House, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    links, link = [], filenames.os.link

    def full(*paths: object) -> None:
        links.append(paths)
        if len(links) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        link(*paths)

    house.submit()
    monkeypatch.setattr(filenames.os, "link", full)
    job = house.worker.step()
    assert (job.status, job.error.code) == (JobStatus.FAILED, "storage")
    assert house.files() == {entry["filename"] for ui in job.outputs.values() for entry in (*ui.get("images", ()), *ui.get("gifs", ()))}
    monkeypatch.undo()
    house.store.retry(job.id)
    assert house.worker.step().status == JobStatus.SUCCEEDED
    assert len(house.files()) == 5


@pytest.mark.long
def test_files_and_threads_and_memory_stay_flat_over_many_jobs(house: House) -> None:
    def handles() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    for number in range(3):
        house.submit(seed=number)
        assert house.worker.step().status == JobStatus.SUCCEEDED
    before = handles()
    for number in range(5):
        house.submit(seed=number, crf=30 + number)
        house.worker.step()
    assert handles() == before


def draining(house: House, job: Job) -> Callable[[JobEvent], None]:
    def stop(event: JobEvent) -> None:
        if event.kind == "progress" and event.data["stage"] == "motion":
            house.worker.drain(0)

    return stop


def test_a_worker_that_is_told_to_stop_puts_its_job_back_and_the_next_goes_on_from_there(house: House) -> None:
    job = house.submit()
    unsubscribe = house.board.subscribe(draining(house, job))
    assert house.worker.step().status == JobStatus.QUEUED
    unsubscribe()
    house.worker = Worker(house.store, house.runner, house.board)
    again = house.worker.step()
    assert again.status == JobStatus.SUCCEEDED
    assert "3" in again.cached
    assert len([name for name in house.files() if name.endswith("_.png")]) == 1
