"""What the routes of the job API share: what they work on, who asks, and how a job is shown to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from api.users import User
from errors import UnknownJobError
from jobs.deliveries import Deliveries, Delivery
from jobs.documents import job_document, output_document, progress_document, utc
from jobs.forecast import Forecasts, Prospect
from jobs.job import Job, JobStatus
from jobs.progress import Board
from jobs.store import JobStore
from jobs.webhooks import webhook_of
from workflows.declare import Catalog
from workflows.folders import Folders

_NOTHING_KNOWN = Prospect(None, None)


def never() -> bool:
    """An `is_ending` for servers that do not tell."""
    return False


@dataclass(frozen=True)
class JobApi:
    """`hands`: how many jobs are done at once. `is_ending`: whether those who wait should be let go, since the server is about to end."""

    store: JobStore
    board: Board
    catalog: Catalog
    data_dir: Path
    max_pixel_steps: int = 0
    allows_private_webhooks: bool = False
    hands: int = 1
    is_ending: Callable[[], bool] = never

    def folders(self, user: User) -> Folders:
        return Folders(self.data_dir, user.name)

    def find(self, user: User, job_id: str) -> Job:
        """Raises UnknownJobError if there is none, or it is somebody else's: nobody can tell which."""
        job = self.store.get(job_id)
        if not user.is_admin and job.owner != user.name:
            raise UnknownJobError(job_id)
        return job

    def owner(self, user: User, wanted: str | None = None) -> str | None:
        """Whose jobs are shown: users see their own, an admin those of whom he names, or all."""
        return wanted if user.is_admin else user.name

    def document(self, job: Job, root: str = "", *, is_changed: bool = False) -> dict[str, Any]:
        """All that is known of one job. `is_changed`: the line may not be what it was a moment ago."""
        prospects = {} if job.status.is_ended else self._forecasts.of([job.id], is_changed=is_changed)
        deliveries = Deliveries(self.store.database, self.store.clock).of(job.id) if webhook_of(job.extra) else []
        return self._document(job, root, prospects) | {"deliveries": [_told(one) for one in deliveries]}

    def documents(self, jobs: Iterable[Job], root: str = "") -> list[dict[str, Any]]:
        jobs = list(jobs)
        open_ones = [job.id for job in jobs if not job.status.is_ended]
        prospects = self._forecasts.of(open_ones) if open_ones else {}
        return [self._document(job, root, prospects) | {"deliveries": []} for job in jobs]

    def in_line(self, owner: str | None) -> dict[str, Prospect]:
        """What runs and waits of this owner, or of all, in the order in which it will be done."""
        open_ones = self.store.open_ids(owner)
        prospects = self._forecasts.of(open_ones)
        found = {job_id: prospects[job_id] for job_id in open_ones if job_id in prospects}  # or it has ended meanwhile
        return dict(sorted(found.items(), key=lambda one: one[1].place or 0))

    @cached_property
    def _forecasts(self) -> Forecasts:
        return Forecasts(self.store, self.board.seconds_at_work, hands=self.hands)

    def _document(self, job: Job, root: str, prospects: Mapping[str, Prospect]) -> dict[str, Any]:
        prospect = _NOTHING_KNOWN if job.status.is_ended else prospects.get(job.id, _NOTHING_KNOWN)
        snapshot = self.board.newest(job.id) if job.status == JobStatus.RUNNING else None
        progress = progress_document(snapshot, root)
        place = prospect.place if job.status == JobStatus.QUEUED else None
        is_held = job.status == JobStatus.QUEUED and prospect.is_held
        now = {"place": place, "is_held": is_held, "remaining_seconds": prospect.remaining_seconds, "progress": progress}
        if snapshot is not None and snapshot.files:  # what a running job has written can be looked at
            now["outputs"] = [output_document(job, output, root) for output in snapshot.files]
        return job_document(job, root) | now | {"webhook": webhook_of(job.extra)}


def _told(delivery: Delivery) -> dict[str, Any]:
    kept = {"status": delivery.status, "attempts": delivery.attempts, "problem": delivery.problem}
    return kept | {"delivered": utc(delivery.delivered), "next": utc(delivery.due)}


def user_of(request: Request) -> User:
    """Whom the layer in front let in."""
    return request.scope["user"]


def root_of(request: Request) -> str:
    """The path under which a proxy shows us."""
    return request.scope.get("root_path", "")


Asking = Annotated[User, Depends(user_of)]
Root = Annotated[str, Depends(root_of)]
