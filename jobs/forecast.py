"""When a job will be done: its place in the line, and what it and those before it should take by `estimates`, as the form has said. As
many are done side by side as the executor has hands.

That is time at work. While models are loaded the clock stands: what will remain once they are there is what is told."""

from __future__ import annotations

import heapq
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.estimates import Measured, Models, models_of
from jobs.store import JobStore

FRESH_SECONDS = 0.5

AtWork = Callable[[str], float | None]  # how long a job has been at work, by its id; None if nobody here knows

_OPEN = "SELECT id, work, started, status = 'running' AS runs FROM jobs WHERE status IN ('running', 'queued')"
_SUCCEEDED = "SELECT count(*) FROM jobs WHERE status = 'succeeded'"
_WORKFLOWS = "SELECT id, workflow FROM jobs WHERE id IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Prospect:
    """`place` in the line, 1 for the next; None for a job that runs. `remaining_seconds` until it is done; None if nobody can tell.
    `is_held`: it waits, and the queue is paused."""

    place: int | None
    remaining_seconds: float | None
    is_held: bool = False


def nobody_knows(job_id: str) -> float | None:
    """An `AtWork`: then what counts is when the job was started."""


class Forecasts:
    """`forecast`, made once for all who ask within half a second: with a long line many clients would ask for the same."""

    def __init__(
        self, store: JobStore, at_work: AtWork = nobody_knows, steady: Callable[[], float] = time.monotonic, *, hands: int = 1
    ) -> None:
        self._store, self._at_work, self._steady, self._lock, self._hands = store, at_work, steady, threading.Lock(), hands
        self._newest: Mapping[str, Prospect] = {}
        self._made: float | None = None
        self._costs = Costs(store)

    def of(self, job_ids: Iterable[str], *, is_changed: bool = False) -> Mapping[str, Prospect]:
        """At least of these jobs, as far as they run or wait. `is_changed`: the line is not what it was. Raises StorageError."""
        with self._lock:
            is_fresh = self._made is not None and self._steady() - self._made < FRESH_SECONDS
            if is_changed or not is_fresh or any(job_id not in self._newest for job_id in job_ids):
                self._newest, self._made = forecast(self._store, self._at_work, self._costs, hands=self._hands), self._steady()
            return self._newest


class Costs:
    """How long each job should run. What does not change is kept: a job's models, and what was measured until another has succeeded."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._models: dict[str, Models] = {}  # of what runs or waits
        self._seconds: dict[tuple[str, Models], float | None] = {}  # by work and models
        self._succeeded = -1

    def of(self, jobs: Mapping[str, Any]) -> dict[str, float | None]:
        """None where nobody can tell. `jobs`: rows by id, all that run or wait. Raises StorageError."""
        self._read_models(jobs)
        (succeeded,) = self._store.database.read(_SUCCEEDED)[0]
        if succeeded != self._succeeded:
            self._succeeded, self._seconds = succeeded, {}
        kinds = {job_id: (row["work"], self._models.get(job_id, ())) for job_id, row in jobs.items()}
        measured = Measured(self._store)
        for kind in set(kinds.values()) - self._seconds.keys():
            self._seconds[kind] = measured.seconds(*kind)
        return {job_id: self._seconds[kind] for job_id, kind in kinds.items()}

    def _read_models(self, jobs: Mapping[str, Any]) -> None:
        for job_id in self._models.keys() - jobs.keys():
            del self._models[job_id]
        if unread := [job_id for job_id in jobs if job_id not in self._models]:
            for row in self._store.database.read(_WORKFLOWS, (json.dumps(unread),)):
                self._models[row["id"]] = models_of(json.loads(row["workflow"]))


def forecast(store: JobStore, at_work: AtWork = nobody_knows, costs: Costs | None = None, *, hands: int = 1) -> dict[str, Prospect]:
    """Of every job that runs or waits; while the queue is paused nobody can tell when it goes on. `costs`: of earlier ones.

    Raises StorageError."""
    return _outlook(store, at_work, costs, hands)[0]


def queue_seconds(store: JobStore, at_work: AtWork = nobody_knows, *, hands: int = 1) -> float | None:
    """Until one of the hands is free of all that runs and waits now, which is the most that a new job waits; None if nobody can tell."""
    return _rounded(min(_outlook(store, at_work, None, hands)[1], default=None))


def _outlook(store: JobStore, at_work: AtWork, costs: Costs | None, hands: int) -> tuple[dict[str, Prospect], list[float]]:
    """And after how many seconds each hand is free, of which that is known."""
    jobs = {row["id"]: row for row in store.database.read(_OPEN)}
    seconds = (costs or Costs(store)).of(jobs)

    def spent(job_id: str) -> float:
        known = at_work(job_id)
        return store.seconds_since(job_id, jobs[job_id]["started"]) if known is None else known

    left = {job_id: _left(seconds[job_id], spent(job_id)) for job_id, row in jobs.items() if row["runs"]}
    found = {job_id: Prospect(None, _rounded(rest)) for job_id, rest in left.items()}
    is_paused = store.is_paused
    free = [] if is_paused else [rest for rest in left.values() if rest is not None] + [0.0] * (hands - len(left))
    heapq.heapify(free)
    places = store.positions() if len(left) < len(jobs) else {}
    for place, job_id in enumerate(sorted(places, key=places.__getitem__), start=1):
        begun, cost = heapq.heappop(free) if free else None, seconds.get(job_id)  # none of one that came meanwhile
        done = None if begun is None or cost is None else begun + cost
        if done is not None:  # else nobody knows when that hand is free again
            heapq.heappush(free, done)
        found[job_id] = Prospect(place, _rounded(done), is_paused)
    return found, free


def _left(cost: float | None, spent: float) -> float | None:
    return None if cost is None else max(0.0, cost - spent)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
