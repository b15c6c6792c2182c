"""Between PAI-EAS's queue and the table of jobs: what is put becomes a job, and when it has ended its result goes into the sink."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from api.queue_requests import PRIORITY_TAG, deliver, deliver_withdrawn, reconcile
from errors import StorageError, UnknownJobError
from jobs.job import Job, JobStatus
from jobs.progress import JobEvent
from jobs.queue_items import REQUEST_ID
from jobs.service import Service
from jobs.submitting import prepare
from workflows.folders import Folders
from workflows.graph import read_json

log = logging.getLogger("stillmotion.queue")

MARK = "eas"  # in a job's `extra`: it came through this door
_AGAIN_SECONDS = 5.0


class QueueJobs:
    """`start` mends what was left open when the last process died."""

    def __init__(self, service: Service) -> None:
        self.service, self.queues, self.store = service, service.queues, service.store
        self._news: queue.SimpleQueue[JobEvent | None] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="queue results", daemon=True)

    def start(self) -> None:
        """Raises StorageError."""
        self._unsubscribe = self.service.board.subscribe(self._hear)
        if mended := reconcile(self.queues, self.submit, self._find):
            log.info("requests that were open when the last process ended: %d", mended)
        self._thread.start()

    def close(self) -> None:
        """What is not delivered by then is delivered at the next start."""
        self._is_stopping.set()
        self._news.put(None)
        if self._thread.ident is not None:
            self._unsubscribe()
            self._thread.join()

    def submit(self, task_id: str, workflow: bytes, tags: dict[str, str], owner: str) -> None:
        """Raises WorkflowError, InputError, QueueFullError, StorageError."""
        document = read_json(workflow)
        given = document.get("extra_data") if isinstance(document, dict) else None
        extra = {**(given if isinstance(given, Mapping) else {}), MARK: {"task_id": task_id}}
        priority = int(tags.get(PRIORITY_TAG, 0))
        submission, _ = prepare(
            document, self.service.catalog, Folders(self.service.settings.data_dir, owner), extra=extra,
            max_pixel_steps=self.service.settings.max_pixel_steps, title_of_file=self.store.title_of_file,
            job_id=tags[REQUEST_ID], number=-priority * 1e6 if priority else None,
        )  # fmt: skip
        self.store.submit(submission)

    def withdraw(self, request_ids: list[str], owner: str) -> None:
        """Their owner has taken them out of the queue. Whoever waits for a result gets one that says so. Raises StorageError."""
        for job_id in request_ids:
            try:
                if self.store.get(job_id).owner == owner:
                    self.store.cancel(job_id)
            except UnknownJobError:
                deliver_withdrawn(self.queues, job_id)

    def _find(self, request_id: str) -> Mapping[str, Any] | None:
        try:
            return document(self.store.get(request_id))
        except UnknownJobError:
            return None

    def _hear(self, event: JobEvent) -> None:
        job = event.data.get("job")
        if event.kind in ("started", "succeeded", "failed", "canceled") and isinstance(job, Job) and MARK in job.extra:
            self._news.put(event)

    def _work(self) -> None:
        while (event := self._news.get()) is not None:
            while not self._pass_on(event) and not self._is_stopping.wait(_AGAIN_SECONDS):
                pass

    def _pass_on(self, event: JobEvent) -> bool:
        try:
            if event.kind == "started":
                self.queues.start(event.job_id)
            else:
                deliver(self.queues, document(event.data["job"]))
        except StorageError as error:
            log.error("The result of %s cannot be delivered now: %s", event.job_id, error)
            return False
        except Exception:
            log.exception("The result of %s could not be delivered.", event.job_id)
        return True


def document(job: Job) -> dict[str, Any]:
    """What a result is made of."""
    error = None if job.error is None else asdict(job.error)
    why = {"error": error, "cached": job.cached, "workflow": job.workflow}
    return {"id": job.id, "status": JobStatus(job.status).value, "outputs": job.outputs, **why}
