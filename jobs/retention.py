"""What may go when the disk should not fill. The files themselves are removed by the caller, before the rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from errors import InputError
from jobs.job import ENDED, Job, Output
from jobs.rows import file_of
from jobs.table import JobTable, marks

_DAY = 24 * 3600.0
_UNDO_SECONDS = 3600.0
_ENDED = f"SELECT seq, id, ended, deleted_at, is_favourite FROM jobs WHERE status IN ({marks(ENDED)}) ORDER BY ended, seq"

File = tuple[str, str, str, str]  # owner, type, subfolder, filename


@dataclass(frozen=True)
class RetentionPlan:
    """The jobs that would go; of their files those that no other job names, each with its owner; and what these take on the disk."""

    jobs: list[Job]
    files: list[tuple[str, Output]]
    bytes: int


class Retention(JobTable):
    def plan_retention(
        self, keep_days: float | None = None, keep_bytes: int | None = None, undo_seconds: float = _UNDO_SECONDS
    ) -> RetentionPlan:
        """A dry run: what goes to keep so many days and so many bytes of results (None: no bound). Nothing is changed.

        What was deleted more than `undo_seconds` ago goes in any case. Then what ended more than `keep_days` ago, then the oldest until
        the rest fits. Favourites go only if they were deleted, and what waits or runs never goes.
        """
        for name, value in {"keep-days": keep_days, "keep-gib": keep_bytes}.items():
            if value is not None and not value >= 0:  # nan neither
                raise InputError(f"{name} is {value}; nothing can be kept so long.", "Use 0 or more.")
        with self.database.connection() as connection:
            kept, going = _Shares(connection), []
            staying = []
            for row in connection.execute(_ENDED, ENDED).fetchall():
                is_over = self._is_over(row, keep_days, undo_seconds)
                (going if is_over else staying).append(row)
                if is_over:
                    kept.drop(row["seq"])
            for row in staying if keep_bytes is not None else ():
                if kept.bytes > keep_bytes and not row["is_favourite"] and row["deleted_at"] is None:
                    kept.drop(row["seq"])
                    going.append(row)
            jobs = [self._row(connection, row["id"]) for row in going]
            freed = [(file[0], output) for file, output in kept.freed.items()]
            return RetentionPlan(self._jobs(connection, jobs), freed, sum(output.bytes for _, output in freed))

    def purge(self, job_ids: Iterable[str]) -> int:
        """Remove ended jobs for good, with their publications; what they used stays counted. Gives how many there were."""
        sql = f"DELETE FROM jobs WHERE id = ? AND status IN ({marks(ENDED)})"
        with self.database.transaction() as connection:
            return sum(connection.execute(sql, (job_id, *ENDED)).rowcount for job_id in job_ids)

    def _is_over(self, row: sqlite3.Row, keep_days: float | None, undo_seconds: float) -> bool:
        if row["deleted_at"] is not None:
            return self.clock() - row["deleted_at"] > undo_seconds
        return keep_days is not None and not row["is_favourite"] and self.clock() - row["ended"] > keep_days * _DAY


class _Shares:
    """Which files would be left, as jobs go one after the other; a file may belong to several."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.of_job: dict[int, set[File]] = {}
        self.users: dict[File, int] = {}
        self.output: dict[File, Output] = {}
        self.freed: dict[File, Output] = {}
        for row in connection.execute("SELECT files.*, owner FROM files JOIN jobs ON seq = job").fetchall():
            file, output = (row["owner"], row["type"], row["subfolder"], row["filename"]), file_of(row)
            self.of_job.setdefault(row["job"], set()).add(file)
            self.output[file] = max(output, self.output.get(file, output), key=lambda one: one.bytes)
        for files in self.of_job.values():
            for file in files:
                self.users[file] = self.users.get(file, 0) + 1
        self.bytes = sum(output.bytes for output in self.output.values())

    def drop(self, seq: int) -> None:
        for file in self.of_job.get(seq, ()):
            self.users[file] -= 1
            if not self.users[file]:
                self.freed[file] = self.output[file]
                self.bytes -= self.output[file].bytes
