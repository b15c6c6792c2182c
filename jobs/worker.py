"""The one who works: takes the next job, runs it, writes down how it ended. One thread owns the GPU."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from errors import Canceled, StillmotionError, StorageError
from jobs.job import Failure, Job, Outcome
from jobs.progress import Board, EventKind, JobEvent
from jobs.publications import Journal
from jobs.store import JobStore

log = logging.getLogger(__name__)

Report = Callable[[EventKind, dict[str, Any]], None]
Run = Callable[[Job, Report, Callable[[], bool], Journal], Outcome]


class Lost(Exception):
    """Of a `Run`: the process or the machine that did the job is gone."""


def nothing_to_do(seconds_idle: float) -> None:
    """An `on_idle` for workers whose idleness nobody uses."""


def nothing_more() -> None:
    """An `on_pause` for workers whose pauses nobody uses."""


class Worker:
    """`run(job, report, is_canceled, journal)` does the work. `report(kind, data)` takes the kinds and data of `JobEvent` that tell of
    progress; `is_canceled()` is asked between steps, and when it says yes `run` raises Canceled; `journal` knows which files are out. A job
    whose `run` raises Lost waits again at its old place.

    `on_idle(seconds)` is called again and again while there is nothing to do, `on_pause()` once when the queue is paused and the last
    job is over. The worker looks for jobs of other processes every `poll_seconds`; those of its own wake it at once.
    """

    def __init__(
        self,
        store: JobStore,
        run: Run,
        board: Board,
        *,
        name: str = "worker",
        on_idle: Callable[[float], None] = nothing_to_do,
        on_pause: Callable[[], None] = nothing_more,
        poll_seconds: float = 1.0,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.run, self.board, self.name = store, run, board, name
        self.on_idle, self.on_pause, self.poll_seconds, self.steady = on_idle, on_pause, poll_seconds, steady
        self.running: tuple[str, ...] = ()  # the job that is being done
        self.is_at_work = False  # or about to be
        self._deadline: float | None = None  # by `steady`; set once we should come to an end
        self._unwritten: tuple[Job, Callable[[], object]] | None = None  # how a job ended, until it is on the disk
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # a signal handler may put into it, whatever it interrupts

    @property
    def is_draining(self) -> bool:
        return self._deadline is not None

    @property
    def is_overdue(self) -> bool:
        """What runs should have been over by now."""
        return self._deadline is not None and self.steady() >= self._deadline

    def drain(self, seconds: float) -> None:
        """Begin nothing new. What runs may finish within `seconds`, and goes back into the queue otherwise. Returns at once; may be
        called from a signal handler, and again to shorten the time."""
        deadline = self.steady() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self._wake.put(None)

    def stop(self) -> None:
        """As `drain`, without any time."""
        self.drain(0)

    def step(self) -> Job | None:
        """Do one job from its claim to its end, and give it as it is then; None if there is nothing to do.

        Raises StorageError if the store cannot be read or written: how a job ended is then kept, and written by the next step.
        """
        self.is_at_work = True
        try:
            self._write_what_is_left()
            job = None if self.is_draining else self.store.claim(self.name)
            if job is None:
                return None
            self._unwritten = job, self._ending_of(job)
            self._write_what_is_left()
            return self.store.get(job.id)
        finally:
            self.is_at_work = False

    def run_forever(self, stop: threading.Event) -> None:
        """Work until `stop` is set (seen within `poll_seconds`) or `drain` was called, and the job that runs then is over.

        Raises StorageError if another process works on this database."""
        self.store.recover()
        try:
            self.work(stop)
        finally:
            self.store.worker_lock.release()

    def work(self, stop: threading.Event) -> None:
        """As `run_forever`, for one of several who work on the same database in this process, which holds its lock."""
        unsubscribe = self.board.subscribe(self._notice)
        try:
            self._work(stop)
        finally:
            unsubscribe()

    def _work(self, stop: threading.Event) -> None:
        idle_since, was_paused = self.steady(), False
        while not stop.is_set() and not self.is_draining:
            try:
                job, is_paused = self.step(), self.store.is_paused
            except StorageError as error:
                log.error("The job database cannot be used: %s", error)
                job, is_paused = None, was_paused
            if job is not None:
                idle_since = self.steady()
                continue
            if is_paused and not was_paused:
                self._hook(self.on_pause)
            was_paused = is_paused
            self._hook(self.on_idle, max(0.0, self.steady() - idle_since))
            self._sleep(self.poll_seconds)
        try:
            self._write_what_is_left()
        except StorageError as error:
            log.error("How the last job ended could not be written; it will be done again: %s", error)

    def _notice(self, event: JobEvent) -> None:
        if event.kind in ("queued", "requeued", "paused", "resumed"):
            self._wake.put(None)

    def _sleep(self, seconds: float) -> None:
        """Until somebody wakes us; all that was put until then is one waking."""
        with suppress(queue.Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()

    def _hook(self, hook: Callable[..., None], *values: float) -> None:
        try:
            hook(*values)
        except Exception:
            log.exception("What should be done in idle time failed.")

    def _ending_of(self, job: Job) -> Callable[[], object]:
        """Run the job; gives what writes down how it ended."""
        seen, self.running = _Seen(job.id, self.board, self.steady), (job.id,)
        try:
            outcome = self.run(job, seen.report, lambda: self._is_canceled(job.id), self.store.journal(job.id))
            return lambda: self.store.finish(job.id, outcome)
        except Canceled:
            outcome = seen.until_now()
            return lambda: self._put_back(job.id) or self.store.finish_canceled(job.id, outcome)
        except Lost as lost:
            log.warning("Whoever did the job %s is gone: %s", job.id, lost)
            return lambda: self.store.lose(job.id)
        except StillmotionError as error:
            log.warning("The job %s failed: %s", job.id, error)
            failure, outcome = Failure.of(error), seen.until_now()
            return lambda: self.store.fail(job.id, failure, outcome)
        except Exception as error:
            (failure, text), outcome = internal_failure(job.id, error), seen.until_now()
            return lambda: self.store.fail(job.id, failure, outcome, text)
        except BaseException:  # Ctrl-C: up with it, but first the job must not be lost
            with suppress(StorageError):  # else it is found when we start again
                self.store.requeue(job.id) or self.store.finish_canceled(job.id, seen.until_now())
            raise
        finally:
            self.running = ()

    def _write_what_is_left(self) -> None:
        """How the last job ended. It is forgotten only once it is on the disk. What cannot be written down at all is our mistake."""
        if self._unwritten is None:
            return
        job, end = self._unwritten
        try:
            end()
        except StorageError:
            raise
        except Exception as error:
            failure, text = internal_failure(job.id, error)
            self.store.fail(job.id, failure, log=text)
        self._unwritten = None

    def _put_back(self, job_id: str) -> bool:
        """If it was stopped because we come to an end, and not because somebody asked for it."""
        return self.is_draining and self.store.requeue(job_id)

    def _is_canceled(self, job_id: str) -> bool:
        if self.is_overdue:
            return True
        try:
            return self.store.is_cancel_requested(job_id)
        except StorageError as error:
            log.warning("Whether the job %s should stop cannot be told now: %s", job_id, error)
            return False


class _Seen:
    """Passes on what a run reports, and keeps what it has already made, for the case that it does not get to its end."""

    def __init__(self, job_id: str, board: Board, steady: Callable[[], float]) -> None:
        self.job_id, self.board, self.steady, self.outcome = job_id, board, steady, Outcome()
        self._stage, self._since = "", steady()

    def until_now(self) -> Outcome:
        """What there is of it, and the seconds that each stage has taken."""
        self._enter("")
        return self.outcome

    def _enter(self, stage: str) -> None:
        now = self.steady()
        if self._stage and self._stage != stage:
            spent = self.outcome.stage_seconds
            spent = spent | {self._stage: round(spent.get(self._stage, 0.0) + max(0.0, now - self._since), 3)}
            self.outcome = replace(self.outcome, stage_seconds=spent)
        if self._stage != stage:
            self._stage, self._since = stage, now

    def report(self, kind: EventKind, data: dict[str, Any]) -> None:
        if kind == "progress":
            self._enter(data["stage"])
        elif kind == "output":
            files = (*self.outcome.files, *data.get("files", ()))
            self.outcome = replace(self.outcome, outputs=self.outcome.outputs | {data["node_id"]: data["ui"]}, files=files)
        elif kind == "cached":
            self.outcome = replace(self.outcome, cached=[*self.outcome.cached, *data["nodes"]])
        self.board.publish(JobEvent(self.job_id, kind, data))


def internal_failure(job_id: str, error: Exception) -> tuple[Failure, str]:
    """A mistake of ours: the person gets a number, the log and the job get the rest under the same number."""
    number = secrets.token_hex(4)
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    log.error("The job %s failed; error %s:\n%s", job_id, number, text)
    message, node = f"Something went wrong inside Stillmotion (error {number}).", str(getattr(error, "node", ""))
    return Failure("internal", message, "The log tells more under this number. Other jobs are not affected.", node, {"id": number}), text
