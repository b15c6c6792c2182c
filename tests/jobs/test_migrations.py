from __future__ import annotations

import contextlib
import threading

import pytest

from errors import StorageError
from jobs.database import Database
from jobs.job import Outcome, Submission
from jobs.migrations import APPLICATION_ID, MIGRATIONS
from jobs.store import JobStore

LATER = ("9999 a note", "ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT ''; CREATE TABLE notes (x TEXT);")


def names(database: Database) -> list[str]:
    return [row["name"] for row in database.read("SELECT name FROM migrations ORDER BY rowid")]


def test_each_change_is_recorded(store):
    assert names(store.database) == [name for name, _ in MIGRATIONS]
    assert len(set(names(store.database))) == len(MIGRATIONS)


def test_an_older_file_gets_what_is_missing_and_keeps_its_jobs(path):
    with contextlib.closing(JobStore(path)) as store:
        job = store.submit(Submission({"1": {}}, title="old"))
    with contextlib.closing(Database(path, [*MIGRATIONS, LATER], APPLICATION_ID)) as newer:
        assert names(newer)[-1] == LATER[0]
        row = newer.read("SELECT * FROM jobs")[0]
        assert (row["id"], row["title"], row["note"]) == (job.id, "old", "")


def test_a_newer_file_is_refused_and_left_as_it_is(path):
    with contextlib.closing(Database(path, [*MIGRATIONS, LATER], APPLICATION_ID)):
        pass
    with pytest.raises(StorageError, match="newer Stillmotion: it has '9999 a note'"):
        JobStore(path)


def test_a_change_that_fails_leaves_the_file_at_the_one_before(path):
    broken = ("9999 broken", "CREATE TABLE notes (x TEXT);\nCREATE TABLE jobs (x);")
    with pytest.raises(StorageError, match="already exists"):
        Database(path, [*MIGRATIONS, broken], APPLICATION_ID)
    with contextlib.closing(Database(path, [*MIGRATIONS, LATER], APPLICATION_ID)) as mended:
        assert names(mended) == [*(name for name, _ in MIGRATIONS), LATER[0]]


def test_several_may_open_a_new_file_at_once(path):
    opened: list[JobStore] = []
    threads = [threading.Thread(target=lambda: opened.append(JobStore(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    job = opened[0].submit(Submission({}))
    assert opened[1].claim("x").id == job.id
    assert opened[2].finish(job.id, Outcome())
    for store in opened:
        store.close()
