from __future__ import annotations

import contextlib

import pytest

from errors import InputError, JobStateError, UnknownJobError
from jobs.history import Usage
from jobs.job import ENDED, Failure, JobStatus, Outcome, Output, Submission
from jobs.store import JobStore

DAY = 24 * 3600


def titles(store: JobStore, **filters: object) -> str:
    return "".join(job.title for job in store.list_jobs(**filters).jobs)


@pytest.fixture
def several(store, submit, run_one):
    """a and b succeeded, c failed, d runs, e waits."""
    for title, values in {
        "a": {"owner": "ann", "tags": ("sea", "100%")},
        "b": {"owner": "bob", "batch": "one", "workflow": {"6": {"inputs": {"text": "A ROCKET, 火箭"}}}},
        "c": {"owner": "ann", "batch": "one"},
    }.items():
        submit(title=title, **values)
        if title == "c":
            store.fail(store.claim("test").id, Failure("x", "y"))
        else:
            run_one()
    submit(title="d")
    store.claim("test")
    submit(title="e")
    return {job.title: job.id for job in store.list_jobs().jobs}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "edcba"),
        ({"status": JobStatus.QUEUED}, "e"),
        ({"status": ("failed", "running")}, "dc"),
        ({"owner": "ann"}, "ca"),
        ({"owner": ""}, "ed"),
        ({"batch": "one"}, "cb"),
        ({"tag": "sea"}, "a"),
        ({"tag": "100%"}, "a"),
        ({"tag": "se"}, ""),
        ({"text": "rocket"}, "b"),
        ({"text": "火箭"}, "b"),
        ({"text": "%"}, "a"),
        ({"text": "sea"}, "a"),
        ({"text": "C"}, "cb"),
        ({"owner": "ann", "status": "failed"}, "c"),
        ({"is_favourite": True}, ""),
    ],
)
def test_jobs_are_found_newest_first(store, several, filters, expected):
    assert titles(store, **filters) == expected


@pytest.fixture
def library(store, submit, run_one, clock):
    """f has a film and a still, s a still, p a film's poster alone, w an animation; n has nothing. A second lies between them."""
    shown = {
        "f": [("images", "a_00001_.png"), ("gifs", "a_00001.MP4"), ("beside", "a_00001.png")],
        "s": [("images", "b.png")],
        "p": [("beside", "c.mp4")],
        "w": [("images", "d.webp")],
        "n": [],
    }
    for title, files in shown.items():
        submit("ann", title=title, extra={"template": title * 2})
        run_one(1, Outcome(files=tuple(Output("9", kind, name) for kind, name in files)))
    return {job.title: job for job in store.list_jobs().jobs}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"has_files": True}, "wpsf"),
        ({"has_files": True, "makes": "film"}, "wf"),
        ({"makes": "still"}, "s"),
        ({"makes": "film", "owner": "bob"}, ""),
        ({"template": "ss"}, "s"),
        ({"template": "s"}, ""),
        ({"is_favourite": False}, "nwpsf"),
    ],
)
def test_a_library_is_what_has_files(store, library, filters, expected):
    assert titles(store, **filters) == expected


def test_jobs_of_a_time(store, library):
    created = library["s"].created
    assert titles(store, since=created) == "nwps"
    assert titles(store, until=created) == "f"
    assert titles(store, since=created, until=created + 1.5) == "ps"


def test_favourites_alone(store, library):
    store.favourite(library["w"].id)
    assert titles(store, is_favourite=True) == "w"
    assert titles(store, is_favourite=True, owner="ann", has_files=True, makes="film") == "w"


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, ""),
        ({"status": ENDED, "has_files": True}, ""),
        ({"status": ("queued", "running"), "owner": "ann"}, "jobs_by_status"),
        ({"owner": "ann", "status": "succeeded", "makes": "film"}, "jobs_words_of_owner"),
        ({"owner": "ann", "text": "boat"}, "jobs_words_of_owner"),
        ({"is_favourite": True}, "jobs_favourite"),
        ({"owner": "ann", "is_favourite": True}, "jobs_favourite"),
    ],
)
def test_long_lists_are_walked_from_the_newest_on_and_never_sorted(store, monkeypatch, filters, index):
    asked, connect = [], store.database._connect

    def connected():
        connection = connect()
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(store.database, "_connect", connected)
    store.database._idle.clear()
    store.list_jobs(**filters)
    sql = next(one for one in asked if one.startswith("SELECT * FROM jobs"))
    plan = "; ".join(row["detail"] for row in store.database.read(f"EXPLAIN QUERY PLAN {sql}"))
    assert index in plan
    assert ("TEMP B-TREE" in plan) == (index == "jobs_by_status")


def test_pages_hold_each_job_once_whatever_comes_between(store, several, submit):
    page = store.list_jobs(limit=2)
    seen = [job.title for job in page.jobs]
    while page.cursor is not None:
        submit(title="new")
        page = store.list_jobs(limit=2, cursor=page.cursor)
        seen += [job.title for job in page.jobs]
    assert "".join(seen) == "edcba"
    assert store.list_jobs(limit=100).cursor is None


