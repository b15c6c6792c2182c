from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import pytest

from errors import Canceled, CheckpointError, MemoryExhaustedError, StorageError
from jobs.job import Job, JobStatus, Outcome, Output, Submission
from jobs.progress import Board, JobEvent
from jobs.store import JobStore
from jobs.worker import Run, Worker

DONE = Outcome({"9": {"images": [{"filename": "a.png"}]}}, device="cpu")


def succeed(job: Job, report, is_canceled, journal) -> Outcome:
    return DONE


def raising(error: BaseException) -> Run:
    def run(job, report, is_canceled, journal):
        raise error

    return run


def until_canceled(job, report, is_canceled, journal) -> Outcome:
    """Works in steps until it should stop, as a sampler does."""
    for step in range(1000):
        report("progress", {"node_id": "3", "stage": "still", "step": step, "total": 1000})
        if is_canceled():
            raise Canceled
    return DONE


@pytest.fixture
def board(clock) -> Board:
    return Board(clock)


@pytest.fixture
def events(board) -> list[JobEvent]:
    events: list[JobEvent] = []
    board.subscribe(events.append)
    return events


@pytest.fixture
def store(path, clock, board):
    with contextlib.closing(JobStore(path, clock, tell=board.publish)) as store:
        yield store


@pytest.fixture
def worker(store, board, clock) -> Callable[..., Worker]:
    def worker(run: Run = succeed, **values: object) -> Worker:
        return Worker(store, run, board, steady=clock, **values)

    return worker


def kinds(events: list[JobEvent]) -> str:
    return " ".join(event.kind for event in events)


# stepped by hand


def test_a_step_does_one_job(store, submit, worker, events):
    first, second = submit(), submit()
    one = worker()
    assert one.step() == store.get(first.id)
    assert store.get(first.id).files == (Output("9", "images", "a.png"),)
    assert store.get(second.id).status == "queued"
    assert one.step().id == second.id
    assert one.step() is None
    assert kinds(events) == "queued queued started succeeded started succeeded"


def test_what_a_run_reports_is_told_in_order(submit, worker, events, board, clock):
    def run(job, report, is_canceled, journal):
        report("cached", {"nodes": ["4"]})
        report("node", {"node_id": "3"})
        clock.advance(2)
        report("progress", {"node_id": "3", "stage": "still", "step": 1, "total": 20})
        assert board.newest(job.id).seconds == 2
        report("output", {"node_id": "9", "ui": {}})
        assert journal.found("9", "k") is None
        assert not is_canceled()
        return DONE

    submit()
    assert worker(run).step().status == "succeeded"
    assert kinds(events) == "queued started cached node progress output succeeded"


def test_an_error_that_a_person_can_mend_is_kept_with_its_advice(submit, worker):
    error = MemoryExhaustedError("The card is full.", "Use fewer frames.")
    error.node, error.details = "13", {"phase": "motion"}
    submit()
    job = worker(raising(error)).step()
    assert (job.status, job.error.code, job.error.message, job.error.hint) == (
        "failed", "out_of_memory", "The card is full.", "Use fewer frames.",
    )  # fmt: skip
    assert (job.error.node, job.error.details, job.log) == ("13", {"phase": "motion"}, "")


@pytest.mark.parametrize("error", [RuntimeError("secret \ud800"), MemoryError(), KeyError("x")])
def test_a_mistake_of_ours_gets_a_number_and_the_worker_goes_on(submit, worker, caplog, error):
    submit()
    submit()
    one = worker(lambda *given: raising(error)(*given) if given[0].number == 1 else DONE)
    job = one.step()
    assert (job.status, job.error.code) == ("failed", "internal")
    number = job.error.details["id"]
    assert number in job.error.message
    assert number in caplog.text
    assert type(error).__name__ in job.log
    assert "secret" not in job.error.message + job.error.hint
    assert one.step().status == "succeeded"


@pytest.mark.parametrize("outcome", [None, Outcome({"9": object()}), Outcome(files=(Output("9", "images", "\ud800.png"),)), "text"])
def test_an_outcome_that_cannot_be_written_down_is_a_mistake_of_ours_too(submit, worker, outcome):
    submit()
    one = worker(lambda *_: outcome)
    assert one.step().error.code == "internal"
    assert one.step() is None


def test_what_was_made_before_the_end_is_kept(submit, worker):
    def run(job, report, is_canceled, journal):
        report("cached", {"nodes": ["4"]})
        report("output", {"node_id": "9", "ui": {"images": [{"filename": "still.png"}]}})
        raise CheckpointError("The motion checkpoint is damaged.")

    submit()
    job = worker(run).step()
    assert (job.files, job.cached) == ((Output("9", "images", "still.png"),), ("4",))


