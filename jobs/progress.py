"""What is happening right now: the newest progress of each running job, and every event in order, for those who watch."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jobs.job import PREPARING, Output
from pipelines.progress import Progress

log = logging.getLogger(__name__)

EventKind = Literal[
    "queued", "started", "cached", "node", "progress", "preview", "output",
    "succeeded", "failed", "canceled", "requeued", "deleted", "paused", "resumed",
]  # fmt: skip
ENDINGS = ("succeeded", "failed", "canceled", "requeued")
_REMEMBERED = 256  # ended jobs, for pages that ask a little late


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job; `job_id` is "" for paused and resumed. What `data` holds:

    queued, started, succeeded, failed, canceled, requeued, deleted: `job`, as it is then
    cached: `nodes`, their ids     node: `node_id`, which begins     output: `node_id`, `ui` (ComfyUI's), `is_cached`, `files` (Outputs)
    progress: `node_id`, `stage`, `step`, `total`     preview: `node_id`, `image` (bytes), `format` ("jpeg" or "png")
    """

    job_id: str
    kind: EventKind
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """Where a job is. `started` is unix seconds, `seconds` how long it had been at work when this was told, without the stages of
    `PREPARING`; `version` grows with each change."""

    job_id: str
    version: int
    status: str = "running"
    node: str = ""
    stage: str = ""
    step: int = 0
    total: int = 0
    started: float = 0.0
    seconds: float = 0.0
    preview: bytes = b""  # the newest of so many
    previews: int = 0
    files: tuple[Output, ...] = ()  # those that it has written so far
    has_moved: bool = False  # what is decoded and encoded from then on is the film


class Board:
    """Takes events from the store and the worker, keeps the newest snapshot of each job, wakes whoever waits.

    Safe to use from any thread. Subscribers are called one event after the other, in order, in the thread that publishes: they should
    pass the event on and return. One that raises is logged and stays subscribed.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, steady: Callable[[], float] | None = None) -> None:
        self.clock, self.steady = clock, steady or (time.monotonic if clock is time.time else clock)
        self._changed = threading.Condition()
        self._in_order = threading.RLock()
        self._version = 0
        self._snapshots: dict[str, Snapshot] = {}
        self._at_work: dict[str, _Stopwatch] = {}
        self._ended: OrderedDict[str, Snapshot] = OrderedDict()
        self._subscribers: dict[object, Callable[[JobEvent], None]] = {}

    def publish(self, event: JobEvent) -> None:
        with self._in_order:
            with self._changed:
                self._note(event)
                subscribers = list(self._subscribers.values())
                self._changed.notify_all()
            for callback in subscribers:
                try:
                    callback(event)
                except Exception:
                    log.exception("A subscriber failed at %s of job %s.", event.kind, event.job_id)

    def subscribe(self, callback: Callable[[JobEvent], None]) -> Callable[[], None]:
        """Call what is returned to hear no more. Calling it twice does no harm."""
        key = object()
        with self._changed:
            self._subscribers[key] = callback

        def unsubscribe() -> None:
            with self._changed:
                self._subscribers.pop(key, None)

        return unsubscribe

    def newest(self, job_id: str) -> Snapshot | None:
        """None if nothing was heard of the job since this process began, or if it waits."""
        with self._changed:
            return self._find(job_id)

    def seconds_at_work(self, job_id: str) -> float | None:
        """How long a running job has been at work until now, without the stages of `PREPARING`; None of one that does not run here."""
        with self._changed:
            watch = self._at_work.get(job_id)
            return None if watch is None else watch.read(self.steady())

    def running(self) -> list[Snapshot]:
        with self._changed:
            return list(self._snapshots.values())

    def wait(self, job_id: str, since_version: int = 0, timeout: float | None = None) -> Snapshot | None:
        """The newest snapshot as soon as it is newer than `since_version`; None if that takes longer than `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_newer(job_id, since_version), timeout)
            return self._find(job_id) if self._is_newer(job_id, since_version) else None

    def _is_newer(self, job_id: str, version: int) -> bool:
        snapshot = self._find(job_id)
        return snapshot is not None and snapshot.version > version

    def _find(self, job_id: str) -> Snapshot | None:
        return self._snapshots.get(job_id) or self._ended.get(job_id)

    def _note(self, event: JobEvent) -> None:
        self._version += 1
        if event.kind == "started":
            self._at_work[event.job_id] = _Stopwatch(self.steady())
            self._ended.pop(event.job_id, None)
            self._snapshots[event.job_id] = Snapshot(event.job_id, self._version, started=self.clock())
        elif event.kind in ENDINGS:
            self._end(event)
        elif event.kind == "queued":  # perhaps again
            self._ended.pop(event.job_id, None)
        elif event.job_id in self._snapshots:
            if event.kind == "progress":
                self._at_work[event.job_id].turn(self.steady(), is_on=event.data["stage"] not in PREPARING)
            seconds = self._at_work[event.job_id].read(self.steady())
            told = replace(self._snapshots[event.job_id], version=self._version, seconds=seconds)
            self._snapshots[event.job_id] = replace(told, **_changes(event, told))

    def _end(self, event: JobEvent) -> None:
        last = self._snapshots.pop(event.job_id, None) or Snapshot(event.job_id, 0)
        now = self.steady()
        seconds = self._at_work.pop(event.job_id, _Stopwatch(now)).read(now)
        status = "queued" if event.kind == "requeued" else event.kind
        self._ended[event.job_id] = replace(last, version=self._version, status=status, seconds=seconds, preview=b"", files=())
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)


class _Stopwatch:
    """Runs from `now` on, or not."""

    def __init__(self, now: float) -> None:
        self._counted, self._since, self._is_on = 0.0, now, True

    def turn(self, now: float, *, is_on: bool) -> None:
        self._counted, self._since, self._is_on = self.read(now), now, is_on

    def read(self, now: float) -> float:
        return self._counted + (max(0.0, now - self._since) if self._is_on else 0.0)


def progress_data(progress: Progress, node_id: str = "") -> dict[str, Any]:
    """What a "progress" event holds."""
    return {"node_id": node_id, "stage": progress.stage, "step": progress.step, "total": progress.total}


def _changes(event: JobEvent, before: Snapshot) -> dict[str, Any]:
    data = event.data
    match event.kind:
        case "node":
            return {"node": data["node_id"]}
        case "progress":
            node = {"node": data["node_id"]} if data.get("node_id") else {}
            has_moved = before.has_moved or data["stage"] == "motion"
            return node | {"has_moved": has_moved} | {name: data[name] for name in ("stage", "step", "total")}
        case "preview":
            return {"preview": data["image"], "previews": before.previews + 1}
        case "output":
            return {"files": (*before.files, *data.get("files", ()))}
        case _:
            return {}
