"""The jobs, on disk: the table is the queue. Every change of status names the status it comes from, so a job ends once.

    queued ──claim──► running ──finish──► succeeded          queued ──cancel──► canceled
                         │ ──fail────► failed                running ──cancel──► running, asked to stop
                         │ ──finish_canceled──► canceled     failed, canceled ──retry──► queued
                         └──requeue, recover──► queued, at its old place

The parts: `line.py` who waits and whose turn it is, `history.py` what has been, `retention.py` what may go, `publications.py` which
files are out.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from dataclasses import asdict
from functools import cached_property
from typing import Any

from jobs.history import History
from jobs.job import PREPARING, Failure, Job, JobStatus, Outcome
from jobs.line import Line
from jobs.lock import WorkerLock
from jobs.progress import JobEvent
from jobs.publications import Publications
from jobs.retention import Retention
from jobs.rows import file_columns, outcome_columns, to_json

log = logging.getLogger(__name__)

_NOTHING = Outcome()
_WAITING_OF = "SELECT id FROM jobs WHERE status = 'queued' AND owner = ? ORDER BY number, seq"
_USED = """
    INSERT INTO usage VALUES (?, ?, ?, 1)
    ON CONFLICT (owner, day) DO UPDATE SET seconds = seconds + excluded.seconds, runs = runs + 1