def test_the_stages_of_a_run_that_fails_are_measured_up_to_its_end(store, submit, worker, clock):
    def run(job, report, is_canceled, journal):
        clock.advance(30)  # PyTorch starts
        for stage, seconds in (("loading", 5), ("still", 4), ("still", 2), ("loading", 1), ("motion", 10)):
            report("progress", {"node_id": "3", "stage": stage, "step": 0, "total": 1})
            clock.advance(seconds)
        raise RuntimeError

    submit("ann")
    job = worker(run).step()
    assert job.stage_seconds == {"loading": 6, "still": 6, "motion": 10}
    assert [usage.seconds for usage in store.usage()] == [16]


# canceling and coming to an end


def test_a_cancel_stops_the_run(store, submit, worker, events):
    def run(job, report, is_canceled, journal):
        assert not is_canceled()
        store.cancel(job.id)
        return until_canceled(job, report, is_canceled, journal)

    submit()
    assert worker(run).step().status == "canceled"
    assert kinds(events) == "queued started progress canceled"


def test_a_cancel_that_comes_too_late_loses(store, submit, worker):
    def run(job, *_):
        store.cancel(job.id)
        return DONE

    submit()
    assert worker(run).step().status == "succeeded"


def test_a_cancel_and_the_end_at_once_end_the_job_once(store, worker, events):
    for _ in range(20):
        job = store.submit(Submission({}))
        running = threading.Event()

        def run(job, report, is_canceled, journal, running=running):
            running.set()
            if is_canceled():
                raise Canceled
            return DONE

        thread = threading.Thread(target=lambda running=running, job=job: running.wait(10) and store.cancel(job.id))
        thread.start()
        worker(run).step()
        thread.join()
        assert store.get(job.id).status in ("succeeded", "canceled")
        assert sum(event.job_id == job.id and event.kind in ("succeeded", "canceled") for event in events) == 1


def test_a_store_that_cannot_be_asked_does_not_cancel(submit, worker, monkeypatch, store):
    def fail(job_id):
        raise StorageError("Busy.")

    monkeypatch.setattr(store, "is_cancel_requested", fail)
    submit()
    assert worker(lambda job, report, is_canceled, journal: DONE if not is_canceled() else None).step().status == "succeeded"


def test_who_drains_begins_nothing_new(store, submit, worker):
    submit()
    one = worker()
    one.drain(60)
    assert one.step() is None
    assert store.counts()[JobStatus.QUEUED] == 1


def test_what_runs_may_finish_while_draining(submit, worker, clock):
    def run(job, report, is_canceled, journal):
        one.drain(60)
        clock.advance(59)
        return until_canceled(job, report, is_canceled, journal)

    submit()
    one = worker(run)
    assert one.step().status == "succeeded"


def test_what_takes_longer_waits_again_and_is_not_canceled(store, submit, worker, clock, events):
    def run(job, report, is_canceled, journal):
        one.drain(60)
        one.drain(600)  # never longer than was said first
        clock.advance(60)
        return until_canceled(job, report, is_canceled, journal)

    submit()
    one = worker(run)
    job = one.step()
    assert (job.status, job.attempts, job.started) == ("queued", 0, None)
    assert kinds(events) == "queued started progress requeued"
    assert worker().step().id == job.id


def test_what_somebody_wants_canceled_is_canceled_even_while_draining(store, submit, worker):
    def run(job, report, is_canceled, journal):
        one.stop()
        store.cancel(job.id)
        return until_canceled(job, report, is_canceled, journal)

    submit()
    one = worker(run)
    assert one.step().status == "canceled"


@pytest.mark.parametrize(("is_canceled", "status"), [(False, "queued"), (True, "canceled")])
def test_ctrl_c_goes_up_and_loses_nothing(store, submit, worker, is_canceled, status):
    def run(job, *_):
        if is_canceled:
            store.cancel(job.id)
        raise KeyboardInterrupt

    job = submit()
    with pytest.raises(KeyboardInterrupt):
        worker(run).step()
    assert (store.get(job.id).status, store.get(job.id).attempts) == (status, int(is_canceled))


# a store that does not take it


def test_an_ending_that_cannot_be_written_is_written_later(store, submit, worker, monkeypatch):
    finish, failures, runs = store.finish, [], []

    def fail_twice(job_id, outcome):
        if len(failures) < 2:
            failures.append(job_id)
            raise StorageError("The disk is full.")
        return finish(job_id, outcome)

    monkeypatch.setattr(store, "finish", fail_twice)
    first, second = submit(), submit()
    one = worker(lambda job, *_: runs.append(job.id) or DONE)
    for _ in range(2):
        with pytest.raises(StorageError):
            one.step()
        assert store.get(first.id).status == "running"
    assert one.step().id == second.id
    assert store.get(first.id).status == "succeeded"
    assert runs == [first.id, second.id]


