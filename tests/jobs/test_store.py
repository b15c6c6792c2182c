from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable

import pytest

from errors import JobStateError, StorageError, UnknownJobError
from jobs.job import Failure, Job, JobStatus, Outcome, Output, Submission
from jobs.progress import JobEvent
from jobs.store import JobStore

WRONG = Failure("bad_input", "No.", "Yes.", "7", {"value": 3})


@pytest.fixture
def in_status(store: JobStore, submit) -> Callable[[str], Job]:
    def in_status(status: str) -> Job:
        job = submit()
        if status == "queued":
            return job
        assert store.claim("test").id == job.id
        ends = {"succeeded": lambda: store.finish(job.id, Outcome()), "failed": lambda: store.fail(job.id, WRONG)}
        ends |= {"canceled": lambda: store.finish_canceled(job.id), "running": lambda: True}
        assert ends[status]()
        return store.get(job.id)

    return in_status


# every change of status, legal or not

CHANGES: dict[str, tuple[Callable[[JobStore, str], object], dict[str, str]]] = {
    "finish": (lambda store, job_id: store.finish(job_id, Outcome()), {"running": "succeeded"}),
    "fail": (lambda store, job_id: store.fail(job_id, WRONG), {"running": "failed"}),
    "finish_canceled": (lambda store, job_id: store.finish_canceled(job_id), {"running": "canceled"}),
    "requeue": (lambda store, job_id: store.requeue(job_id), {"running": "queued"}),
    "cancel": (lambda store, job_id: store.cancel(job_id), {"queued": "canceled", "running": "running"}),
}
RAISING: dict[str, tuple[Callable[[JobStore, str], object], dict[str, str]]] = {
    "retry": (lambda store, job_id: store.retry(job_id), {"failed": "queued", "canceled": "queued"}),
    "delete": (lambda store, job_id: store.delete(job_id), {one: one for one in ("succeeded", "failed", "canceled")}),
    "move": (lambda store, job_id: store.move(job_id), {"queued": "queued"}),
}


@pytest.mark.parametrize(("name", "status"), list(itertools.product(CHANGES, JobStatus)))
def test_a_change_that_is_not_allowed_changes_nothing(store, in_status, name, status):
    change, allowed = CHANGES[name]
    job = in_status(status)
    assert change(store, job.id) is (status in allowed)
    after = store.get(job.id)
    assert after.status == allowed.get(status, status)
    assert status in allowed or after == job


@pytest.mark.parametrize(("name", "status"), list(itertools.product(RAISING, JobStatus)))
def test_a_wish_that_is_not_allowed_is_answered(store, in_status, name, status):
    change, allowed = RAISING[name]
    job = in_status(status)
    if status in allowed:
        change(store, job.id)
        assert store.get(job.id).status == allowed[status]
        return
    with pytest.raises(JobStateError, match=rf"The job {job.id} is {status}, so it cannot be \w+.*\. This works for jobs that are"):
        change(store, job.id)
    assert store.get(job.id) == job


@pytest.mark.parametrize("name", [*CHANGES, *RAISING, "get"])
def test_an_unknown_job_is_said(store, name):
    change = (CHANGES | RAISING | {"get": (JobStore.get, {})})[name][0]
    with pytest.raises(UnknownJobError, match="There is no job 'gone'"):
        change(store, "gone")


# endings


def test_an_ending_keeps_what_there_is_to_know(store, submit, clock):
    job = submit()
    store.claim("test")
    clock.advance(8.5)
    outcome = Outcome(
        {"9": {"images": [{"filename": "a.png", "subfolder": "s", "type": "output"}]}},
        ["a note"], {"still": 3.0}, 123, "cuda", ["4"], (Output("9", "images", "a.png", "s", "output", 77),),
    )  # fmt: skip
    assert store.finish(job.id, outcome)
    job = store.get(job.id)
    assert (job.status, job.ended, job.run_seconds) == (JobStatus.SUCCEEDED, clock.now, 8.5)
    assert (job.outputs, job.warnings, job.stage_seconds, job.peak_bytes) == (outcome.outputs, ("a note",), {"still": 3.0}, 123)
    assert (job.device, job.cached, job.files) == ("cuda", ("4",), outcome.files)


def test_a_failure_keeps_its_reason_and_what_was_done(store, in_status):
    job = in_status("running")
    assert store.fail(job.id, WRONG, Outcome({"9": {"images": [{"filename": "a.png"}]}}), "Traceback")
    job = store.get(job.id)
    assert (job.error, job.log, job.files) == (WRONG, "Traceback", (Output("9", "images", "a.png"),))


def test_a_request_to_stop_that_comes_too_late_does_not_undo_a_success(store, in_status):
    job = in_status("running")
    assert not store.is_cancel_requested(job.id)
    assert store.cancel(job.id)
    assert store.is_cancel_requested(job.id)
    assert store.finish(job.id, Outcome())
    assert store.get(job.id).status == "succeeded"
    assert not store.cancel(job.id)


def test_a_job_that_somebody_wants_stopped_does_not_wait_again(store, in_status):
    job = in_status("running")
    store.cancel(job.id)
    assert not store.requeue(job.id)
    assert store.finish_canceled(job.id)


def test_a_job_that_is_put_back_is_the_next(store, submit):
    first = submit("ann").id
    submit("ann")
    submit("bob")
    assert store.claim("test").id == first
    assert store.requeue(first)
    assert store.positions()[first] == 0
    assert store.claim("test").id == first
    assert store.get(first).attempts == 1


