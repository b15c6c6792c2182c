"""The job API: jobs are asked for, looked at, changed; `/api/jobs`, `/api/films`, `/api/templates`, `/api/usage`.

job_models.py   what is taken and given       job_events.py   server-sent events, and waiting
job_context.py  what the routes share         films.py        templates and their fields
asking.py       what is asked for, checked    opening.py      opened, exported, estimated
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from api import films, job_events
from api.asking import make_film, run_workflow
from api.error_answers import NotFound, documented
from api.job_context import Asking, JobApi, Root
from api.job_files import job_file
from api.job_models import (
    ChangeRequest,
    DuplicateRequest,
    FilmRequest,
    JobList,
    JobModel,
    MoveRequest,
    TemplateList,
    TemplateModel,
    UsageAnswer,
    WorkflowRequest,
)
from api.plain_json import plain_json
from api.users import User
from api.views import sent
from errors import JobStateError, UnknownNameError
from jobs.documents import day_start, moment
from jobs.history import Usage
from jobs.job import Job, JobStatus
from jobs.report import usage_csv
from workflows.seeds import with_new_seeds
from workflows.templates import all_templates, find_template

_MOST_WAIT_SECONDS = 600
_PREFER_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,6})"?\s*(?:$|[,;])', re.IGNORECASE)
_TABLE = {200: {"content": {"text/csv": {}}, "description": "A line for each user and day."}}
_JOBS, _TEMPLATES = ["jobs"], ["templates"]
JobId = Annotated[str, Path(max_length=200, examples=["8c8d3f5e-3f0b-4a52-9f7e-0c3a8a0a6f51"])]
Text = Annotated[str, Query(max_length=200)]
Moment = Annotated[str | None, Query(max_length=40, description="When it was asked for: a day (UTC) or a time.", examples=["2026-03-01"])]
Owner = Annotated[str | None, Query(max_length=64, description="For admins: whose.")]
Day = Annotated[str | None, Query(max_length=10, description="A day (UTC), such as 2026-03-01.")]
Prefer = Annotated[str, Header(description="`wait=N`: answer when the job has ended, or after N seconds.", examples=["wait=60"])]


def job_routes(api: JobApi) -> APIRouter:
    """All the routes. Every one may raise StorageError."""
    router, jobs = APIRouter(), _Jobs(api)

    def add(method: str, path: str, endpoint: Callable[..., Any], model: Any, tags: list[str], *statuses: int, **more: Any) -> None:
        responses = documented(*statuses) | more.pop("responses", {})
        router.add_api_route(
            path, endpoint, methods=[method], response_model=model, tags=list(tags), responses=responses,
            operation_id=endpoint.__name__, **more,
        )  # fmt: skip

    ended = {200: {"model": JobModel, "description": "With `Prefer: wait=N`: it has ended by then."}}
    taken = {"status_code": 202, "response_description": "It waits or runs.", "responses": ended}
    add("POST", "/api/films", jobs.make_film, JobModel, _JOBS, 413, 429, **taken)
    add("POST", "/api/jobs", jobs.submit_workflow, JobModel, _JOBS, 413, 429, **taken)
    add("GET", "/api/jobs", jobs.list_jobs, JobList, _JOBS)
    one = "/api/jobs/{job_id:path}"  # clients choose ids too, with slashes in them; so what is done with a job comes before the job itself
    add("GET", f"{one}/workflow", jobs.get_workflow, dict[str, Any], _JOBS, 404)
    add("GET", f"{one}/files/{{name:path}}", jobs.get_file, None, _JOBS, 404, response_class=FileResponse)
    add("GET", f"{one}/events", jobs.get_events, None, _JOBS, 404, response_class=StreamingResponse)
    add("POST", f"{one}/cancel", jobs.cancel_job, JobModel, _JOBS, 404, 409)
    add("POST", f"{one}/retry", jobs.retry_job, JobModel, _JOBS, 404, 409, 429)
    add("POST", f"{one}/duplicate", jobs.duplicate_job, JobModel, _JOBS, 404, 429)
    add("POST", f"{one}/move", jobs.move_job, JobModel, _JOBS, 404, 409)
    add("POST", f"{one}/undo", jobs.undo_delete, JobModel, _JOBS, 404)
    add("GET", one, jobs.get_job, JobModel, _JOBS, 404)
    add("PATCH", one, jobs.change_job, JobModel, _JOBS, 404)
    add("DELETE", one, jobs.delete_job, JobModel, _JOBS, 404, 409)
    add("GET", "/api/templates", jobs.list_templates, TemplateList, _TEMPLATES)
    add("GET", "/api/templates/{name}", jobs.get_template, TemplateModel, _TEMPLATES, 404)
    add("GET", "/api/usage", jobs.get_usage, UsageAnswer, ["usage"])
    add("GET", "/api/usage.csv", jobs.get_usage_table, None, ["usage"], response_class=Response, responses=_TABLE)
    return router


class _Jobs:
    def __init__(self, api: JobApi) -> None:
        self.api, self.store = api, api.store

    # New jobs

    async def make_film(self, body: FilmRequest, request: Request, user: Asking, root: Root, prefer: Prefer = "") -> Any:
        """Make a film, or whatever a template makes, from the simple parameters of the form."""
        job = await run_in_threadpool(make_film, self.api, body, user)
        return await self._taken(job, request, root, prefer)

    async def submit_workflow(self, body: WorkflowRequest, request: Request, user: Asking, root: Root, prefer: Prefer = "") -> Any:
        """Run a workflow in ComfyUI's API format."""
        job = await run_in_threadpool(run_workflow, self.api, body.workflow, body, user)
        return await self._taken(job, request, root, prefer)

    # What there is

    def list_jobs(
        self,
        user: Asking,
        root: Root,
        status: Annotated[list[JobStatus] | None, Query(description="May be given several times.")] = None,
        owner: Owner = None,
        batch: Text | None = None,
        tag: Text | None = None,
        text: Annotated[
            str, Query(max_length=500, description="All its words, or what stands in quotes, in the title, the tags or the prompts.")
        ] = "",
        template: Annotated[str | None, Query(max_length=200, description="Made by this template.")] = None,
        favourite: bool | None = None,
        deleted: bool = False,
        has_files: Annotated[bool, Query(description="Only what has made something.")] = False,
        makes: Annotated[Literal["film", "still"] | None, Query(description="Films and animations; or stills alone.")] = None,
        since: Moment = None,
        until: Moment = None,
        cursor: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Any:
        """Your jobs, the newest first; an admin's are everybody's."""
        whose = self.api.owner(user, owner)
        page = self.store.list_jobs(
            status=status, owner=whose, batch=batch, tag=tag, text=text, template=template, is_favourite=favourite, is_deleted=deleted,
            has_files=has_files, makes=makes or "", since=moment(since), until=moment(until), cursor=cursor, limit=limit,
        )  # fmt: skip
        counts = {status.value: count for status, count in self.store.counts(whose).items()}
        return {"jobs": self.api.documents(page.jobs, root), "cursor": page.cursor, "counts": counts}

    def get_job(self, job_id: JobId, request: Request, user: Asking, root: Root) -> Any:
        """Status, progress, place, remaining seconds, files, warnings, or what went wrong and what to do."""
        return self.api.document(self._found(job_id, request, user), root)

    def get_workflow(self, job_id: JobId, request: Request, user: Asking) -> Any:
        """The workflow with every default filled in and every seed settled, in ComfyUI's API format."""
        return plain_json(self._found(job_id, request, user).workflow)

    async def get_events(self, job_id: JobId, request: Request, user: Asking, root: Root) -> Any:
        """Server-sent events: `job` at first and as a sign of life, then `started`, `cached`, `node`, `progress`, `output`, `requeued`; the
        last one is `succeeded`, `failed` or `canceled`, with the whole job."""
        job = await run_in_threadpool(self._found, job_id, request, user)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(job_events.events(self.api, job, root), headers=headers, media_type="text/event-stream")

    def get_file(self, job_id: JobId, name: Annotated[str, Path(max_length=500)], request: Request, user: Asking) -> Any:
        """One of its files, by its name; whole or in part (Range)."""
        return sent(job_file(self.api, self._found(job_id, request, user), name), request.headers)

    # Changes

    def change_job(self, job_id: JobId, body: ChangeRequest, request: Request, user: Asking, root: Root) -> Any:
        """Another title, other tags, a favourite or no longer one. What is left out stays."""
        job = self._found(job_id, request, user)
        if body.title is not None:
            job = self.store.set_title(job_id, body.title)
        if body.tags is not None:
            job = self.store.set_tags(job_id, body.tags)
        if body.is_favourite is not None:
            job = self.store.favourite(job_id, body.is_favourite)
        return self._shown(job, root)

    def cancel_job(self, job_id: JobId, request: Request, user: Asking, root: Root) -> Any:
        """A waiting job is canceled at once; a running one is asked to stop, and does so within a step."""
        self._found(job_id, request, user)
        if not self.store.cancel(job_id):
            raise JobStateError(f"The job {job_id} has ended.", "There is nothing to cancel.")
        return self._shown(self.store.get(job_id), root)

    def retry_job(self, job_id: JobId, request: Request, user: Asking, root: Root) -> Any:
        """A failed or canceled job waits again, at the end; what it had found out before is still there for it."""
        self._found(job_id, request, user)
        return self._shown(self.store.retry(job_id), root)

    def duplicate_job(self, job_id: JobId, request: Request, user: Asking, root: Root, body: DuplicateRequest | None = None) -> Any:
        """The same again as a new job; with new seeds another film of the same kind."""
        self._found(job_id, request, user)
        return self._shown(self.store.duplicate(job_id, with_new_seeds if body and body.new_seeds else None), root)

    def move_job(self, job_id: JobId, body: MoveRequest, request: Request, user: Asking, root: Root) -> Any:
        """A waiting job to another place among the jobs of its owner."""
        self._found(job_id, request, user)
        if body.before is not None:
            self.api.find(user, body.before)
        return self._shown(self.store.move(job_id, to=body.to, before=body.before), root)

    def delete_job(self, job_id: JobId, request: Request, user: Asking, root: Root) -> Any:
        """Out of sight; for an hour it can be had back, then its files go too. It must have ended."""
        self._found(job_id, request, user)
        return self._shown(self.store.delete(job_id), root)

    def undo_delete(self, job_id: JobId, request: Request, user: Asking, root: Root) -> Any:
        """A deleted job comes back."""
        self._found(job_id, request, user)
        return self._shown(self.store.undo_delete(job_id), root)

    # Templates, usage

    def list_templates(self, user: Asking) -> Any:
        """What can be made, and the fields of each."""
        found = all_templates(self.api.data_dir).values()
        return {"templates": [films.document(one, self.api.catalog, self.api.folders(user)) for one in found]}

    def get_template(self, name: Annotated[str, Path(max_length=200)], user: Asking) -> Any:
        """One of them."""
        try:
            template = find_template(name, self.api.data_dir)
        except UnknownNameError as error:
            raise NotFound(error.message, error.hint) from error
        return films.document(template, self.api.catalog, self.api.folders(user))

    def get_usage(self, user: Asking, owner: Owner = None, since: Day = None) -> Any:
        """Seconds of generation by user and day (UTC). What was deleted still counts."""
        usage = self._usage(user, owner, since)
        return {"usage": [vars(one) for one in usage], "seconds": round(sum(one.seconds for one in usage), 3)}

    def get_usage_table(self, user: Asking, owner: Owner = None, since: Day = None) -> Response:
        """The same as CSV, for spreadsheets."""
        text = usage_csv(self._usage(user, owner, since)) + "\n"
        return Response(text, media_type="text/csv", headers={"Content-Disposition": 'attachment; filename="stillmotion-usage.csv"'})

    def _usage(self, user: User, owner: str | None, since: str | None) -> list[Usage]:
        """Raises InputError."""
        return self.store.usage(self.api.owner(user, owner), None if since is None else day_start(since))

    # What they share

    def _found(self, job_id: str, request: Request, user: User) -> Job:
        """Raises UnknownJobError. The access log names the job."""
        job = self.api.find(user, job_id)
        request.state.job_id = job.id
        return job

    def _shown(self, job: Job, root: str) -> dict[str, Any]:
        """After a change."""
        return self.api.document(job, root, is_changed=True)

    async def _taken(self, job: Job, request: Request, root: str, prefer: str) -> JSONResponse:
        """202, or after `Prefer: wait=N` 200 if it has ended meanwhile."""
        request.state.job_id = job.id
        headers = {"Location": f"{root}/api/jobs/{quote(job.id, safe='')}"}
        wait = preferred_wait(prefer)
        if wait is not None:
            headers["Preference-Applied"] = f"wait={wait}"
            job = await job_events.ended(self.api, job, wait, request)
        document = await run_in_threadpool(self.api.document, job, root)
        return JSONResponse(document, 200 if job.status.is_ended else 202, headers)


def preferred_wait(header: str) -> int | None:
    """Seconds that the client would wait for an answer (RFC 7240); None if it does not say."""
    found = _PREFER_WAIT.search(header)
    return min(int(found[1]), _MOST_WAIT_SECONDS) if found else None
