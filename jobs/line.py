"""The waiting line: who comes in, where they stand, whose turn it is.

Owners take turns: next is the one who has not been served for the longest time. Among the jobs of one owner the lowest number comes
first, then the one that came first; `front` negates the number, as ComfyUI does. Turns are counted, not timed, so a clock that is
set back changes nothing.
"""

from __future__ import annotations

import copy
import math
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from errors import InputError, QueueFullError, StorageError
from jobs.job import VERIFIES, Job, JobStatus, Submission
from jobs.progress import EventKind, JobEvent
from jobs.rows import check_id, submitted_columns
from jobs.table import JobTable, check_status

_CLAIM = """
    UPDATE jobs SET status = 'running', worker = :worker, started = :now, ended = NULL, attempts = attempts + 1,
        queued_seconds = queued_seconds + max(0, :now - queued), turn = (SELECT coalesce(max(turn), 0) + 1 FROM jobs)
    WHERE seq = (
        SELECT seq FROM jobs WHERE status = 'queued'
            AND owner = (
                SELECT owner FROM jobs AS waiting WHERE status = 'queued' GROUP BY owner
                ORDER BY (SELECT max(turn) FROM jobs AS served WHERE served.owner = waiting.owner), min(number), min(seq) LIMIT 1)
            AND NOT EXISTS (SELECT 1 FROM switches WHERE name = 'paused')
        ORDER BY number, seq LIMIT 1)
    RETURNING id
"""
_WAITING = "SELECT id, owner, number, seq FROM jobs WHERE status = 'queued' ORDER BY number, seq"
_OF_OWNER = "SELECT id, number FROM jobs WHERE status = 'queued' AND owner = ? AND id <> ? ORDER BY number, seq"
_PLACES = 'Use "front", "back" or a number from 1 on; 1 is the front.'


