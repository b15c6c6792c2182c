from __future__ import annotations

import pytest

from errors import InputError
from jobs.job import Outcome, Output

DAY = 24 * 3600


@pytest.fixture
def finished(submit, run_one, clock):
    """One job a day, each with a file of 100 bytes, which may be shared."""

    def finished(*names: str) -> list[str]:
        ids = []
        for name in names:
            ids.append(submit().id)
            run_one(outcome=Outcome(files=(Output("9", "images", name, bytes=100),)))
            clock.advance(DAY)
        return ids

    return finished


def plan(store, **values):
    found = store.plan_retention(**values)
    assert found.bytes == sum(file.bytes for _, file in found.files)
    return [job.id for job in found.jobs], [file.filename for _, file in found.files]


def test_a_plan_changes_nothing(store, finished):
    ids = finished("a", "b")
    assert plan(store, keep_days=0, keep_bytes=0) == (ids, ["a", "b"])
    assert plan(store) == ([], [])
    assert [job.id for job in store.list_jobs().jobs] == ids[::-1]


def test_what_is_older_than_asked_goes(store, finished):
    ids = finished("a", "b", "c")
    assert plan(store, keep_days=1.5) == (ids[:2], ["a", "b"])
    assert plan(store, keep_days=10) == ([], [])


def test_the_oldest_go_until_the_rest_fits(store, finished):
    ids = finished("a", "b", "c")
    assert plan(store, keep_bytes=300) == ([], [])
    assert plan(store, keep_bytes=250) == (ids[:1], ["a"])
    assert plan(store, keep_bytes=100) == (ids[:2], ["a", "b"])
    assert plan(store, keep_days=1.5, keep_bytes=200) == (ids[:2], ["a", "b"])


def test_favourites_and_what_has_not_ended_stay(store, finished, submit, clock):
    ids = finished("a", "b")
    store.favourite(ids[0])
    running = submit()
    store.claim("test")
    waiting = submit()
    clock.advance(100 * DAY)
    assert plan(store, keep_days=1, keep_bytes=0) == (ids[1:], ["b"])
    assert store.purge([running.id, waiting.id, "gone"]) == 0
    assert store.counts()["queued"] == store.counts()["running"] == 1


def test_a_file_goes_with_the_last_job_that_names_it(store, finished):
    ids = finished("a", "a", "b")
    assert plan(store, keep_days=2.5) == (ids[:1], [])
    assert plan(store, keep_days=1.5) == (ids[:2], ["a"])
    assert plan(store, keep_bytes=150) == (ids[:2], ["a"])


def test_what_was_deleted_goes_once_it_cannot_be_undone(store, finished, clock):
    ids = finished("a", "b")
    store.favourite(ids[1])
    store.delete(ids[1])
    assert plan(store) == ([], [])
    assert plan(store, keep_bytes=0) == (ids[:1], ["a"])
    clock.advance(3601)
    assert plan(store) == (ids[1:], ["b"])
    assert plan(store, undo_seconds=2 * DAY) == ([], [])


def test_purging_takes_the_files_and_publications_of_the_job_along(store, finished):
    (job_id,) = finished("a")
    store.intend(job_id, "9", "key", "part", "target")
    store.written(job_id, "9", "key", {}, ["target"])
    assert store.purge([job_id]) == 1
    assert store.publications(job_id, "9") == []
    assert store.owners_of("a") == set()
    assert [tuple(row) for row in store.database.read("SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM publications)")] == [
        (0, 0)
    ]


@pytest.mark.parametrize("bound", [{"keep_days": -1}, {"keep_days": float("nan")}, {"keep_bytes": -5}])
def test_less_than_nothing_is_not_kept(store, finished, bound):
    finished("a")
    with pytest.raises(InputError, match="Use 0 or more"):
        store.plan_retention(**bound)


def test_files_of_one_name_are_each_owners_own(store, submit, run_one):
    for owner in ("anna", "bert"):
        submit(owner)
        run_one(outcome=Outcome(files=(Output("9", "images", "a.png", bytes=100),)))
    found = store.plan_retention(keep_days=0, keep_bytes=100)
    assert [owner for owner, _ in found.files] == ["anna"]
    assert found.bytes == 100


def test_a_clock_that_is_set_back_makes_nothing_old(store, finished, clock):
    finished("a")
    clock.advance(-10 * DAY)
    assert plan(store, keep_days=1) == ([], [])
