from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from errors import InputError, JobStateError, QueueFullError, StorageError, UnknownJobError
from jobs import database
from jobs.job import VERIFIES, Failure, JobStatus, Outcome, Output, Submission
from jobs.store import JobStore


def claimed(store: JobStore, count: int = 100) -> list[str]:
    """The titles of the next jobs, each claimed and finished."""
    titles = []
    while len(titles) < count and (job := store.claim("test")):
        titles.append(job.title)
        store.finish(job.id, Outcome())
    return titles


# submitting


def test_what_was_given_comes_back(store, clock):
    workflow = {"3": {"class_type": "KSampler", "inputs": {"seed": 2**64 - 1, "text": "水 \ud83d half", "model": ["4", 0]}}}
    given = Submission(
        workflow, "ann", "水", ("a", "b"), extra={"client_id": "c", "n": None}, targets=("9",), work="20x512x512", job_id="mine"
    )
    job = store.submit(given)
    assert job == store.get("mine")
    assert (job.workflow, job.extra, job.owner, job.title, job.tags) == (workflow, given.extra, "ann", "水", ("a", "b"))
    assert (job.targets, job.work, job.status, job.created, job.attempts) == (("9",), "20x512x512", "queued", clock.now, 0)
    assert (job.started, job.ended, job.error, job.files, job.batch, job.deleted_at) == (None, None, None, (), None, None)


def test_ids_are_drawn_unless_given_and_never_used_twice(store, submit):
    assert submit().id != submit().id
    submit(job_id="mine")
    with pytest.raises(InputError, match="already a job 'mine'"):
        submit(job_id="mine")
    for bad in ("", "a\nb", "x" * 201, 7):
        with pytest.raises(InputError, match="cannot be used"):
            submit(job_id=bad)


def test_several_come_in_together_or_not_at_all(store):
    jobs = store.submit_many([Submission({}, title=title) for title in "abc"])
    assert len({job.batch for job in jobs}) == 1
    assert jobs[0].batch
    assert [job.title for job in jobs] == ["a", "b", "c"]
    with pytest.raises(InputError):
        store.submit_many([Submission({}), Submission({}, job_id=jobs[0].id)])
    assert store.counts()[JobStatus.QUEUED] == 3
    assert store.submit_many([Submission({}, batch="mine")])[0].batch == "mine"
    assert store.submit_many([]) == []


@pytest.mark.parametrize("values", [{"owner": "\ud800"}, {"title": "\ud800"}, {"number": float("nan")}, {"number": float("inf")}])
def test_what_cannot_be_stored_is_refused(store, submit, values):
    with pytest.raises(InputError):
        submit(**values)
    assert store.counts()[JobStatus.QUEUED] == 0


def test_a_full_queue_refuses_whole_batches(path):
    with contextlib.closing(JobStore(path, max_queued=2)) as store:
        with pytest.raises(QueueFullError, match="no room for these 3"):
            store.submit_many([Submission({})] * 3)
        first, _ = store.submit_many([Submission({})] * 2)
        for refused in (lambda: store.submit(Submission({})), lambda: store.duplicate(first.id)):
            with pytest.raises(QueueFullError, match="2 jobs wait already, and at most 2 may: no room for this one"):
                refused()
        store.claim("test")
        store.submit(Submission({}))
        store.finish_canceled(first.id)
        with pytest.raises(QueueFullError):
            store.retry(first.id)
        assert store.get(first.id).status == "canceled"


def test_a_disk_that_is_nearly_full_refuses_before_the_work(path, monkeypatch):
    with contextlib.closing(JobStore(path, min_free_bytes=100 * 2**20)) as store:
        job = store.submit(Submission({}))
        store.cancel(job.id)
        monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=5 * 2**20, f_blocks=10**9, f_bfree=10**9, f_frsize=1))
        for refused in (lambda: store.submit(Submission({})), lambda: store.retry(job.id)):
            with pytest.raises(StorageError, match="has 5 MiB left; 100 must stay free"):
                refused()
        assert store.counts()[JobStatus.QUEUED] == 0


def test_a_disk_that_fails_is_said(path, monkeypatch):
    def fail(folder):
        raise OSError(5, "Input/output error")

    with contextlib.closing(JobStore(path, min_free_bytes=1)) as store:
        monkeypatch.setattr(os, "statvfs", fail)
        with pytest.raises(StorageError, match="Input/output error"):
            store.submit(Submission({}))


# whose turn it is


def test_the_first_that_comes_goes_first(store, submit):
    for title in "abc":
        submit(title=title)
    assert claimed(store) == ["a", "b", "c"]
    assert store.claim("test") is None


