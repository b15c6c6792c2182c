"""Whole jobs on several machines: a cluster of Ray's whose nodes are all here, on CPUs, with the tiny models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.job import JobStatus
from jobs.service_settings import ClusterSettings
from jobs.store import JobStore
from jobs.submitting import prepare
from tests.jobs.far import PATIENCE, SMALL, House, add_node, cluster_of, use_token
from workflows.folders import Folders
from workflows.plugins import all_nodes
from workflows.templates import fill, find_template

use_token()  # before Ray is imported: it looks but once
pytest.importorskip("ray", reason="wants Ray: make test-ray")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
OWNERS = ("anna", "bela", "cleo", "dora")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    use_token()
    with cluster_of(nodes=2) as made:
        yield made


@pytest.fixture
def house(cluster: Any, data_dir: Path) -> Iterator[House]:
    with House(data_dir, ClusterSettings(cluster.address, 0, 2, 5.0, 0)) as made:
        yield made


def replicas(house: House) -> int:
    from ray import serve

    (app,) = serve.status().applications.values()
    return app.deployments["replica"].replica_states.get("RUNNING", 0)


def check_account(house: House, *job_ids: str) -> None:
    """Every job has ended once and well; every file that is there belongs to one of them, and all of theirs are there."""
    jobs = house.ended(*job_ids)
    assert [(job.status, job.error) for job in jobs] == [(JobStatus.SUCCEEDED, None)] * len(jobs)
    assert all(house.kinds(job.id).count("succeeded") == 1 for job in jobs)
    listed = Counter(house.listed())
    assert set(listed.values()) == {1}
    assert listed.keys() == house.files().keys()


def test_none_is_there_until_a_job_comes_then_two_then_none_again_and_the_films_are_those_of_this_process(
    house: House, tmp_path: Path, tiny_models: Path
) -> None:
    house.until(lambda: house.service.state()[0] == "ready")
    assert replicas(house) == 0
    asked = [(owner, number) for owner in OWNERS for number in range(5)]
    same = {"frames": 3, "motion_steps": 2, "steps": 2}
    film = lambda owner, number: same | {"prompt": f"{owner} {number}", "prefix": f"{owner}{number}", "seed": number}  # noqa: E731
    house.store.pause()
    far = {house.submit(owner, **film(owner, number)): owner for owner, number in asked}
    house.store.resume()
    house.until(lambda: bool(house.service.board.running()))
    waking = house.service.board.running()[0].job_id
    house.until(lambda: any(event.job_id == waking and event.data.get("stage") == "waking" for event in house.events))
    check_account(house, *far)
    assert {event.data["stage"] for event in house.events if event.kind == "progress"} >= {"waking", "loading", "still", "motion"}

    started = [far[event.job_id] for event in house.events if event.kind == "started"]
    assert [set(started[turn : turn + 4]) for turn in range(0, 20, 4)] == [set(OWNERS)] * 5
    spread = Counter(pid for _, _, pid in house.places)
    assert len(spread) == 2
    assert min(spread.values()) >= 4
    assert len({node for _, node, _ in house.places}) == 2
    house.until(lambda: replicas(house) == 0)

    near_dir = tmp_path / "near"
    near_dir.mkdir()
    (near_dir / "models").symlink_to(tiny_models)
    with House(near_dir) as near, one_thread():
        near.ended(*[near.submit(owner, **film(owner, number)) for owner, number in asked])
        assert near.files() == house.files()


class one_thread:
    """As each replica has: sums of floating point numbers depend on it."""

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self.before)


def test_a_replica_that_is_killed_loses_nothing_and_its_job_goes_on_from_what_is_kept(house: House) -> None:
    victim = house.submit(motion_steps=40, prefix="victim")
    others = [house.submit("anna", prompt=f"other {number}") for number in range(3)]
    for kill in range(3):
        since = len(house.events)
        house.reaches(victim, "motion", 3, since)
        os.kill(house.pid(victim), signal.SIGKILL)
        found = lambda since=since: [e for e in house.events[since:] if (e.job_id, e.kind) == (victim, "requeued")]  # noqa: E731
        house.until(lambda found=found: bool(found()))
        assert found()[0].data["job"].attempts == kill + 1  # as it was then: it may have begun again since
    check_account(house, victim, *others)
    assert house.store.get(victim).attempts == 4
    assert {"3", "8"} <= set(house.store.get(victim).cached)  # the still was made once


def test_a_node_that_dies_loses_nothing(house: House, cluster: Any) -> None:
    victim = house.submit(motion_steps=60, prefix="victim")
    house.reaches(victim, "motion", 3)
    dying = next(node for node in cluster.places if node.node_id.startswith(house.places[-1][1]))
    since = len(house.events)
    cluster.remove_node(dying, allow_graceful=False)
    cluster.places = [node for node in cluster.places if node is not dying] + [add_node(cluster)]
    house.until(lambda: any((e.job_id, e.kind) == (victim, "requeued") for e in house.events[since:]))
    check_account(house, victim, house.submit("anna"))


class Cut:
    """A stream that breaks off when it is told to, as if its replica had died. The replica itself knows nothing of it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.is_cut = stream, threading.Event()

    def __iter__(self) -> Iterator[Any]:
        import ray

        from jobs.afar import _items

        for item in _items(self.stream):
            if self.is_cut.is_set():
                raise ray.exceptions.ActorDiedError
            if item is not None:
                yield item