class Line(JobTable):
    def submit(self, submission: Submission) -> Job:
        """The job, once it is on the disk. Raises as `submit_many`."""
        return self.submit_many([submission], batch=submission.batch)[0]

    def submit_many(self, submissions: Sequence[Submission], batch: str | None = None) -> list[Job]:
        """All of them or none, under one batch id, which is drawn if none is given and there are several.

        Raises QueueFullError if too many would wait, StorageError if the disk is nearly full, InputError for an id that is taken.
        """
        rows = [submitted_columns(submission) for submission in submissions]
        batch = batch if batch or len(rows) < 2 else str(uuid.uuid4())
        self._check_disk()
        with self._changing() as (connection, events):
            self._check_room(connection, len(rows))
            jobs = []
            for submission, row in zip(submissions, rows, strict=True):
                jobs.append(self._insert(connection, submission, row | {"batch": batch or submission.batch}))
            events += [JobEvent(job.id, "queued", {"job": job}) for job in jobs]
        return jobs

    def claim(self, worker_id: str) -> Job | None:
        """The next job, now running; None if none waits or the queue is paused. However many ask, each job is given out once."""
        with self._changing() as (connection, events):
            claimed = connection.execute(_CLAIM, {"worker": worker_id, "now": self.clock()}).fetchall()
            if not claimed:
                return None
            job = self._job(connection, claimed[0]["id"])
            self._began[job.id] = self.steady()
            events.append(JobEvent(job.id, "started", {"job": job}))
        return job

    def retry(self, job_id: str) -> Job:
        """A failed or canceled job waits again, at the end; what it had found out before is still there for it.

        Raises UnknownJobError, JobStateError, and what `submit` raises.
        """
        return self.retry_many([job_id])[0]

    def retry_many(self, job_ids: Sequence[str], *, in_place: bool = False) -> list[Job]:
        """All of them or none, in this order; or `in_place`, where they were in the line, those that were canceled while they waited.
        Raises as `retry`."""
        self._check_disk()
        with self._changing() as (connection, events):
            self._check_room(connection, len(job_ids))
            jobs = [self._retry(connection, job_id, in_place) for job_id in job_ids]
            events += [JobEvent(job.id, "queued", {"job": job}) for job in jobs]
        return jobs

    def duplicate(self, job_id: str, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Job:
        """The same again as a new job; `change` gets a copy of the workflow and gives the new one, for instance with other seeds."""
        job = self.get(job_id)
        workflow = copy.deepcopy(job.workflow)
        return self._again(job, change(workflow) if change else workflow, _without(job.extra, VERIFIES))

    def verify(self, job_id: str) -> Job:
        """The very same as a new job that takes nothing from the cache, so that the two can be compared. Nobody is told of its end.

        Raises UnknownJobError, JobStateError unless it has succeeded, and what `submit` raises.
        """
        job = self.get(job_id)
        check_status(job, (JobStatus.SUCCEEDED,), "verified")
        return self._again(job, job.workflow, _without(job.extra, "webhook") | {VERIFIES: job.id})

    def _again(self, job: Job, workflow: dict[str, Any], extra: dict[str, Any]) -> Job:
        same = {"owner": job.owner, "title": job.title, "tags": job.tags, "targets": job.targets, "work": job.work}
        return self.submit(Submission(workflow, extra=extra, **same))

    def move(self, job_id: str, *, to: int | str = "back", before: str | None = None) -> Job:
        """A waiting job to another place among the jobs of its owner: "front", "back", a place from 1 on, or before another job.

        Raises UnknownJobError, JobStateError if either is not waiting, InputError for a place that makes no sense.
        """
        with self._changing() as (connection, _):
            job = self._job(connection, job_id)
            check_status(job, (JobStatus.QUEUED,), "moved")
            others = connection.execute(_OF_OWNER, (job.owner, job_id)).fetchall()
            if not others and before is None:
                return job
            place = _place(to, [row["id"] for row in others]) if before is None else self._place_before(connection, job, before, others)
            numbers = [row["number"] for row in others]
            high = numbers[place] if place < len(numbers) else self._next_seq(connection)
            number = _between(numbers[place - 1] if place else None, high)
            if number is None:
                number = self._renumber(connection, others, place)
            return self._update(connection, job_id, JobStatus.QUEUED, {"number": number})

    def positions(self) -> dict[str, int]:
        """The place of every waiting job in the order in which they will be claimed, from 0 on, if nothing else comes."""
        with self.database.connection() as connection:
            waiting = connection.execute(_WAITING).fetchall()
            owners = {row["owner"]: None for row in waiting}
            served = {owner: connection.execute("SELECT max(turn) FROM jobs WHERE owner = ?", (owner,)).fetchone()[0] for owner in owners}
        lines: dict[str, list[sqlite3.Row]] = {owner: [] for owner in owners}
        for row in waiting:
            lines[row["owner"]].append(row)

        def turn(owner: str) -> tuple[float, float, int]:
            return served[owner] or 0, lines[owner][0]["number"], min(row["seq"] for row in lines[owner])

        rank = {owner: place for place, owner in enumerate(sorted(lines, key=turn))}
        rounds = [(number, rank[owner], row["id"]) for owner, line in lines.items() for number, row in enumerate(line)]
        return {job_id: place for place, (_, _, job_id) in enumerate(sorted(rounds))}

    def upcoming(self) -> Job | None:
        """Which will be claimed next, if nothing else comes, whether the queue is paused or not."""
        places = self.positions()
        return self.get(min(places, key=places.__getitem__)) if places else None

    def pause(self) -> bool:
        """What runs goes on; nothing new begins, not even after a restart, until `resume`. False if it was paused already."""
        return self._switch("INSERT OR IGNORE INTO switches VALUES ('paused')", "paused")

    def resume(self) -> bool:
        """False if it was not paused."""
        return self._switch("DELETE FROM switches WHERE name = 'paused'", "resumed")

    def _switch(self, sql: str, kind: EventKind) -> bool:
        with self._changing() as (connection, events):
            is_changed = connection.execute(sql).rowcount > 0
            if is_changed:
                events.append(JobEvent("", kind))
        return is_changed

    @property
    def is_paused(self) -> bool:
        return bool(self.database.read("SELECT 1 FROM switches WHERE name = 'paused'"))

    def _insert(self, connection: sqlite3.Connection, submission: Submission, row: dict[str, Any]) -> Job:
        job_id = str(uuid.uuid4()) if submission.job_id is None else check_id(submission.job_id)
        if connection.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone():
            raise InputError(f"There is already a job {job_id!r}.", "Give it another id, or none.")
        seq, now = self._next_seq(connection), self.clock()
        number = _checked_number(submission, seq)
        row |= {"seq": seq, "id": job_id, "number": number, "created": now, "queued": now}
        connection.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})", row)
        return self._job(connection, job_id)

    def _retry(self, connection: sqlite3.Connection, job_id: str, in_place: bool) -> Job:
        job = self._job(connection, job_id)
        check_status(job, (JobStatus.FAILED, JobStatus.CANCELED), "tried again")
        has_place = in_place and job.status == JobStatus.CANCELED and job.started is None
        number = job.number if has_place else self._last_number(connection, job.owner)
        fresh = {"status": JobStatus.QUEUED, "queued": self.clock(), "number": number}
        cleared = {"attempts": 0, "is_cancel_requested": 0, "queued_seconds": 0, "run_seconds": 0, "error": None, "log": ""}
        times = {"started": None, "ended": None, "outputs": "{}", "warnings": "[]", "stage_seconds": "{}", "cached": "[]"}
        job = self._update(connection, job_id, job.status, fresh | cleared | times)
        connection.execute("DELETE FROM files WHERE job = (SELECT seq FROM jobs WHERE id = ?)", (job_id,))
        return replace(job, files=())

    def _check_disk(self) -> None:
        folder = self.database.path.parent
        try:
            free = shutil.disk_usage(folder).free if self.min_free_bytes else 0
        except OSError as error:
            raise StorageError(f"{folder} cannot be looked at: {error.strerror}.", "See that its disk works.") from error
        if free < self.min_free_bytes:
            message = f"The disk that holds {folder} has {free / 2**20:.0f} MiB left; {self.min_free_bytes / 2**20:.0f} must stay free."
            raise StorageError(message, "Free some space there, or choose another data directory.")

    def _check_room(self, connection: sqlite3.Connection, coming: int) -> None:
        waiting = connection.execute("SELECT count(*) FROM jobs WHERE status = 'queued'").fetchone()[0] if self.max_queued else 0
        if self.max_queued and waiting + coming > self.max_queued:
            wish = "this one" if coming == 1 else f"these {coming}"
            raise QueueFullError(f"{waiting} jobs wait already, and at most {self.max_queued} may: no room for {wish}.", "Try again later.")

    def _next_seq(self, connection: sqlite3.Connection) -> int:
        return connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'jobs'").fetchone()[0]

    def _last_number(self, connection: sqlite3.Connection, owner: str) -> float:
        """After all that wait, and before the next that comes."""
        upcoming = self._next_seq(connection)
        last = connection.execute("SELECT max(number) FROM jobs WHERE status = 'queued' AND owner = ?", (owner,)).fetchone()[0]
        number = _between(upcoming - 1 if last is None else last, upcoming)
        return last + 1 if number is None else number

    def _place_before(self, connection: sqlite3.Connection, job: Job, before: str, others: Sequence[sqlite3.Row]) -> int:
        other = self._job(connection, before)
        check_status(other, (JobStatus.QUEUED,), "moved before")
        if other.owner != job.owner or other.id == job.id:
            raise InputError(f"The job {job.id} cannot come before {before}.", "Name another waiting job of the same owner.")
        return [row["id"] for row in others].index(before)

    def _renumber(self, connection: sqlite3.Connection, others: Sequence[sqlite3.Row], place: int) -> float:
        """There is no number left in between: whole numbers for all, up to the last one's. Gives the one that is left free."""
        first = math.floor(others[-1]["number"]) - len(others)
        for index, row in enumerate(others):
            connection.execute("UPDATE jobs SET number = ? WHERE id = ?", (first + index + (index >= place), row["id"]))
        return first + place


def _without(extra: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key != name}


def _checked_number(submission: Submission, seq: int) -> float:
    """As ComfyUI: a given number is taken as it is, `front` negates the one that is drawn."""
    if submission.number is None:
        return -seq if submission.front else seq
    if not math.isfinite(submission.number):
        raise InputError(f"The number {submission.number} is no place in a queue.", "Give a finite one, or none.")
    return submission.number


def _place(to: int | str, others: Sequence[str]) -> int:
    if to in ("front", "back"):
        return 0 if to == "front" else len(others)
    if not isinstance(to, int) or isinstance(to, bool):
        raise InputError(f"{to!r} is no place in the queue.", _PLACES)
    if to < 1:
        raise InputError(f"There is no place {to} in the queue.", _PLACES)
    return min(to - 1, len(others))


def _between(low: float | None, high: float) -> float | None:
    """A number in between; None if there is none. Without `low` there is always room."""
    if low is None:
        return min(math.ceil(high), 0) - 1
    if low >= high:
        return None
    middle = low + (high - low) / 2
    return middle if low < middle < high else None
