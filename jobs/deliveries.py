"""Whom to tell that a job has ended, and how often that was tried. The rows are made by the table itself, in the transaction in which a
job ends: so a job that asks for it is told of at least once, whatever dies in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobs.database import Database

PAUSES = (10.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)  # after each attempt; after the last one no more

_DUE = """
    SELECT webhooks.id, jobs.id AS job_id, webhooks.status, url, webhooks.attempts, due, delivered, problem
    FROM webhooks JOIN jobs ON seq = job WHERE due IS NOT NULL ORDER BY due, webhooks.id
"""
_OF_JOB = """
    SELECT webhooks.id, jobs.id AS job_id, webhooks.status, url, webhooks.attempts, due, delivered, problem
    FROM webhooks JOIN jobs ON seq = job WHERE jobs.id = ? ORDER BY webhooks.id
"""


@dataclass(frozen=True)
class Delivery:
    """`due`: when it is tried next, in unix seconds; None if it was delivered or given up. `problem`: of the last attempt."""

    id: int
    job_id: str
    status: str
    url: str
    attempts: int
    due: float | None
    delivered: float | None
    problem: str


class Deliveries:
    """Every method may raise StorageError."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def upcoming(self, is_free: Callable[[str], bool]) -> Delivery | None:
        """The one that is due first, perhaps in the future, of those whose address is free."""
        return next((Delivery(*row) for row in self._database.read(_DUE) if is_free(row["url"])), None)

    def of(self, job_id: str) -> list[Delivery]:
        """One for each time that the job ended."""
        return [Delivery(*row) for row in self._database.read(_OF_JOB, (job_id,))]

    def done(self, delivery: Delivery) -> None:
        sql = "UPDATE webhooks SET due = NULL, delivered = ?, attempts = attempts + 1, problem = '' WHERE id = ?"
        self._database.write(sql, (self._clock(), delivery.id))

    def failed(self, delivery: Delivery, problem: str, *, is_final: bool = False) -> float | None:
        """It will be tried again later; gives when, or None if it is given up."""
        is_last = is_final or delivery.attempts >= len(PAUSES)
        due = None if is_last else self._clock() + PAUSES[delivery.attempts]
        sql = "UPDATE webhooks SET due = ?, attempts = attempts + 1, problem = ? WHERE id = ?"
        self._database.write(sql, (due, problem[:500], delivery.id))
        return due
