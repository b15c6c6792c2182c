"""The table of jobs: what every part of the store stands on."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from errors import JobStateError, UnknownJobError
from jobs.database import Database
from jobs.job import Job, JobStatus, Output
from jobs.migrations import APPLICATION_ID, MIGRATIONS
from jobs.progress import JobEvent
from jobs.rows import file_of, job_of

Tell = Callable[[JobEvent], None]


def ignore(event: JobEvent) -> None:
    """A `Tell` for stores that nobody watches."""


class JobTable:
    """One SQLite file at `path`, made if it is missing. Every method may raise StorageError.

    `clock` gives unix seconds. `steady` measures how long a run takes: the monotonic clock, or `clock` where another one is given.
    `tell` hears of every change, after it is on the disk and in the order of the changes; it must be quick and must not raise.
    Below `min_free_bytes` on the disk, or with `max_queued` jobs waiting (0: no bound), no job is taken. One that was lost `max_attempts`
    times is not tried again.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        *,
        steady: Callable[[], float] | None = None,
        tell: Tell = ignore,
        min_free_bytes: int = 0,
        max_queued: int = 0,
        max_attempts: int = 2,
        busy_seconds: float = 10.0,
    ) -> None:
        self.clock, self.tell = clock, tell
        self.steady = steady or (time.monotonic if clock is time.time else clock)
        self.min_free_bytes, self.max_queued, self.max_attempts = min_free_bytes, max_queued, max_attempts
        self.database = Database(path, MIGRATIONS, APPLICATION_ID, busy_seconds=busy_seconds)
        self._began: dict[str, float] = {}  # what runs in this process: when by `steady`

    def get(self, job_id: str) -> Job:
        """Deleted ones too, until they are purged. Raises UnknownJobError."""
        with self.database.connection() as connection:
            return self._job(connection, job_id)

    def get_many(self, job_ids: Sequence[str]) -> list[Job]:
        """In this order, without those that are not there any more."""
        with self.database.connection() as connection:
            sql = "SELECT * FROM jobs WHERE id = ?"
            rows = [row for job_id in job_ids for row in connection.execute(sql, (job_id,)).fetchall()]
            return self._jobs(connection, rows)

    def ids_from(self, prefix: str, limit: int = 2) -> list[str]:
        """Ids of jobs that begin so, the shortest first."""
        sql = "SELECT id FROM jobs WHERE substr(id, 1, length(:prefix)) = :prefix ORDER BY length(id), id LIMIT :limit"
        try:
            return [row["id"] for row in self.database.read(sql, {"prefix": prefix, "limit": limit})]
        except UnicodeEncodeError:  # half of a surrogate pair
            return []

    def close(self) -> None:
        self.database.close()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[sqlite3.Connection, list[JobEvent]]]:
        """A transaction. The events that are put into the list are told once it is on the disk."""
        events: list[JobEvent] = []
        with self.database.lock:
            with self.database.transaction() as connection:
                yield connection, events
            for event in events:
                self.tell(event)

    def _row(self, connection: sqlite3.Connection, job_id: str) -> sqlite3.Row:
        try:
            row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        except UnicodeEncodeError:  # half of a surrogate pair: no text that could be stored
            row = None
        if row is None:
            raise UnknownJobError(job_id)
        return row

    def _job(self, connection: sqlite3.Connection, job_id: str) -> Job:
        return self._jobs(connection, [self._row(connection, job_id)])[0]

    def _jobs(self, connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[Job]:
        """With their files, which are looked up for many of them at once."""
        files: dict[int, list[Output]] = {row["seq"]: [] for row in rows}
        for seqs in chunks(list(files)):
            sql = f"SELECT * FROM files WHERE job IN ({marks(seqs)}) ORDER BY job, position"
            for row in connection.execute(sql, seqs):
                files[row["job"]].append(file_of(row))
        return [job_of(row, files[row["seq"]]) for row in rows]

    def seconds_since(self, job_id: str, started: float) -> float:
        """How long a job has run: by the steady clock if it was claimed here, else by what is written down. Never negative."""
        began = self._began.get(job_id)
        return max(0.0, self.clock() - started if began is None else self.steady() - began)

    def _update(self, connection: sqlite3.Connection, job_id: str, came_from: JobStatus, values: dict[str, Any]) -> Job | None:
        """The changed job; None if it is not, or no longer, in the status it should come from. Raises UnknownJobError."""
        names = ", ".join(f"{name} = :{name}" for name in values)
        sql = f"UPDATE jobs SET {names} WHERE id = :_id AND status = :_from RETURNING seq"
        if not connection.execute(sql, values | {"_id": job_id, "_from": came_from}).fetchall():
            self._row(connection, job_id)
            return None
        return self._job(connection, job_id)


def check_status(job: Job, allowed: Sequence[JobStatus], wish: str) -> None:
    """Raises JobStateError unless the job is in one of these and not deleted; `wish` is what was asked for, e.g. "tried again"."""
    if job.deleted_at is not None:
        raise JobStateError(f"The job {job.id} is deleted, so it cannot be {wish}.", "Undo the deletion first.")
    if job.status not in allowed:
        hint = f"This works for jobs that are {' or '.join(allowed)}."
        raise JobStateError(f"The job {job.id} is {job.status}, so it cannot be {wish}.", hint)


def chunks(values: list[int], length: int = 500) -> Iterator[list[int]]:
    """SQLite takes a limited number of values at once."""
    for start in range(0, len(values), length):
        yield values[start : start + length]


def marks(values: Sequence[Any]) -> str:
    """One question mark a value, for SQL."""
    return ", ".join("?" * len(values))
