from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from errors import Canceled
from jobs.crew import Crew
from jobs.job import Job, Outcome, Submission
from jobs.progress import Board, JobEvent
from jobs.store import JobStore
from jobs.worker import Lost


@pytest.fixture
def events() -> list[JobEvent]:
    return []


@pytest.fixture
def board(events: list[JobEvent]) -> Board:
    board = Board()
    board.subscribe(events.append)
    return board


@pytest.fixture
def store(path, board) -> Iterator[JobStore]:
    with contextlib.closing(JobStore(path, tell=board.publish)) as store:
        yield store


class Bench:
    """Jobs that run until `go` is set; who runs is in `running`."""

    def __init__(self) -> None:
        self.go, self.running, self.most = threading.Event(), set(), 0

    def __call__(self, job: Job, report, is_canceled, journal) -> Outcome:
        self.running.add(job.id)
        self.most = max(self.most, len(self.running))
        try:
            while not self.go.wait(0.005):
                if is_canceled():
                    raise Canceled
            return Outcome()
        finally:
            self.running.discard(job.id)


def at_work(crew: Crew, stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=crew.run_forever, args=(stop,))
    thread.start()
    return thread


def wait_for(is_so) -> None:
    for _ in range(2000):
        if is_so():
            return
        threading.Event().wait(0.005)
    raise AssertionError


def test_so_many_jobs_run_side_by_side_in_the_order_of_the_line(store, board, events):
    bench, stop = Bench(), threading.Event()
    jobs = [store.submit(Submission({}, owner=owner)).id for owner in "aabb"]
    thread = at_work(Crew(store, bench, board, hands=2, poll_seconds=0.01), stop)
    wait_for(lambda: len(bench.running) == 2)
    assert bench.running == {jobs[0], jobs[2]}
    bench.go.set()
    wait_for(lambda: all(store.get(one).status == "succeeded" for one in jobs))
    stop.set()
    thread.join()
    assert bench.most == 2
    assert [event.job_id for event in events if event.kind == "started"][2:] in ([jobs[1], jobs[3]], [jobs[3], jobs[1]])


def test_while_one_works_nobody_is_idle(store, board):
    bench, stop, idle, paused = Bench(), threading.Event(), [], []
    crew = Crew(store, bench, board, hands=2, on_idle=idle.append, on_pause=lambda: paused.append(1), poll_seconds=0.005)
    job = store.submit(Submission({})).id
    thread = at_work(crew, stop)
    wait_for(lambda: crew.running == (job,))
    store.pause()
    idle.clear()
    threading.Event().wait(0.1)
    assert (idle, paused) == ([], [])
    bench.go.set()
    wait_for(lambda: idle and paused)
    stop.set()
    thread.join()


def test_told_to_stop_all_jobs_wait_again(store, board):
    bench, jobs = Bench(), [store.submit(Submission({})).id for _ in range(2)]
    crew = Crew(store, bench, board, hands=2, poll_seconds=0.01)
    thread = at_work(crew, threading.Event())
    wait_for(lambda: len(bench.running) == 2)
    crew.drain(0)
    assert crew.is_draining
    thread.join()
    assert crew.is_overdue
    assert [(store.get(one).status, store.get(one).attempts) for one in jobs] == [("queued", 0)] * 2


def test_if_one_breaks_all_end_and_the_lock_is_free(store, board, monkeypatch):
    crew = Crew(store, Bench(), board, hands=2, poll_seconds=0.01)
    monkeypatch.setattr(crew.workers[1], "work", lambda stop: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        crew.run_forever(threading.Event())
    other = JobStore(store.database.path)
    other.worker_lock.take()
    other.close()


def test_a_job_whose_doer_is_gone_waits_again_at_its_place_until_it_has_been_lost_too_often(store, board, events):
    store.max_attempts = 3
    first, second = (store.submit(Submission({})).id for _ in range(2))
    done, stop = [], threading.Event()

    def run(job: Job, *_) -> Outcome:
        done.append(job.id)
        if job.id == first:
            raise Lost("the machine")
        return Outcome()

    thread = at_work(Crew(store, run, board, hands=1, poll_seconds=0.01), stop)
    wait_for(lambda: store.get(second).status == "succeeded")
    stop.set()
    thread.join()
    assert done == [first, first, first, second]
    assert (store.get(first).status, store.get(first).error.code, store.get(first).attempts) == ("failed", "crashed", 3)
    assert [event.kind for event in events if event.job_id == first] == [
        "queued",
        "started",
        "requeued",
        "started",
        "requeued",
        "started",
        "failed",
    ]


def test_a_lost_job_that_should_have_stopped_is_canceled(store, board):
    def run(job: Job, *_) -> Outcome:
        store.cancel(job.id)
        raise Lost

    job, stop = store.submit(Submission({})).id, threading.Event()
    thread = at_work(Crew(store, run, board, hands=2, poll_seconds=0.01), stop)
    wait_for(lambda: store.get(job).status == "canceled")
    stop.set()
    thread.join()