def test_a_lower_number_goes_first_and_front_negates_it(store, submit):
    for title, values in {"a": {}, "b": {}, "c": {"front": True}, "d": {"number": 0.5}, "e": {"front": True}, "f": {"number": 1}}.items():
        submit(title=title, **values)
    assert claimed(store) == ["e", "c", "d", "a", "f", "b"]


def test_owners_take_turns(store, submit):
    for owner, titles in {"ann": ["a1", "a2", "a3", "a4"], "bob": ["b1", "b2"]}.items():
        for title in titles:
            submit(owner, title=title)
    assert claimed(store, 2) == ["a1", "b1"]
    submit("cy", title="c1")  # has never been served
    submit("bob", title="b0", front=True)
    assert claimed(store) == ["c1", "a2", "b0", "a3", "b2", "a4"]


def test_a_batch_of_one_does_not_keep_the_others_waiting(store, submit):
    store.submit_many([Submission({}, "ann", f"a{number}") for number in range(50)])
    submit("bob", title="b")
    assert "b" in claimed(store, 2)


@pytest.mark.parametrize("served", [0, 1, 2, 5])
def test_positions_are_the_order_in_which_they_are_claimed(store, submit, served):
    owners = ["bob", "ann", "", "cy", "ann", "ann", "bob", "cy", "cy", "ann"]
    for number, owner in enumerate(owners):
        submit(owner, title=str(number), front=number % 4 == 3, number=7 if number == 5 else None)
    claimed(store, served)
    positions = store.positions()
    expected = [store.get(job_id).title for job_id in sorted(positions, key=positions.get)]
    assert sorted(positions.values()) == list(range(len(owners) - served))
    assert claimed(store) == expected


def test_a_clock_that_is_set_back_changes_no_order(store, submit, clock):
    submit("ann", title="a1")
    submit("ann", title="a2")
    submit("bob", title="b1")
    job = store.claim("test")
    clock.advance(-3600)
    assert store.finish(job.id, Outcome())
    submit("ann", title="a3")
    submit("bob", title="b2")
    assert claimed(store) == ["b1", "a2", "b2", "a3"]
    jobs = store.list_jobs().jobs
    assert [job.title for job in jobs] == ["b2", "a3", "b1", "a2", "a1"]
    assert all(job.run_seconds >= 0 and job.queued_seconds >= 0 for job in jobs)


def test_the_steady_clock_measures_what_ran(path, clock):
    steady = [100.0]
    with contextlib.closing(JobStore(path, clock, steady=lambda: steady[0])) as store:
        job = store.submit(Submission({}))
        store.claim("test")
        steady[0] += 12
        clock.advance(-3600)
        store.finish(job.id, Outcome())
        assert store.get(job.id).run_seconds == 12


def test_waiting_and_running_are_timed_apart(store, submit, clock):
    job = submit()
    clock.advance(30)
    assert store.claim("test").queued_seconds == 30
    clock.advance(4)
    store.requeue(job.id)
    clock.advance(5)
    store.claim("test")
    clock.advance(7)
    store.finish(job.id, Outcome())
    job = store.get(job.id)
    assert (job.queued_seconds, job.run_seconds, job.attempts) == (35, 7, 1)


@pytest.mark.parametrize("network", [None, "nfs4"])
def test_eight_threads_claim_each_job_once(path, monkeypatch, network):
    monkeypatch.setattr(database, "network_type", lambda folder: network)
    with contextlib.closing(JobStore(path)) as store:
        claim_with_threads(store)


def claim_with_threads(store: JobStore) -> None:
    store.submit_many([Submission({}, owner=f"o{number % 7}", title=str(number)) for number in range(500)])
    seen: list[str] = []

    def work(name: str) -> None:
        while job := store.claim(name):
            seen.append(job.title)
            store.counts()

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(seen) == Counter(map(str, range(500)))
    assert store.counts()[JobStatus.RUNNING] == 500


