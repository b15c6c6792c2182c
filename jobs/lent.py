"""The executor of a GPU that is lent for as long as a call takes: ZeroGPU of Hugging Face Spaces.

`lend` makes of a function one that runs in another process, forked from this one, which alone has the GPU (`spaces.GPU`; where nothing
is lent it gives the function back as it is). What it is called with is pickled, and nothing else passes: so a job is talked about over a
socket, as with replicas on other machines. The record, the queue, the journal of files and the wish to stop stay here.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from errors import Canceled, LentGpuError
from jobs.dialog import AskingJournal, Closed, Done, answer_of, heard, work_there
from jobs.job import Job, Outcome
from jobs.progress import progress_data
from jobs.publications import Journal
from jobs.runner import Report, Runner, record
from jobs.worker import Lost
from pipelines.progress import IsCanceled, Progress

Work = Callable[[str, Job], None]
Lend = Callable[[Work, Callable[[str, Job], float]], Work]

MOST_SECONDS = 120.0  # asked for where nothing is known: the most that a visitor may have at once
_LEAST_SECONDS, _SPARE_SECONDS, _SPARE = 30.0, 20.0, 1.5
_KINDS = 1000  # of work whose seconds are remembered, the newest
_LOOK_SECONDS = 0.25  # between two looks whether somebody wants it to stop
_STOP_SECONDS = 15.0  # the other process may take so long to stop; then nobody listens to it any more
_GONE = "the process that had the GPU has ended"
_STOP = "stop"  # what it is told then, where it waits for no answer


class Lent:
    """Knows what `Runner` knows. `begin` tells whoever lends that we are there."""

    hands, is_started, hears, reads_here = 1, True, True, True

    def __init__(self, runner: Runner, lend: Lend, begin: Callable[[], None]) -> None:
        self._runner, self._begin = runner, begin  # the runner works in the other process; here it is never loaded
        self._device: Mapping[str, Any] | None = None
        self._counts: tuple[int, int] = (0, 0)
        self._taken: dict[str, float] = {}  # seconds, by kind of work
        self._work = lend(self._work_there, self._seconds)

    def start(self) -> None:
        self._begin()

    def close(self) -> None:
        """Nothing: the other process ends with this one."""

    def release(self) -> None:
        """Nothing: the GPU is given back after each job."""

    def device(self) -> Mapping[str, Any] | None:
        """Of the last job."""
        return self._device

    def cache_counts(self) -> tuple[int, int]:
        """Of the other process that did the last job."""
        return self._counts

    def __call__(self, job: Job, report: Report, is_canceled: IsCanceled, journal: Journal) -> Outcome:
        """Raises StillmotionError, with the node in `node`; Canceled; Lost."""
        report("progress", progress_data(Progress("waking", 0, 0)))
        began = time.monotonic()
        with TemporaryDirectory(prefix="stillmotion-") as folder, socket.socket(socket.AF_UNIX) as door:  # a folder for us alone
            address = str(Path(folder, "talk"))
            door.bind(address)
            door.listen(1)
            door.settimeout(_LOOK_SECONDS)
            call = _Call(self._work, address, job)
            with _entered(door, call, is_canceled) as talk:
                outcome, self._device, self._counts = _hear(talk, report, is_canceled, journal)
            call.join(_STOP_SECONDS)  # the GPU is given back
        self._taken = dict([*self._taken.items(), (job.work, time.monotonic() - began)][-_KINDS:])
        record(self._runner.data_dir, job, outcome)
        return outcome

    def _seconds(self, address: str, job: Job) -> float:
        """For how long a GPU is asked for: somewhat longer than the same work took, since what runs then is ended."""
        taken = self._taken.get(job.work)
        return MOST_SECONDS if taken is None else min(MOST_SECONDS, max(_LEAST_SECONDS, _SPARE * taken + _SPARE_SECONDS))

    def _work_there(self, address: str, job: Job) -> None:
        """In the other process."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(address)  # raises where nobody waits for it any more
            talk = Connection(sock.detach())
        stop, answers = threading.Event(), queue.SimpleQueue()
        threading.Thread(target=_listen, args=(talk, stop, answers), name="talk", daemon=True).start()

        def say(*item: Any) -> None:
            try:
                talk.send(item)
            except OSError as error:
                raise Closed from error

        def ask(name: str, values: tuple[Any, ...]) -> Any:
            say("asked", 0, name, values)
            return answers.get()

        with talk, suppress(Closed):
            work_there(self._runner, job, say, stop.is_set, AskingJournal(ask))


class _Call(threading.Thread):
    """Of what was lent; `error` is what it raised."""

    def __init__(self, work: Work, address: str, job: Job) -> None:
        super().__init__(name="lent", daemon=True)
        self._there, self.error = lambda: work(address, job), None
        self.start()

    def run(self) -> None:
        try:
            self._there()
        except BaseException as error:
            self.error = error


def _entered(door: socket.socket, call: _Call, is_canceled: IsCanceled) -> Connection:
    """Waits for the other process. Raises LentGpuError if there will be none; Canceled."""
    while True:
        with suppress(TimeoutError):
            return Connection(door.accept()[0].detach())
        if is_canceled():
            raise Canceled
        if not call.is_alive():
            raise LentGpuError(f"No GPU was lent for this film: {call.error}", "Try again later; what was asked for is kept.")


def _hear(talk: Connection, report: Report, is_canceled: IsCanceled, journal: Journal) -> Done:
    """Until the end. Raises as `Lent`."""
    asked: float | None = None
    while True:
        if talk.poll(_LOOK_SECONDS):
            try:
                item = talk.recv()
            except (EOFError, OSError) as error:
                raise Lost(_GONE) from error
            if item[0] == "asked":
                _send(talk, answer_of(journal, *item[2:]))
            elif (done := heard(item, report, "the process with the GPU", was_asked=asked is not None)) is not None:
                return done
        if asked is None and is_canceled():
            asked = time.monotonic()
            _send(talk, _STOP)
        if asked is not None and time.monotonic() - asked > _STOP_SECONDS:
            raise Canceled


def _send(talk: Connection, item: Any) -> None:
    """Raises Lost."""
    try:
        talk.send(item)
    except OSError as error:
        raise Lost(_GONE) from error


def _listen(talk: Connection, stop: threading.Event, answers: queue.SimpleQueue[Any]) -> None:
    """In the other process: until nobody speaks any more, and then nobody listens either."""
    while True:
        try:
            item = talk.recv()
        except (EOFError, OSError):
            stop.set()
            answers.put(Closed())
            return
        if item == _STOP:
            stop.set()
        else:
            answers.put(item)
