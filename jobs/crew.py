"""Several workers on one database, each at one job at a time: for executors that do several jobs side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from jobs.progress import Board
from jobs.store import JobStore
from jobs.worker import Run, Worker, nothing_more, nothing_to_do


class Crew:
    """As `Worker`, with `hands` of them. It is idle while none of them works."""

    def __init__(
        self,
        store: JobStore,
        run: Run,
        board: Board,
        *,
        hands: int,
        on_idle: Callable[[float], None] = nothing_to_do,
        on_pause: Callable[[], None] = nothing_more,
        steady: Callable[[], float] = time.monotonic,
        **more: float,
    ) -> None:
        self.store, self.on_idle, self.on_pause, self.steady, self._idle_since = store, on_idle, on_pause, steady, steady()
        self._hooks = threading.Lock()
        self._failure: Exception | None = None
        told = {"on_idle": self._idle, "on_pause": self._pause, "steady": steady, **more}
        self.workers = [Worker(store, run, board, name=f"worker-{number}", **told) for number in range(1, hands + 1)]

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(job_id for worker in self.workers for job_id in worker.running)

    @property
    def is_draining(self) -> bool:
        return self.workers[0].is_draining

    @property
    def is_overdue(self) -> bool:
        return self.workers[0].is_overdue

    def drain(self, seconds: float) -> None:
        for worker in self.workers:
            worker.drain(seconds)

    def run_forever(self, stop: threading.Event) -> None:
        """Until `stop` is set or `drain` was called, and what runs then is over. If one of them breaks all end, and its error comes out."""
        self.store.recover()
        with ExitStack() as at_the_end:
            at_the_end.callback(self.store.worker_lock.release)
            for worker in self.workers:
                thread = threading.Thread(target=self._work, args=(worker, stop), name=worker.name, daemon=True)
                at_the_end.callback(thread.join)
                thread.start()
        if self._failure is not None:
            raise self._failure

    def _work(self, worker: Worker, stop: threading.Event) -> None:
        try:
            worker.work(stop)
        except Exception as error:
            self._failure = self._failure or error
            self.drain(0)

    def _idle(self, seconds: float) -> None:
        """One of them has nothing to do."""
        with self._hooks:
            now = self.steady()
            if self._is_at_work():
                self._idle_since = now
            else:
                self.on_idle(min(seconds, max(0.0, now - self._idle_since)))

    def _pause(self) -> None:
        """Each of them says so once; the last of them when nothing runs any more."""
        with self._hooks:
            if not self._is_at_work():
                self.on_pause()

    def _is_at_work(self) -> bool:
        return any(worker.is_at_work for worker in self.workers)