def test_two_processes_claim_each_job_once(store, child):
    store.submit_many([Submission({}, owner=f"o{number % 3}") for number in range(100)])
    code = "print('ready', flush=True)\ninput()\nwhile job := store.claim('x'): print(job.id)\n"
    processes = [child(code) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ids = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert len(ids) == len(set(ids)) == 100


# pausing


def test_a_paused_queue_gives_out_nothing_even_after_a_restart(store, path, submit):
    submit(title="a")
    store.pause()
    store.pause()
    assert store.is_paused
    assert store.claim("test") is None
    with contextlib.closing(JobStore(path)) as later:
        assert later.is_paused
        later.resume()
        later.resume()
    assert not store.is_paused
    assert claimed(store) == ["a"]


# editing


@pytest.mark.parametrize(
    ("title", "where", "expected"),
    [
        ("d", {"to": "front"}, "dabc"),
        ("a", {"to": "back"}, "bcda"),
        ("a", {"to": 3}, "bcad"),
        ("d", {"to": 1}, "dabc"),
        ("a", {"to": 99}, "bcda"),
        ("d", {"before": "b"}, "adbc"),
        ("a", {"before": "d"}, "bcad"),
        ("b", {"to": 2}, "abcd"),
    ],
)
def test_a_waiting_job_can_be_moved(store, submit, title, where, expected):
    ids = {one: submit("ann", title=one).id for one in "abcd"}
    submit("bob", title="other")
    moved = store.move(ids[title], **{name: ids.get(value, value) for name, value in where.items()})
    assert moved.title == title
    submit("ann", title="later")
    assert [one for one in claimed(store) if one != "other"] == [*expected, "later"]


def test_a_job_can_be_moved_without_end(store, submit):
    a, b, c = (submit(title=title).id for title in "abc")
    for number in range(150):
        store.move((b, c)[number % 2], to=2)
    store.move(a, to="back")
    submit(title="d")
    assert claimed(store) == ["c", "b", "a", "d"]


def test_the_only_job_stays_where_it_is(store, submit):
    job = submit()
    assert store.move(job.id, to="back") == store.move(job.id, to="front") == job


def test_moves_that_make_no_sense_are_refused(store, submit):
    a, b, other = submit("ann").id, submit("ann").id, submit("bob").id
    for values in ({"to": "up"}, {"to": True}, {"to": 1.5}, {"to": 0}, {"before": other}, {"before": a}):
        with pytest.raises(InputError):
            store.move(a, **values)
    with pytest.raises(UnknownJobError):
        store.move("gone")
    store.claim("test")
    with pytest.raises(JobStateError, match="is running, so it cannot be moved"):
        store.move(a)
    with pytest.raises(JobStateError, match="cannot be moved before"):
        store.move(b, before=a)


def test_a_copy_has_its_own_workflow_and_everything_else(store, submit, run_one):
    job = submit("ann", title="t", tags=("x",), workflow={"3": {"inputs": {"seed": 1}}}, extra={"e": 1}, targets=("3",), work="w")
    run_one()

    def reseed(workflow):
        workflow["3"]["inputs"]["seed"] = 2
        return workflow

    again = store.duplicate(job.id, reseed)
    assert again.workflow["3"]["inputs"]["seed"] == 2
    assert store.get(job.id).workflow["3"]["inputs"]["seed"] == 1
    assert again.id != job.id
    assert again.status == "queued"
    for name in ("owner", "title", "tags", "extra", "targets", "work"):
        assert getattr(again, name) == getattr(job, name)
    assert store.duplicate(job.id).workflow == job.workflow


def test_a_verification_is_the_very_same_and_says_of_what(store, submit, run_one):
    job = submit("ann", title="t", tags=("x",), extra={"template": "film", "webhook": "http://a.example"}, targets=("3",), work="w")
    with pytest.raises(JobStateError, match="is queued, so it cannot be verified"):
        store.verify(job.id)
    run_one()
    again = store.verify(job.id)
    assert (again.status, again.extra) == ("queued", {"template": "film", VERIFIES: job.id})
    for name in ("owner", "title", "tags", "workflow", "targets", "work"):
        assert getattr(again, name) == getattr(job, name)
    assert store.duplicate(again.id).extra == {"template": "film"}


def test_a_failed_job_is_tried_again_at_the_end(store, submit, clock):
    job = submit(title="a")
    store.claim("test")
    clock.advance(3)
    shown = Outcome({"9": {"images": [{"filename": "x.png"}]}}, files=(Output("9", "images", "x.png"),))
    assert store.fail(job.id, Failure("out_of_memory", "Too large."), shown, "text")
    submit(title="b")
    again = store.retry(job.id)
    submit(title="c")
    assert (again.status, again.attempts, again.error, again.log, again.files, again.outputs) == ("queued", 0, None, "", (), {})
    assert (again.started, again.ended, again.run_seconds) == (None, None, 0)
    assert claimed(store) == ["b", "a", "c"]
    assert store.get(job.id).status == "succeeded"


def test_a_disk_that_fills_in_a_submission_takes_nothing_of_it(path):
    with contextlib.closing(JobStore(path)) as store:
        kept = store.submit(Submission({}, title="kept"))
        for idle in store.database._idle:
            idle.execute(f"PRAGMA max_page_count = {idle.execute('PRAGMA page_count').fetchone()[0]}")
        with pytest.raises(StorageError, match="is full"):
            store.submit_many([Submission({}), Submission({"1": {"inputs": {"text": "x" * 100_000}}})])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id FROM jobs").fetchall() == [(kept.id,)]