def test_what_a_lost_replica_says_late_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held while all believe that it is gone, and goes on when another has done the job."""
    streams, submit = [], house.service.runner.submit

    def cut(*given: Any) -> Cut:
        streams.append(Cut(submit(*given)))
        return streams[-1]

    monkeypatch.setattr(house.service.runner, "submit", cut)
    slow = house.submit(motion_steps=40, prefix="slow")
    house.reaches(slow, "motion", 3)
    held = house.pid(slow)
    os.kill(held, signal.SIGSTOP)
    try:
        streams[0].is_cut.set()
        check_account(house, slow)
        assert house.pid(slow) != held
    finally:
        os.kill(held, signal.SIGCONT)
    check_account(house, slow, house.submit("anna"), house.submit("bela"))  # and it is of use again, or another in its place
    assert house.store.get(slow).attempts == 2


def test_a_run_that_is_closed_is_answered_nothing(cluster: Any, house: House) -> None:
    import ray

    from jobs.dialog import Closed
    from jobs.replica import far_journal

    house.until(lambda: house.service.state()[0] == "ready")
    desk, said = house.service.runner.desk, []
    journal = far_journal(lambda *item: said.append(item), desk, "token")
    with pytest.raises(Closed):
        journal.told("9", "k", Path("a"), Path("b"))
    ray.get(desk.open.remote("token"))
    desk.leave.remote("token", 2, "answer")
    assert journal.found("9", "k") == "answer"
    desk.close.remote("token")
    with pytest.raises(Closed):
        journal.told("9", "k", Path("a"), Path("b"))
    assert [item[:3] for item in said] == [("asked", 1, "told"), ("asked", 2, "found"), ("asked", 3, "told")]


def test_a_front_that_is_killed_while_replicas_work_goes_on_where_it_was(cluster: Any, data_dir: Path) -> None:
    catalog, store = all_nodes(data_dir, False), JobStore(data_dir / "jobs.sqlite")

    def submit(prefix: str, **values: Any) -> str:
        graph = fill(find_template("text_to_film"), SMALL | values | {"prefix": prefix})
        return store.submit(prepare(graph, catalog, Folders(data_dir))[0]).id

    jobs = [submit(f"film{number}", motion_steps=120, seed=number) for number in range(3)]
    command = [sys.executable, str(ROOT / "app.py"), "work", "--until-empty", "--data-dir", str(data_dir), "--device", "cpu"]
    command += ["--executor", "ray", "--ray-address", cluster.address, "--replica-idle", "5"]
    is_kept = lambda: len(list((data_dir / "cache").glob("*.safetensors"))) >= 2  # noqa: E731
    for _ in range(2):
        with subprocess.Popen(command, stderr=subprocess.PIPE) as front:
            wait_for(lambda front=front: front.poll() is not None or (is_kept() and list(store.open_ids(None)) and running(store)))
            assert front.poll() is None, front.stderr.read().decode()
            front.kill()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    found = store.get_many(jobs)
    assert [(job.status, job.error) for job in found] == [(JobStatus.SUCCEEDED, None)] * 3
    listed = Counter(file.filename for job in found for file in job.files)
    assert set(listed.values()) == {1}
    assert listed.keys() == {path.name for path in (data_dir / "output").iterdir()}
    assert any("3" in job.cached for job in found)
    assert max(job.attempts for job in found) >= 2
    store.close()


def test_a_cluster_of_its_own_has_a_token_that_only_its_owner_reads(data_dir: Path) -> None:
    store = JobStore(data_dir / "jobs.sqlite")
    graph = fill(find_template("text_to_film"), SMALL)
    job_id = store.submit(prepare(graph, all_nodes(data_dir, False), Folders(data_dir))[0]).id
    command = [sys.executable, str(ROOT / "app.py"), "work", "--until-empty", "--data-dir", str(data_dir), "--device", "cpu"]
    command += ["--executor", "ray", "--max-replicas", "1"]
    slow = ("RAY_raylet_start_wait_time_s", "RAY_agent_register_timeout_ms", "RAY_health_check_timeout_ms")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or name in slow}
    done = subprocess.run(command, env=clean, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert store.get(job_id).status == JobStatus.SUCCEEDED
    token = data_dir / "ray.token"
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text() not in done.stderr
    store.close()


def running(store: JobStore) -> bool:
    return bool(store.counts()[JobStatus.RUNNING])


def wait_for(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_who_waits_for_a_replica_can_be_canceled(house: House) -> None:
    house.until(lambda: house.service.state()[0] == "ready")
    job_id = house.submit()
    house.until(lambda: bool(house.service.board.running()))
    began = time.monotonic()
    house.store.cancel(job_id)
    assert house.ended(job_id)[0].status == JobStatus.CANCELED
    assert time.monotonic() - began < 20  # and not when a replica is there
    check_account(house, house.submit())
