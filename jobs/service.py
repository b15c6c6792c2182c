"""What works beside the server: the table, the worker's thread, the webhooks, the housekeeping; started and ended together.

service = Service(store_settings, work_settings, catalog)
service.start()          # from here on jobs are done
service.drain(seconds)   # nothing new begins; what runs may finish, or goes back into the line
service.wait()           # until the worker has ended
service.close()
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import StillmotionError
from jobs import webhooks
from jobs.crew import Crew
from jobs.estimates import models_of
from jobs.job import ENDED, Job, Outcome
from jobs.keeping import keep_within
from jobs.progress import Board, JobEvent
from jobs.publications import Journal
from jobs.queues import Queues
from jobs.runner import Runner, make_engine
from jobs.service_settings import FOLDERS, StoreSettings, WorkSettings
from jobs.store import JobStore
from jobs.webhooks import Webhooks
from jobs.worker import Report, Run, Worker
from pipelines.filenames import storage_error
from pipelines.model_files import list_checkpoints, look_ahead
from pipelines.progress import IsCanceled
from workflows.declare import Catalog

if TYPE_CHECKING:
    from jobs.afar import Afar
    from jobs.lent import Lent
    from workflows.run import Engine

log = logging.getLogger("stillmotion.service")

_KEEP_EVERY_SECONDS = 600.0
STARTING, READY, DRAINING = "starting", "ready", "draining"


class Service:
    """`executor` does the jobs, in place of the one of this process; `run` does the work in its place. Opening raises StorageError,
    UnreadableFileError."""

    def __init__(
        self,
        store: StoreSettings,
        work: WorkSettings,
        catalog: Catalog,
        *,
        executor: Runner | Afar | Lent | None = None,
        run: Run | None = None,
        ends_when_empty: bool = False,
    ) -> None:
        make_folders(store.data_dir)
        key = webhooks.read_key(store.data_dir / "webhook.key")
        self.settings, self.work, self.catalog, self.ends_when_empty = store, work, catalog, ends_when_empty
        self.board = Board()
        self.store = open_store(store, self.board)
        self.runner = executor or Runner(store.data_dir, catalog, self._make_engine, self._to_prepare)
        self._run_one = run or self.runner
        hooks = {"on_idle": self._idle, "on_pause": self.runner.release}
        one_or_more = Worker if self.runner.hands == 1 else partial(Crew, hands=self.runner.hands)
        self.worker = one_or_more(self.store, self._run, self.board, **hooks)
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._stop, self._failure = threading.Event(), ""
        self._is_release_due = self._was_idle_long = False
        self._keeping = threading.Thread(target=self._keep, name="housekeeping", daemon=True)
        self.webhooks = Webhooks(self.store, self.board, key, allows_private=work.webhook_private)

    @cached_property
    def queues(self) -> Queues:
        """Of PAI-EAS's protocol; opened when they are asked for. Raises StorageError."""
        return Queues(self.settings.queues_path)

    def start(self) -> None:
        """Raises StorageError if another process works on this database."""
        self.store.recover()
        self._unsubscribe = self.board.subscribe(_log_changes)
        self.webhooks.start()
        self._thread.start()
        self._keeping.start()

    def drain(self, seconds: float) -> None:
        """Returns at once; a signal handler may call it, and again to shorten the time."""
        self.worker.drain(seconds)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the worker has ended. In slices, so that signals are heard meanwhile."""
        until = None if seconds is None else time.monotonic() + seconds
        while self._thread.is_alive() and (until is None or time.monotonic() < until):
            self._thread.join(0.2)
        return not self._thread.is_alive()

    @property
    def is_stuck(self) -> bool:
        """The time to end is over, and PyTorch is still being loaded, which hears nobody."""
        return self.worker.is_overdue and bool(self.worker.running) and not self.runner.hears

    def give_up(self) -> None:
        """What runs goes back into the line at once, for those who then end the process. Raises StorageError."""
        for job_id in self.worker.running:
            self.store.requeue(job_id)

    def close(self) -> None:
        """Ends what has not ended."""
        if self._thread.ident is not None:
            self.drain(0)
            self._stop.set()
            self._thread.join()
            self._keeping.join()
            self._unsubscribe()
            self.webhooks.stop()
        if "queues" in self.__dict__:
            self.queues.close()
        self.store.close()

    @property
    def is_over(self) -> bool:
        """The worker was started and has ended."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def failure(self) -> str:
        """Why the worker has ended, if nobody asked it to."""
        return self._failure

    def state(self) -> tuple[str, str]:
        """starting, ready or draining; and in words why it is not ready."""
        if self._thread.ident is None:
            return STARTING, "The worker has not begun yet."
        if self._failure:
            return DRAINING, f"The worker has ended: {self._failure}"
        if self.worker.is_draining or self.is_over:
            return DRAINING, "The server is about to end; no job is begun any more."
        if not self.runner.is_started:
            return STARTING, "The other machines are not there yet."
        return READY, ""

    def release(self) -> None:
        """Give the memory of models and kept results back, as soon as no job uses them. Returns at once."""
        self._is_release_due = True

    def device(self) -> Mapping[str, Any] | None:
        """What jobs run on, with ComfyUI's keys; None as long as no job has run."""
        return self.runner.device()

    def cache_counts(self) -> tuple[int, int]:
        """Hits and misses."""
        return self.runner.cache_counts()

    def _make_engine(self) -> Engine:
        """In the worker's thread: it loads PyTorch."""
        return make_engine(self.work.machine, self.settings.data_dir / "cache", self.work.cache_bytes)

    def _to_prepare(self) -> Job | None:
        """None where no job will be begun. Raises StorageError."""
        return None if self.worker.is_draining or self.store.is_paused else self.store.upcoming()

    def _look_ahead(self, job: Job) -> None:
        """While this one is done, the system may read the models of the next, if they are others."""
        try:
            following = self.store.upcoming() or job
            names = set(models_of(following.workflow)) - set(models_of(job.workflow))
            known = list_checkpoints(self.settings.data_dir / "models") if names else {}
        except (StillmotionError, OSError) as error:  # it is a courtesy: no job fails for it
            log.debug("the models of the next job cannot be looked at: %s", error)
            return
        if paths := [known[name] for name in names if name in known]:
            threading.Thread(target=look_ahead, args=(paths,), name="looking ahead", daemon=True).start()

    def _run(self, job: Job, report: Report, is_canceled: IsCanceled, journal: Journal) -> Outcome:
        if self.runner.reads_here:
            self._look_ahead(job)
        try:
            return self._run_one(job, report, is_canceled, journal)
        finally:
            self._release_if_due()

    def _work(self) -> None:
        try:
            self.runner.start()
            self.worker.run_forever(self._stop)
        except Exception as error:
            self._failure = str(error) if isinstance(error, StillmotionError) else type(error).__name__
            log.critical("The worker has ended: %s", error, exc_info=not isinstance(error, StillmotionError))
        finally:
            self.runner.close()  # in the thread that started it: processes that it began end with that thread

    def _idle(self, seconds: float) -> None:
        if self.ends_when_empty:
            self.worker.drain(0)
        is_idle_long = 0 < self.work.idle_unload_seconds <= seconds
        self._is_release_due |= is_idle_long and not self._was_idle_long
        self._was_idle_long = is_idle_long
        self._release_if_due()

    def _release_if_due(self) -> None:
        if self._is_release_due:
            self._is_release_due = False
            self.runner.release()

    def _keep(self) -> None:
        """Results that have to go, go; what was deleted goes an hour later."""
        while True:
            try:
                gone = keep_within(self.store, self.settings.data_dir, self.work.keep_days, self.work.keep_bytes)
                if gone.jobs:
                    log.info("removed for good: %d jobs, %d files, %.1f MiB", len(gone.jobs), len(gone.files), gone.bytes / 2**20)
            except StillmotionError as error:
                log.warning("What should go stays for now: %s", error)
            if self._stop.wait(_KEEP_EVERY_SECONDS):
                return


def _log_changes(event: JobEvent) -> None:
    if event.kind == "started":
        job = event.data["job"]
        log.info("job %s begins: %r", job.id, job.title[:100])
    elif event.kind in ENDED:
        job = event.data["job"]
        log.info("job %s %s after %.1f s: %r", job.id, event.kind, job.run_seconds, job.title[:100])


def open_store(settings: StoreSettings, board: Board | None = None) -> JobStore:
    """The table of jobs. Raises StorageError."""
    tell = {"tell": board.publish} if board else {}
    bounds = {name: getattr(settings, name) for name in ("min_free_bytes", "max_queued", "max_attempts")}
    return JobStore(settings.database, **bounds, **tell)


def make_folders(data_dir: Path) -> None:
    """The data directory and all that belongs into it. Raises StorageError."""
    for name in FOLDERS:
        folder = data_dir / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