# a thread of its own


@pytest.fixture
def started(board):
    """A worker in a thread, ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(worker: Worker) -> threading.Thread:
            stop = threading.Event()
            thread = threading.Thread(target=worker.run_forever, args=(stop,))
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(worker.stop)
            stack.callback(stop.set)
            return thread

        yield start


def ended(board: Board, job_id: str) -> str:
    """Waits until the job has ended."""
    version, status = 0, "running"
    while status == "running":
        snapshot = board.wait(job_id, version, timeout=20)
        assert snapshot is not None, "nothing happened"
        version, status = snapshot.version, snapshot.status
    return status


def test_a_new_job_wakes_the_worker_at_once(submit, worker, started, board):
    started(worker(poll_seconds=600))
    assert ended(board, submit().id) == "succeeded"
    assert ended(board, submit().id) == "succeeded"


def test_it_goes_on_when_it_is_no_longer_paused(store, submit, worker, started, board):
    paused = threading.Event()
    store.pause()
    job = submit()
    started(worker(poll_seconds=600, on_pause=paused.set))
    assert paused.wait(10)
    assert store.get(job.id).status == "queued"
    store.resume()
    assert ended(board, job.id) == "succeeded"


def test_idle_time_is_told_and_a_hook_that_fails_does_no_harm(clock, worker, started, submit, board, caplog):
    told, enough = [], threading.Event()

    def on_idle(seconds: float) -> None:
        told.append(seconds)
        clock.advance(10)
        if len(told) > 3:
            enough.set()
        raise ValueError

    started(worker(poll_seconds=0.001, on_idle=on_idle))
    assert enough.wait(10)
    assert told[:4] == [0, 10, 20, 30]
    assert ended(board, submit().id) == "succeeded"
    assert "What should be done in idle time failed" in caplog.text


def test_draining_ends_it_and_lets_the_next_process_work(path, worker, started):
    one = worker(poll_seconds=0.01)
    thread = started(one)
    one.drain(60)
    thread.join(10)
    assert not thread.is_alive()
    with contextlib.closing(JobStore(path)) as other:
        other.recover()


def test_a_second_one_on_the_same_database_is_refused(path, board, worker, store):
    store.recover()
    with contextlib.closing(JobStore(path)) as other, pytest.raises(StorageError, match="works in"):
        Worker(other, succeed, board).run_forever(threading.Event())


def test_a_database_that_fails_for_a_while_does_not_end_it(store, submit, worker, started, board, monkeypatch, caplog):
    claim, failed = store.claim, threading.Event()

    def fail_once(name):
        if not failed.is_set():
            failed.set()
            raise StorageError("The disk is full.")
        return claim(name)

    monkeypatch.setattr(store, "claim", fail_once)
    job = submit()
    started(worker(poll_seconds=0.01))
    assert ended(board, job.id) == "succeeded"
    assert "The job database cannot be used: The disk is full." in caplog.text


def test_a_thousand_jobs_leave_nothing_open(store, worker, board):
    one = worker()
    store.submit_many([Submission({}, owner=f"o{number % 3}") for number in range(1000)])
    for _ in range(20):
        one.step()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208
    while one.step():
        pass
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before  # noqa: PTH208
    assert store.counts()[JobStatus.SUCCEEDED] == 1000
    assert board.running() == []


def test_a_kill_in_the_middle_of_a_run_publishes_each_file_once(store, path, child):
    job = store.submit(Submission({}))
    code = """
from jobs.progress import Board
from jobs.worker import Worker
from pathlib import Path
def run(job, report, is_canceled, journal):
    file = Path(store.database.path).with_name("a.png")
    if journal.found("9", "k") is None:
        print("published", flush=True)
        file.touch()
        journal.written("9", "k", {}, [file])
    print("out", flush=True)
    if job.attempts == 1:
        time.sleep(60)
    return Outcome()
store.recover()
Worker(store, run, Board()).step()
print("done", flush=True)
"""
    first = child(code)
    assert [first.stdout.readline() for _ in range(2)] == ["published\n", "out\n"]
    first.kill()
    first.wait()
    assert child(code).communicate(timeout=60)[0].split() == ["out", "done"]
    job = store.get(job.id)
    assert (job.status, job.attempts) == ("succeeded", 2)
    assert [entry.is_published for entry in store.publications(job.id, "9")] == [True]
