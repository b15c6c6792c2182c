from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from errors import Canceled, StorageError
from jobs.job import Job, Outcome, Submission
from jobs.service import DRAINING, READY, STARTING, Service
from jobs.service_settings import FOLDERS, StoreSettings, WorkSettings
from workflows.declare import Catalog


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def make(tmp_path: Path, gate: threading.Event) -> Iterator[Callable[..., Service]]:
    """A service whose jobs run until the gate is open; those that are titled "quick" do not wait for it."""
    made: list[Service] = []

    def run(job: Job, report: object, is_canceled: Callable[[], bool], journal: object) -> Outcome:
        while job.title != "quick" and not gate.wait(0.005):
            if is_canceled():
                raise Canceled
        return Outcome()

    def make(work: WorkSettings | None = None, **more: object) -> Service:
        store = StoreSettings(tmp_path / "data", tmp_path / "data" / "jobs.sqlite")
        made.append(Service(store, work or WorkSettings(), Catalog(), run=more.pop("run", run), **more))
        return made[-1]

    yield make
    gate.set()
    for service in made:
        service.close()


def submit(service: Service, title: str = "") -> str:
    return service.store.submit(Submission({"1": {}}, title=title)).id


def ended(service: Service, job_id: str) -> str:
    version = 0
    while (snapshot := service.board.wait(job_id, version, 5)) is not None and snapshot.status == "running":
        version = snapshot.version
    return service.store.get(job_id).status.value


def test_it_makes_its_folders_and_works(make, tmp_path) -> None:
    service = make()
    assert service.state()[0] == STARTING
    assert all((tmp_path / "data" / name).is_dir() for name in FOLDERS)
    service.start()
    assert service.state() == (READY, "")
    assert ended(service, submit(service, "quick")) == "succeeded"


def test_draining_lets_the_running_job_finish_and_begins_no_other(make, gate) -> None:
    service = make()
    service.start()
    first, second = submit(service), submit(service)
    assert service.board.wait(first, 0, 5)
    service.drain(30)
    assert service.state()[0] == DRAINING
    assert not service.wait(0.05)
    gate.set()
    assert service.wait(5)
    assert [service.store.get(one).status for one in (first, second)] == ["succeeded", "queued"]
    assert service.failure == ""


def test_what_does_not_finish_in_time_goes_back_into_the_line(make) -> None:
    service = make()
    service.start()
    job = submit(service)
    assert service.board.wait(job, 0, 5)
    service.drain(0.05)
    assert service.wait(5)
    assert (service.store.get(job).status, service.store.get(job).attempts) == ("queued", 0)


def test_a_second_one_in_the_same_place_is_refused(make) -> None:
    make().start()
    with pytest.raises(StorageError, match=r"works in .* already"):
        make().start()


def test_with_nothing_more_to_do_it_ends_if_it_should(make) -> None:
    service = make(ends_when_empty=True)
    jobs = [submit(service, "quick") for _ in range(3)]
    service.start()
    assert service.wait(5)
    assert {service.store.get(job).status for job in jobs} == {"succeeded"}


def test_a_worker_that_breaks_is_told_of(make, monkeypatch) -> None:
    service = make()
    monkeypatch.setattr(service.worker, "run_forever", lambda stop: 1 / 0)
    service.start()
    assert service.wait(5)
    assert service.state() == (DRAINING, "The worker has ended: ZeroDivisionError")
    assert service.failure


def test_memory_is_given_back_after_a_while_without_work_and_when_somebody_asks(make, monkeypatch) -> None:
    service = make(WorkSettings(idle_unload_seconds=10))
    released = []
    monkeypatch.setattr(service.runner, "release", lambda: released.append(1))
    for seconds in (0, 9.9, 10, 11, 500):
        service._idle(seconds)
    assert len(released) == 1
    service._idle(0)
    service._idle(10)
    assert len(released) == 2
    service.release()
    service._run_one = lambda *_: Outcome()
    service._run(SimpleNamespace(workflow={}), None, None, None)
    assert len(released) == 3


def test_the_models_of_the_next_job_are_read_meanwhile_if_they_are_others(make, gate, tmp_path, monkeypatch) -> None:
    wanted: list[Path] = []
    monkeypatch.setattr("jobs.service.look_ahead", wanted.extend)
    service = make()
    folder = tmp_path / "data" / "models" / "checkpoints"
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).touch()
    names = ("a.safetensors", "a.safetensors", "b.safetensors", "gone.safetensors")
    jobs = [service.store.submit(Submission({"4": {"inputs": {"ckpt_name": name}}})).id for name in names]
    gate.set()
    service.start()
    assert [ended(service, job_id) for job_id in jobs] == ["succeeded"] * 4
    for thread in [one for one in threading.enumerate() if one.name == "looking ahead"]:
        thread.join()
    assert wanted == [folder / "b.safetensors"]


def test_who_comes_next_is_known(make) -> None:
    service = make()
    assert service.runner.upcoming() is None
    first, second = submit(service, "first"), submit(service, "second")
    assert service.runner.upcoming().id == first
    service.store.move(second, to="front")
    assert service.runner.upcoming().id == second
    service.store.pause()
    assert service.runner.upcoming() is None
    service.store.resume()
    service.drain(10)
    assert service.runner.upcoming() is None


def test_old_results_go_at_the_start(make, tmp_path) -> None:
    service = make(WorkSettings(keep_days=0))
    old = submit(service)
    service.store.cancel(old)
    service.store.database.write("UPDATE jobs SET ended = 1")
    service.start()
    service.close()
    assert make().store.list_jobs().jobs == []


def test_before_the_first_job_nobody_knows_the_device(make) -> None:
    service = make()
    assert (service.device(), service.cache_counts()) == (None, (0, 0))


def test_an_executor_is_closed_by_the_thread_that_started_it(make, monkeypatch) -> None:
    """What it has begun as processes of its own may end with that thread, and would have to be waited for in vain."""
    service, seen = make(), []
    for name in ("start", "close"):
        monkeypatch.setattr(service.runner, name, lambda name=name: seen.append((name, threading.current_thread().name)))
    service.start()
    service.close()
    assert seen == [("start", "worker"), ("close", "worker")]
