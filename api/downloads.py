"""Downloads of models in the background: one at a time, asked for by somebody, still known after a restart.

What was running when the server ended goes on when it starts; what was stopped waits until somebody resumes it. What is on the disk is
the record (`pipelines/fetch.py`); here is only what happens now.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from errors import Canceled, JobStateError, StillmotionError, StorageError, UnknownNameError
from pipelines.fetch import PAUSES, Record, Wanted, check_free, fetch, forget, note, records
from pipelines.hub import HubSettings

log = logging.getLogger("stillmotion.models")

_PATIENCE = 3.0  # seconds
_SPEED_SECONDS = 10.0  # the speed is that of the last so many
ACTIVE = ("waiting", "checking", "running")


@dataclass
class Download:
    """`state`: waiting, checking (what is here already), running, done, failed or canceled."""

    wanted: Wanted
    state: str = "waiting"
    bytes: int = 0
    total: int = 0
    error: StillmotionError | None = None
    is_stopping: bool = False
    forgets: bool = False
    speeds: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.wanted.folder}/{self.wanted.name}".encode()).hexdigest()[:16]

    def came(self, now: float, state: str, place: int, total: int) -> None:
        if state != self.state or place < self.bytes:
            self.speeds.clear()
        self.state, self.bytes, self.total = state, place, total
        if not self.speeds or now - self.speeds[-1][0] > 0.1:
            self.speeds.append((now, place))
        while now - self.speeds[0][0] > _SPEED_SECONDS and len(self.speeds) > 2:
            self.speeds.popleft()

    def bytes_per_second(self, now: float) -> float | None:
        """None if nobody can tell yet."""
        if self.state != "running" or not self.speeds or now - self.speeds[0][0] < 0.5:
            return None
        begin, place = self.speeds[0]
        return (self.bytes - place) / (now - begin)

    def document(self, now: float) -> dict[str, Any]:
        speed, error = self.bytes_per_second(now), self.error
        remaining = (self.total - self.bytes) / speed if speed else None
        return {
            "id": self.id, "repo": self.wanted.repo, "file": self.wanted.path, "folder": self.wanted.folder, "name": self.wanted.name,
            "state": self.state, "bytes": self.bytes, "total_bytes": self.total or None,
            "bytes_per_second": speed if speed is None else round(speed), "remaining_seconds": remaining,
            "error": None if error is None else {"code": error.code, "message": error.message, "hint": error.hint},
        }  # fmt: skip


class Downloads:
    """Of one models directory. `start` goes on with what was running; the thread is there only while there is something to do."""

    def __init__(
        self, models_dir: Path, hub: HubSettings, *, clock: Callable[[], float] = time.monotonic, pauses: Sequence[float] = PAUSES
    ) -> None:
        self.models_dir, self.hub, self._clock, self._pauses = models_dir, hub, clock, pauses
        self._lock = threading.Lock()
        self._items: dict[str, Download] = {}
        self._thread: threading.Thread | None = None
        self._now: Download | None = None
        self._is_closing = False

    def start(self) -> None:
        with self._lock:
            for record in records(self.models_dir):
                one = _of(record)
                self._items[one.id] = one
            self._work_if_needed()

    def close(self) -> None:
        """What runs stops, and goes on when a server starts again."""
        with self._lock:
            self._is_closing, thread = True, self._thread
        if thread is not None:
            thread.join(_PATIENCE)  # it may wait for a silent hub; what came is safe on the disk

    def list(self, *, shows_paths: bool = True) -> list[dict[str, Any]]:
        """Those of this process, and what others have left. Without `shows_paths` nothing says where the folder of models is."""
        with self._lock:
            for record in records(self.models_dir):
                one = _of(replace(record, is_running=False))
                if one.id not in self._items:
                    self._items[one.id] = one
            for one in [one for one in self._items.values() if self._came_otherwise(one)]:
                del self._items[one.id]
            now = self._clock()
            found = [one.document(now) for one in self._items.values()]
        return found if shows_paths else [self._without_paths(one) for one in found]

    def _came_otherwise(self, one: Download) -> bool:
        """It was broken off here, and somebody else, such as the command line, has fetched it since."""
        return one is not self._now and one.state in ("canceled", "failed") and one.wanted.target(self.models_dir).exists()

    def _without_paths(self, document: dict[str, Any]) -> dict[str, Any]:
        if document["error"] is None:
            return document
        places = (str(self.models_dir.resolve()), str(self.models_dir.absolute()), str(self.models_dir))
        error = dict(document["error"])
        for name, place in itertools.product(("message", "hint"), places):
            error[name] = error[name].replace(place, "models")
        return document | {"error": error}

    def add(self, wanted: Wanted) -> dict[str, Any]:
        """Begin it, or go on with it. Raises InputError for names and for a file that is there already; JobStateError if it runs;
        StorageError if it cannot be written down."""
        wanted = wanted.checked()
        check_free(self.models_dir, wanted)
        with self._lock:
            one = Download(wanted)
            known = self._items.get(one.id)
            if known is not None and known.state in ACTIVE:
                raise JobStateError(f"{wanted.folder}/{wanted.name} is being fetched already.", "Wait for it, or cancel it first.")
            found = self._record(wanted)
            note(self.models_dir, replace(found, is_running=True))
            one.bytes, one.total = found.bytes, found.size
            self._items[one.id] = one
            self._work_if_needed()
            return one.document(self._clock())

    def resume(self, download_id: str) -> dict[str, Any]:
        """Raises UnknownNameError, and what `add` raises."""
        return self.add(self.find(download_id).wanted)

    def cancel(self, download_id: str, *, forgets: bool = False) -> dict[str, Any]:
        """It stops within a moment. With `forgets` what came is removed; else it can be resumed. Raises UnknownNameError, StorageError."""
        one = self.find(download_id)
        with self._lock:
            if one.state != "done":
                one.state, one.is_stopping, one.forgets = "canceled", True, forgets
            if one is not self._now:
                self._settle(one)
            return one.document(self._clock())

    def _settle(self, one: Download) -> None:
        """Nobody is at it any more."""
        if one.forgets or one.state == "done":
            self._items.pop(one.id, None)
        if one.forgets:
            forget(self.models_dir, one.wanted)
        elif one.state != "done":
            note(self.models_dir, replace(self._record(one.wanted), is_running=False))

    def _record(self, wanted: Wanted) -> Record:
        return next((record for record in records(self.models_dir) if record.wanted == wanted), Record(wanted))

    def find(self, download_id: str) -> Download:
        """Raises UnknownNameError."""
        self.list()
        with self._lock:
            if download_id not in self._items:
                raise UnknownNameError("download", download_id, self._items)
            return self._items[download_id]

    def _work_if_needed(self) -> None:
        if self._thread is None and not self._is_closing and any(one.state == "waiting" for one in self._items.values()):
            self._thread = threading.Thread(target=self._work, name="downloads", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (one := self._next()) is not None:
            self._fetch(one)

    def _next(self) -> Download | None:
        with self._lock:
            waiting = [one for one in self._items.values() if one.state == "waiting"]
            if not waiting or self._is_closing:
                self._thread = None
                return None
            self._now = waiting[0]
            self._now.state = "checking"
            return self._now

    def _fetch(self, one: Download) -> None:
        state, problem = "done", None
        try:
            path = fetch(self.hub, one.wanted, self.models_dir, partial(self._told, one), lambda: self._must_stop(one), self._pauses)
            log.info("fetched %s of %s", path, one.wanted.repo)
        except Canceled:
            state = "canceled"
        except StillmotionError as error:
            state, problem = "failed", error
            log.warning("%s was not fetched: %s", one.wanted.name, error)
        except Exception:
            state, problem = "failed", StillmotionError("Something went wrong on our side.", "The log of the server tells more.")
            log.exception("%s was not fetched", one.wanted.name)
        with self._lock:
            self._now, one.state, one.error = None, state, problem
            if one.is_stopping and self._items.get(one.id) is one:
                with suppress(StorageError):
                    self._settle(one)

    def _told(self, one: Download, state: str, place: int, total: int) -> None:
        with self._lock:
            if not one.is_stopping:
                one.came(self._clock(), state, place, total)

    def _must_stop(self, one: Download) -> bool:
        return one.is_stopping or self._is_closing


def _of(record: Record) -> Download:
    return Download(record.wanted, "waiting" if record.is_running else "canceled", record.bytes, record.size)
