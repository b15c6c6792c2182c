"""When a job will be done: its place in the line, and what the jobs before it should take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from jobs.store import JobStore

FRESH_SECONDS = 0.5

_RUNNING = "SELECT id FROM jobs WHERE status = 'running'"
_WAITING = "SELECT id, work FROM jobs WHERE status = 'queued'"


@dataclass(frozen=True)
class Prospect:
    """`place` in the line, 1 for the next; None for a job that runs. `remaining_seconds` until it is done; None if nobody can tell."""

    place: int | None
    remaining_seconds: float | None


class Forecasts:
    """`forecast`, made once for all who ask within half a second: with a long line many clients would ask for the same."""

    def __init__(self, store: JobStore, steady: Callable[[], float] = time.monotonic) -> None:
        self._store, self._steady, self._lock = store, steady, threading.Lock()
        self._newest: Mapping[str, Prospect] = {}
        self._made: float | None = None

    def of(self, job_ids: Iterable[str], *, is_changed: bool = False) -> Mapping[str, Prospect]:
        """At least of these jobs, as far as they run or wait. `is_changed`: the line is not what it was. Raises StorageError."""
        with self._lock:
            is_fresh = self._made is not None and self._steady() - self._made < FRESH_SECONDS
            if is_changed or not is_fresh or any(job_id not in self._newest for job_id in job_ids):
                self._newest, self._made = forecast(self._store), self._steady()
            return self._newest


def forecast(store: JobStore) -> dict[str, Prospect]:
    """Of every job that runs or waits. Estimates are of jobs of the same size; while the queue is paused nobody can tell when it goes on.

    Raises StorageError."""
    running = {row["id"]: store.remaining(row["id"]) for row in store.database.read(_RUNNING)}
    found = {job_id: Prospect(None, _rounded(seconds)) for job_id, seconds in running.items()}
    waited = None if store.is_paused or None in running.values() else sum(running.values())
    for place, (job_id, seconds) in enumerate(_in_line(store), start=1):
        waited = None if waited is None or seconds is None else waited + seconds
        found[job_id] = Prospect(place, _rounded(waited))
    return found


def _in_line(store: JobStore) -> Iterator[tuple[str, float | None]]:
    """Who waits, in order, and how long each should run."""
    works = {row["id"]: row["work"] for row in store.database.read(_WAITING)}
    places = store.positions() if works else {}
    estimates = {work: store.estimate(work) for work in set(works.values())}
    for job_id in sorted(places, key=places.__getitem__):
        yield job_id, estimates.get(works.get(job_id, ""))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