def test_of_many_endings_at_once_one_wins(store, submit):
    for _ in range(10):
        job, won = submit(), []
        store.claim("test")
        barrier = threading.Barrier(4)

        def end(name: str, job=job, won=won, barrier=barrier) -> None:
            barrier.wait()
            if CHANGES[name][0](store, job.id):
                won.append(name)

        threads = [threading.Thread(target=end, args=(name,)) for name in ("finish", "fail", "finish_canceled", "requeue")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get(job.id).status == CHANGES[won[0]][1]["running"]
        store.cancel(job.id)


def test_a_cancel_and_a_claim_at_once_do_not_both_win(store, submit):
    for _ in range(20):
        job, claimed = submit(), []
        barrier = threading.Barrier(2)

        def claim(claimed=claimed, barrier=barrier) -> None:
            barrier.wait()
            claimed.append(store.claim("test"))

        thread = threading.Thread(target=claim)
        thread.start()
        barrier.wait()
        assert store.cancel(job.id)
        thread.join()
        after = store.get(job.id)
        assert after.status == ("canceled" if claimed == [None] else "running")
        assert after.is_cancel_requested
        store.finish_canceled(job.id)


def test_every_change_is_told_in_order_with_the_job_as_it_then_is(path):
    events: list[JobEvent] = []
    with contextlib.closing(JobStore(path, tell=events.append)) as store:
        a, b = store.submit_many([Submission({}), Submission({})])
        store.claim("test")
        store.requeue(a.id)
        store.claim("test")
        store.finish(a.id, Outcome())
        store.finish(a.id, Outcome())
        store.claim("test")
        store.fail(b.id, WRONG)
        store.retry(b.id)
        store.cancel(b.id)
        store.pause()
        store.resume()
        store.delete(a.id)
    kinds = "queued queued started requeued started succeeded started failed queued canceled paused resumed deleted"
    assert [event.kind for event in events] == kinds.split()
    told = {"started": "running", "requeued": "queued", "deleted": "succeeded"}
    assert all(event.data["job"].status == told.get(event.kind, event.kind) for event in events if event.job_id)


def test_nothing_is_told_of_a_change_that_did_not_reach_the_disk(path):
    events: list[JobEvent] = []
    with contextlib.closing(JobStore(path, tell=events.append)) as store:
        job = store.submit(Submission({}))
        store.claim("test")
        events.clear()
        for idle in store.database._idle:
            idle.execute(f"PRAGMA max_page_count = {idle.execute('PRAGMA page_count').fetchone()[0]}")
        for write in (
            lambda: store.finish(job.id, Outcome(warnings=["x" * 100_000])),
            lambda: store.fail(job.id, WRONG, log="x" * 100_000),
            lambda: store.set_title(job.id, "x" * 100_000),
        ):
            with pytest.raises(StorageError, match="is full"):
                write()
        assert events == []
        assert store.get(job.id).status == "running"
        assert store.usage() == []


# after a crash


def test_what_ran_when_the_process_was_killed_waits_again_at_its_place(store, child, submit):
    first, second = submit(), submit()
    for attempt in (1, 2):
        process = child("store.recover()\nprint(store.claim('x').id, flush=True)\ntime.sleep(60)")
        assert process.stdout.readline().strip() == first.id
        with pytest.raises(StorageError, match=rf"Another Stillmotion \(process {process.pid}\) works in"):
            store.recover()
        process.send_signal(signal.SIGKILL)
        process.wait()
        (lost,) = store.recover()
        store.worker_lock.release()
        assert lost.id == first.id
        assert lost.attempts == attempt
        if attempt == 1:
            assert lost.status == "queued"
            assert store.positions() == {first.id: 0, second.id: 1}
    assert (lost.status, lost.error.code, lost.error.details["attempts"]) == ("failed", "crashed", 2)
    assert "each of the 2 times" in lost.error.message
    assert store.claim("test").id == second.id


def test_every_submission_that_returned_is_there_after_a_kill(store, child):
    process = child("while True: print(store.submit(Submission({'1': {}})).id, flush=True)")
    ids = [process.stdout.readline().strip() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    ids += process.communicate()[0].split()
    found = {job.id for job in store.list_jobs(limit=10_000).jobs}
    assert set(ids) <= found
    assert len(found) <= len(ids) + 1


def test_one_that_should_have_been_stopped_is_canceled(path):
    with contextlib.closing(JobStore(path)) as store:
        job = store.submit(Submission({}))
        store.claim("test")
        store.cancel(job.id)
    with contextlib.closing(JobStore(path)) as later:
        assert [job.status for job in later.recover()] == ["canceled"]


def test_what_runs_in_this_process_is_not_taken_for_lost(store, submit):
    job = submit()
    store.claim("test")
    assert store.recover() == []
    assert store.get(job.id).status == "running"


def test_a_clock_set_back_before_a_restart_gives_no_negative_times(path, clock):
    with contextlib.closing(JobStore(path, clock)) as store:
        job = store.submit(Submission({}))
        store.claim("test")
    clock.advance(-3600)
    with contextlib.closing(JobStore(path, clock)) as later:
        later.recover()
        later.claim("test")
        later.finish(job.id, Outcome())
        job = later.get(job.id)
        assert (job.status, job.queued_seconds, job.run_seconds) == ("succeeded", 0, 0)
