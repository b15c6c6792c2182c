"""The waiting line as a whole: how long it is, whether it is paused, many films at once, and how a job that runs looks by now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.batch import make_films
from api.error_answers import documented
from api.job_context import Asking, JobApi, Root
from api.job_models import BatchAnswer, BatchList, BatchRequest, JobIds, LineAnswer, RetryRequest
from api.jobs import JobId
from api.refusals import AdminsOnly
from api.users import User
from jobs.documents import utc
from jobs.history import Batch

_JPEG = {200: {"content": {"image/jpeg": {}}, "description": "A small picture."}, 204: {"description": "There is none now."}}
_LINE, _JOBS = ["line"], ["jobs"]


def line_routes(api: JobApi) -> APIRouter:
    """To be included before the routes of single jobs, whose ids may hold slashes. Every one may raise StorageError."""
    router, line = APIRouter(), _Line(api)

    def add(method: str, path: str, endpoint: Any, model: Any, tags: list[str], *statuses: int, **more: Any) -> None:
        more["responses"] = documented(*statuses) | more.pop("responses", {})
        router.add_api_route(path, endpoint, methods=[method], response_model=model, tags=tags, operation_id=endpoint.__name__, **more)

    add("GET", "/api/line", line.get_line, LineAnswer, _LINE)
    add("POST", "/api/line/pause", line.pause_line, LineAnswer, _LINE)
    add("POST", "/api/line/resume", line.resume_line, LineAnswer, _LINE)
    add("POST", "/api/line/cancel", line.cancel_waiting, JobIds, _LINE)
    add("POST", "/api/line/retry", line.retry_jobs, JobIds, _LINE, 404, 409, 429)
    add("POST", "/api/films/batch", line.make_films, BatchAnswer, _JOBS, 413, 429, status_code=202)
    add("GET", "/api/batches", line.list_batches, BatchList, _JOBS)
    add("GET", "/api/jobs/{job_id:path}/preview.jpg", line.get_preview, None, _JOBS, 404, responses=_JPEG, response_class=Response)
    return router


class _Line:
    def __init__(self, api: JobApi) -> None:
        self.api, self.store = api, api.store

    def get_line(self, user: Asking, root: Root, limit: Annotated[int, Query(ge=0, le=200)] = 50) -> Any:
        """Whether it is paused, what runs and waits, and how long until all of it is done."""
        found = self.api.in_line(self.api.owner(user))
        remaining = [one.remaining_seconds for one in found.values()]
        running = sum(one.place is None for one in found.values())
        waiting = {job_id for job_id, one in found.items() if one.place is not None}
        own = len(waiting.intersection(self.store.open_ids(user.name))) if user.is_admin else len(waiting)
        return {
            "is_paused": self.store.is_paused, "may_pause": user.is_admin, "queued": len(waiting), "running": running, "own": own,
            "remaining_seconds": None if None in remaining else max(remaining, default=0.0),
            "jobs": self.api.documents(self.store.get_many(list(found)[:limit]), root),
        }  # fmt: skip

    def pause_line(self, user: Asking, root: Root) -> Any:
        """What runs goes on; nothing else begins, not even after a restart. On a server with users this is for admins."""
        _check_admin(user)
        self.store.pause()
        return self.get_line(user, root)

    def resume_line(self, user: Asking, root: Root) -> Any:
        """Go on."""
        _check_admin(user)
        self.store.resume()
        return self.get_line(user, root)

    def cancel_waiting(self, user: Asking) -> Any:
        """All of your own jobs that wait are canceled; what runs goes on. The answer names them, for `POST /api/line/retry`."""
        return {"jobs": self.store.cancel_waiting(user.name)}

    def retry_jobs(self, body: RetryRequest, user: Asking) -> Any:
        """Several failed or canceled jobs wait again, in this order or at their old places; all of them or none."""
        for job_id in body.jobs:
            self.api.find(user, job_id)
        return {"jobs": [job.id for job in self.store.retry_many(list(dict.fromkeys(body.jobs)), in_place=body.in_place)]}

    def make_films(self, body: BatchRequest, user: Asking, root: Root) -> Any:
        """Many films at once: one a line, or one a row of a table. If one is wrong none is made, and `rows` says which."""
        jobs = make_films(self.api, body, user)
        return {"batch": jobs[0].batch, "jobs": self.api.documents(jobs, root)}

    def list_batches(self, user: Asking, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> Any:
        """Your own batches of several jobs, the newest first, with how many of their jobs wait, run and have ended."""
        return {"batches": [_told(batch) for batch in self.store.batches(user.name, limit)]}

    def get_preview(self, job_id: JobId, request: Request, user: Asking) -> Response:
        """How a running job looks by now; `progress.preview` of the job has the address of the newest. 204 where there is none: it may just
        have ended."""
        job = self.api.find(user, job_id)
        request.state.job_id = job.id
        snapshot = self.api.board.newest(job.id)
        if snapshot is None or not snapshot.preview:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        return Response(snapshot.preview, media_type="image/jpeg", headers={"Cache-Control": "private, no-store"})


def _told(batch: Batch) -> dict[str, Any]:
    said = {"id": batch.id, "title": batch.first.title, "created": utc(batch.first.created)}
    return said | {"count": batch.count, "counts": batch.counts}


def _check_admin(user: User) -> None:
    if not user.is_admin:
        raise AdminsOnly("Only an admin may pause the queue of everybody.", "You can cancel your own jobs.")