def test_counts_by_status(store, several):
    assert store.counts() == {"queued": 1, "running": 1, "succeeded": 2, "failed": 1, "canceled": 0}
    assert store.counts("ann")[JobStatus.SUCCEEDED] == 1
    store.delete(several["a"])
    assert store.counts("ann")[JobStatus.SUCCEEDED] == 0


def test_a_file_knows_whose_it_is(store, submit, run_one):
    shown = Outcome(files=(Output("9", "images", "a.png", "trips"),))
    for owner in ("ann", "bob", "ann"):
        submit(owner)
        run_one(outcome=shown)
    assert store.owners_of("a.png", "trips") == {"ann", "bob"}
    assert store.owners_of("a.png") == store.owners_of("a.png", "trips", "temp") == set()


def test_a_file_knows_what_the_job_is_called_that_made_it(store, submit, run_one):
    files = (Output("9", "images", "a.png", "trips"), Output("9", "images", "a.png", ""), Output("9", "images", "a.png", "", "temp"))
    for owner, title, file in zip(("ann", "bob", "ann"), ("Moon", "Sun", "Star"), files, strict=True):
        submit(owner, title=title)
        run_one(outcome=Outcome(files=(file,)))
    assert store.title_of_file("ann", "trips/a.png [output]") == "Moon"
    assert store.title_of_file("bob", "a.png [output]") == "Sun"
    assert store.title_of_file("ann", "a.png [temp]") == "Star"
    for owner, name in (("ann", "a.png [output]"), ("bob", "trips/a.png [output]"), ("ann", "trips/a.png"), ("ann", "a.png [input]")):
        assert store.title_of_file(owner, name) == ""


def test_all_words_are_looked_for_in_any_order_and_quotes_keep_them_together(store, submit):
    for number, title in enumerate(("A red boat on the sea", "A boat on the red sea", "100%_of a sea")):
        submit(title=title, job_id=str(number))
    cases = {
        "red sea": "10", "sea  RED": "10", '"red sea"': "1", '"red  boat" sea': "0", "boat train": "", "%_of": "2", "0% a": "2", "_": "2",
        '""': "210", '"red': "10", "": "210",
    }  # fmt: skip
    assert {text: "".join(job.id for job in store.list_jobs(text=text).jobs) for text in cases} == cases


def test_marks_stay(store, several):
    assert store.favourite(several["a"]).is_favourite
    assert titles(store, is_favourite=True) == "a"
    assert not store.favourite(several["a"], False).is_favourite
    assert store.set_tags(several["b"], ["x"]).tags == ("x",)
    assert store.set_title(several["b"], "Moon").title == "Moon"
    assert titles(store, text="moon") == titles(store, text="rocket") == "Moon"
    with pytest.raises(InputError):
        store.set_title(several["b"], "\ud800")
    for change in (store.favourite, store.undo_delete, lambda gone: store.set_title(gone, "x"), lambda gone: store.set_tags(gone, ())):
        with pytest.raises(UnknownJobError):
            change("gone")


# deletion


def test_a_deletion_can_be_undone(store, several, clock):
    assert store.delete(several["a"]).deleted_at == clock.now
    assert titles(store) == "edcb"
    assert titles(store, is_deleted=True) == "a"
    for refused in (store.delete, store.retry):
        with pytest.raises(JobStateError, match="is deleted, so it cannot be"):
            refused(several["a"])
    assert store.undo_delete(several["a"]).deleted_at is None
    assert titles(store) == "edcba"


def test_history_is_cleared_of_what_has_ended_but_for_favourites(store, several):
    store.favourite(several["a"])
    assert store.clear_history("ann") == [several["c"]]
    assert store.clear_history() == [several["b"]]
    assert titles(store) == "eda"
    for job_id in (several["b"], several["c"]):
        store.undo_delete(job_id)
    assert titles(store) == "edcba"


# usage


def test_usage_counts_every_run_by_owner_and_day(store, submit, run_one, clock):
    submit("ann")
    run_one(20, Outcome(stage_seconds={"loading": 8.5, "still": 4, "motion": 6}))  # the rest is the start of PyTorch
    submit("ann")
    job = store.claim("test")
    clock.advance(5)
    store.fail(job.id, Failure("x", "y"), Outcome(stage_seconds={"still": 5}))
    submit("bob")
    job = store.claim("test")
    clock.advance(2 * DAY)
    store.finish_canceled(job.id, Outcome(stage_seconds={"motion": 2 * DAY}))
    canceled = submit("cy")
    store.cancel(canceled.id)
    expected = [Usage("ann", "2023-11-14", 15, 2), Usage("bob", "2023-11-16", 2 * DAY, 1)]
    assert store.usage() == expected
    assert store.usage("bob") == store.usage(since=clock.now) == expected[1:]
    store.purge(store.clear_history())
    assert store.list_jobs().jobs == []
    assert store.usage() == expected


def test_a_run_that_was_put_back_does_not_count(path, clock):
    with contextlib.closing(JobStore(path, clock)) as store:
        job = store.submit(Submission({}))
        store.claim("test")
        clock.advance(10)
        store.requeue(job.id)
        assert store.usage() == []
