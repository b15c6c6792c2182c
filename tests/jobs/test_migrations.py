from __future__ import annotations

import contextlib
import hashlib
import threading

import pytest

from errors import StorageError
from jobs.consumers import QueueName
from jobs.database import Database
from jobs.job import JobStatus, Outcome, Submission
from jobs.migrations import APPLICATION_ID, MIGRATIONS
from jobs.queue_items import Entry, Wanted
from jobs.queue_migrations import QUEUE_FILE, QUEUE_MIGRATIONS
from jobs.queues import Queues
from jobs.store import JobStore

LATER = ("9999 a note", "ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT ''; CREATE TABLE notes (x TEXT);")

RELEASED = {  # in the field since; who edits one of these breaks files that have run it
    "0001 jobs": "8906e441c31c722d",
    "0002 what a node has written, once all its files are out": "7838a9ef044e64e5",
    "0003 webhooks: whom to tell that a job has ended; the row comes with the ending, both or neither": "e3f3bcaa007ccd58",
    "0004 a library of thousands: one owner's jobs, and favourites, the newest first": "673aa9a508d0d2de",
    "0005 batches: how many jobs of each are in which status": "672731c8bdbd60ec",
    "0006 a hundred thousand jobs: words are found without the rows, and one owner's jobs are counted alone": "176f32ec5b826a31",
    "queues": "10aa9f95c834cdb1",
}
OLD_JOBS = """
    INSERT INTO jobs
        (id, number, status, owner, title, tags, workflow, extra, targets, work, words, created, queued, started, ended, turn, attempts)
    VALUES
        ('done', 1, 'succeeded', 'ada', 'a film', '["sea"]', '{"1": {}}', '{}', NULL, 'w', '', 10, 10, 11, 12, 1, 1),
        ('runs', 2, 'running', 'ada', 'runs', '[]', '{"1": {}}', '{"webhook": "x://y"}', NULL, 'w', '', 20, 20, 21, NULL, 2, 1),
        ('waits', 3, 'queued', '', 'waits', '[]', '{"1": {}}', '{}', '["1"]', 'w', '', 30, 30, NULL, NULL, NULL, 0);
    INSERT INTO files VALUES (1, 0, '1', 'gifs', 'a.mp4', '', 'output', 100);
    INSERT INTO publications (job, node_id, key, position, part, target, is_published) VALUES (2, '1', 'k', 0, '/x/.part', '/x/a.png', 0);
    INSERT INTO usage VALUES ('ada', '2026-03-01', 2.5, 1);
    INSERT INTO switches VALUES ('paused');
"""


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


@pytest.mark.parametrize("count", range(1, len(MIGRATIONS) + 1), ids=lambda count: MIGRATIONS[count - 1][0][:4])
def test_a_file_of_every_older_version_opens_with_all_that_is_in_it_and_works(path, count):
    with contextlib.closing(Database(path, MIGRATIONS[:count], APPLICATION_ID)) as old, old.connection() as connection:
        connection.executescript(OLD_JOBS)
    with contextlib.closing(JobStore(path)) as store:
        assert names(store.database) == [name for name, _ in MIGRATIONS]
        assert {job.id: job.status.value for job in store.list_jobs().jobs} == {"done": "succeeded", "runs": "running", "waits": "queued"}
        (file,) = store.get("done").files
        assert (file.filename, store.get("done").tags, store.owners_of("a.mp4")) == ("a.mp4", ("sea",), {"ada"})
        assert [(one.owner, one.seconds) for one in store.usage()] == [("ada", 2.5)]
        assert store.is_paused
        store.resume()
        assert [job.id for job in store.recover()] == ["runs"]
        for _ in range(2):
            assert store.finish(store.claim("test").id, Outcome())
        assert store.counts()[JobStatus.SUCCEEDED] == 3
        store.delete("done")
        assert store.plan_retention(None, None).jobs == []


@pytest.mark.parametrize("count", range(1, len(QUEUE_MIGRATIONS) + 1))
def test_queues_of_every_older_version_open_with_their_entries(path, count):
    with contextlib.closing(Database(path, QUEUE_MIGRATIONS[:count], QUEUE_FILE)) as old:
        old.write("INSERT INTO items VALUES (7, 'sink', 'films', '', 0, 'r', '{\"requestId\": \"r\"}', 3, 10, x'616263')")
    with contextlib.closing(Queues(path)) as queues:
        assert [(item.index, item.data, item.request_id) for item in queues.read(QueueName("films", "sink"), Wanted())] == [
            (7, b"abc", "r")
        ]
        assert queues.put(QueueName("films", "sink"), Entry(b"new")).index == 8


def test_what_was_released_stays_as_it_is():
    now = {name: hashlib.sha256(sql.encode()).hexdigest()[:16] for name, sql in [*MIGRATIONS, *QUEUE_MIGRATIONS]}
    assert {name: now.get(name) for name in RELEASED} == RELEASED