"""


class JobStore(Line, History, Retention, Publications):
    def finish(self, job_id: str, outcome: Outcome) -> bool:
        """running -> succeeded, even if somebody asked too late to stop it. False if it is not running. Raises UnknownJobError."""
        return self._end(job_id, JobStatus.SUCCEEDED, outcome, {})

    def fail(self, job_id: str, failure: Failure, outcome: Outcome = _NOTHING, log: str = "") -> bool:
        """running -> failed; `outcome` holds what was done until then. False if it is not running. Raises UnknownJobError."""
        return self._end(job_id, JobStatus.FAILED, outcome, {"error": to_json(asdict(failure)), "log": log})

    def finish_canceled(self, job_id: str, outcome: Outcome = _NOTHING) -> bool:
        """running -> canceled; `outcome` holds what was done until then. False if it is not running. Raises UnknownJobError."""
        return self._end(job_id, JobStatus.CANCELED, outcome, {})

    def cancel(self, job_id: str) -> bool:
        """A waiting job is canceled at once; a running one is asked to stop. False if it had ended. Raises UnknownJobError."""
        with self._changing() as (connection, events):
            if self._cancel_waiting(connection, events, job_id):
                return True
            return self._update(connection, job_id, JobStatus.RUNNING, {"is_cancel_requested": 1}) is not None

    def cancel_waiting(self, owner: str) -> list[str]:
        """All of this owner's jobs that wait; gives their ids in the order in which they would have been done."""
        with self._changing() as (connection, events):
            waiting = connection.execute(_WAITING_OF, (owner,)).fetchall()
            return [row["id"] for row in waiting if self._cancel_waiting(connection, events, row["id"])]

    def _cancel_waiting(self, connection: sqlite3.Connection, events: list[JobEvent], job_id: str) -> Job | None:
        ended = {"status": JobStatus.CANCELED, "ended": self.clock(), "is_cancel_requested": 1}
        if job := self._update(connection, job_id, JobStatus.QUEUED, ended):
            events.append(JobEvent(job_id, "canceled", {"job": job}))
        return job

    def is_cancel_requested(self, job_id: str) -> bool:
        return bool(self.database.read("SELECT 1 FROM jobs WHERE id = ? AND is_cancel_requested", (job_id,)))

    def requeue(self, job_id: str) -> bool:
        """running -> queued at its old place, and as if it had not begun. False if it is not running, or if somebody asked to stop it."""
        with self._changing() as (connection, events):
            if self._job(connection, job_id).is_cancel_requested:
                return False
            attempt = connection.execute("SELECT attempts FROM jobs WHERE id = ?", (job_id,)).fetchone()[0] - 1
            return self._back_in_line(connection, events, job_id, {"attempts": max(0, attempt)})

    def recover(self) -> list[Job]:
        """Take the worker's lock, and deal with what ran when its last holder died; gives those jobs as they are now.

        They wait again at their old places. One that was started `max_attempts` times is failed, since it may have taken the process down;
        one that should have been stopped is canceled. Raises StorageError if another process works on this database.
        """
        self.worker_lock.take()
        with self._changing() as (connection, events):
            rows = connection.execute("SELECT * FROM jobs WHERE status = 'running' ORDER BY turn").fetchall()
            lost = [job for job in self._jobs(connection, rows) if job.id not in self._began]
            for job in lost:
                self._recover_one(connection, events, job)
            return [self._job(connection, job.id) for job in lost]

    def lose(self, job_id: str) -> bool:
        """Whoever did it is gone: as `recover`, for this job. False if it is not running. Raises UnknownJobError."""
        with self._changing() as (connection, events):
            job = self._job(connection, job_id)
            if job.status != JobStatus.RUNNING:
                return False
            self._recover_one(connection, events, job)
            return True

    @cached_property
    def worker_lock(self) -> WorkerLock:
        return WorkerLock(self.database.path)

    def close(self) -> None:
        self.worker_lock.release()
        super().close()

    def _end(self, job_id: str, status: JobStatus, outcome: Outcome, more: dict[str, Any]) -> bool:
        values = outcome_columns(outcome) | more
        with self._changing() as (connection, events):
            row, now = self._row(connection, job_id), self.clock()
            if row["status"] != JobStatus.RUNNING:
                return False
            seconds = self.seconds_since(job_id, row["started"])
            connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", file_columns(row["seq"], outcome.all_files()))
            job = self._update(connection, job_id, JobStatus.RUNNING, values | {"status": status, "ended": now, "run_seconds": seconds})
            used = sum(spent for stage, spent in outcome.stage_seconds.items() if stage not in PREPARING)
            connection.execute(_USED, (row["owner"], time.strftime("%Y-%m-%d", time.gmtime(now)), used))
            events.append(JobEvent(job_id, status.value, {"job": job}))
        self._began.pop(job_id, None)
        return True

    def _recover_one(self, connection: sqlite3.Connection, events: list[JobEvent], job: Job) -> None:
        self._began.pop(job.id, None)
        if job.is_cancel_requested:
            ended = {"status": JobStatus.CANCELED, "ended": self.clock()}
            job = self._update(connection, job.id, JobStatus.RUNNING, ended)
            events.append(JobEvent(job.id, "canceled", {"job": job}))
        elif job.attempts >= self.max_attempts:
            failure = Failure(
                "crashed",
                f"Stillmotion ended abruptly each of the {job.attempts} times it worked on this job.",
                "Try a smaller size or fewer frames, and look into the log of the system for the reason.",
                details={"attempts": job.attempts, "started": job.started},
            )
            outcome = Outcome(self.salvaged(connection, job.id), list(job.warnings))
            ended = {"status": JobStatus.FAILED, "ended": self.clock(), "error": to_json(asdict(failure))}
            row = self._row(connection, job.id)
            connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", file_columns(row["seq"], outcome.all_files()))
            job = self._update(connection, job.id, JobStatus.RUNNING, outcome_columns(outcome) | ended)
            events.append(JobEvent(job.id, "failed", {"job": job}))
        else:
            self._back_in_line(connection, events, job.id, {})
            log.warning("The job %s ran when whoever did it ended; it waits again.", job.id)

    def _back_in_line(self, connection: sqlite3.Connection, events: list[JobEvent], job_id: str, more: dict[str, Any]) -> bool:
        """Its owner's turn is given back too, so that the same job comes next."""
        values = {"status": JobStatus.QUEUED, "started": None, "queued": self.clock(), "turn": None, "worker": None}
        job = self._update(connection, job_id, JobStatus.RUNNING, values | more)
        if job is None:
            return False
        self._began.pop(job_id, None)
        events.append(JobEvent(job_id, "requeued", {"job": job}))
        return True
