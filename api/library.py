"""What the library needs beyond the job API: files of several jobs as one ZIP, every setting in words, and whether a job that is done
again comes out the same.

bundle.py   the ZIP          details.py   the settings          ../pipelines/compare.py   how alike two files are
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Form, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api.bundle import Entry, bundle
from api.details import details
from api.error_answers import NotFound, documented
from api.job_context import Asking, JobApi, Root
from api.job_models import ComparisonModel, DetailsModel, JobModel
from api.jobs import JobId
from api.plain_json import plain_json
from api.users import User
from errors import InputError, JobStateError
from jobs.documents import job_document
from jobs.job import FILM_SUFFIXES, Job, Output
from pipelines.compare import ANIMATIONS, Likeness, compare
from workflows.folders import Folders, inside
from workflows.templates import all_templates

MOST_JOBS = 1000
_PICTURES = (".png", ".jpg", ".jpeg")
_ZIP = {200: {"content": {"application/zip": {}}, "description": "The files, stored, and each job's settings."}}
Ids = Annotated[list[Annotated[str, Query(max_length=200)]] | None, Query(description="Jobs, by id.", max_length=MOST_JOBS)]
SentIds = Annotated[list[str], Form(max_length=MOST_JOBS, description="Jobs, by id.")]
Batch = Annotated[str | None, Query(max_length=200, description="All jobs of a batch.")]
OtherJob = Annotated[str, Query(alias="with", max_length=200, description="The job to compare it with.")]


def library_routes(api: JobApi) -> APIRouter:
    """To be included before the routes of single jobs, whose ids may hold slashes. Every one may raise StorageError."""
    router, library = APIRouter(), _Library(api)
    one, tags = "/api/jobs/{job_id:path}", ["library"]

    def add(method: str, path: str, endpoint: Any, model: Any, *statuses: int, **more: Any) -> None:
        more["responses"] = documented(*statuses) | more.pop("responses", {})
        router.add_api_route(path, endpoint, methods=[method], response_model=model, tags=tags, operation_id=endpoint.__name__, **more)

    as_zip = {"responses": _ZIP, "response_class": StreamingResponse}
    add("GET", "/api/files.zip", library.get_files, None, 404, **as_zip)
    router.add_api_route("/api/files.zip", library.get_files, methods=["HEAD"], include_in_schema=False)
    add("POST", "/api/files.zip", library.send_files, None, 404, 413, **as_zip)
    add("GET", f"{one}/details", library.get_details, DetailsModel, 404)
    add("POST", f"{one}/verify", library.verify_job, JobModel, 404, 409, 429)
    add("GET", f"{one}/comparison", library.compare_jobs, ComparisonModel, 404, 409)
    return router


class _Library:
    def __init__(self, api: JobApi) -> None:
        self.api = api
        self._comparing = anyio.Semaphore(1)  # films take much memory once they are decoded: one pair at a time

    def get_files(self, request: Request, user: Asking, root: Root, job: Ids = None, batch: Batch = None) -> Any:
        """The files of these jobs as one ZIP, with every job's settings."""
        return self._zip(request, user, root, self._chosen(user, job or [], batch))

    def send_files(self, request: Request, user: Asking, root: Root, job: SentIds) -> Any:
        """The same for many jobs, which are named in a form."""
        return self._zip(request, user, root, self._chosen(user, job, None))

    def get_details(self, job_id: JobId, request: Request, user: Asking) -> Any:
        """Every setting with its titles, and as text: no number is rounded."""
        request.state.job_id = job_id
        return plain_json(details(self.api.find(user, job_id), all_templates(self.api.data_dir)))

    def verify_job(self, job_id: JobId, request: Request, user: Asking, root: Root) -> Any:
        """The same once more as a new job that takes nothing from the cache; then compare the two."""
        request.state.job_id = job_id
        self.api.find(user, job_id)
        return self.api.document(self.api.store.verify(job_id), root, is_changed=True)

    async def compare_jobs(self, job_id: JobId, request: Request, user: Asking, other: OtherJob) -> Any:
        """How alike the stills and the films of two jobs are: identical, or the peak signal-to-noise ratio in dB."""
        request.state.job_id = job_id
        async with self._comparing:  # whoever waits holds no thread
            return await run_in_threadpool(self._compared, user, job_id, other)

    def _chosen(self, user: User, ids: Iterable[str], batch: str | None) -> list[Job]:
        """Each once. Raises UnknownJobError, InputError, NotFound."""
        jobs = [self.api.find(user, one) for one in dict.fromkeys(ids)]
        if batch is not None:
            found = self.api.store.list_jobs(batch=batch, owner=self.api.owner(user), limit=MOST_JOBS).jobs
            if not found:
                raise NotFound(f"There is no batch {batch!r}.", "It may have been removed.")
            jobs += [one for one in reversed(found) if one.id not in {job.id for job in jobs}]
        if not jobs:
            raise InputError("No job was named.", "Add ?job=ID, several times for several, or ?batch=ID.")
        return jobs

    def _zip(self, request: Request, user: User, root: str, jobs: list[Job]) -> Response:
        """Raises NotFound if no file is left."""
        entries = [self._entry(job, root) for job in jobs]
        if not any(entry.paths for entry in entries):
            raise NotFound("These jobs have no files.", "They may have been removed, or nothing was made.")
        name = f"stillmotion-{time.strftime('%Y%m%d-%H%M%S')}.zip"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="application/zip")
        return StreamingResponse(bundle(entries), headers=headers, media_type="application/zip")

    def _entry(self, job: Job, root: str) -> Entry:
        found = {file: _path(self.api.data_dir, job, file) for file in job.files}
        stem = next((PurePosixPath(file.filename).stem for file in job.files), job.id.replace("/", "_"))
        missing = [file.filename for file, path in found.items() if not path.is_file()]
        settings = {"job": job_document(job, root), "prompt": job.workflow}
        return Entry(stem, [path for path in found.values() if path.is_file()], settings, missing)

    def _compared(self, user: User, job_id: str, other_id: str) -> dict[str, Any]:
        """Raises UnknownJobError, JobStateError, NotFound, UnreadableFileError."""
        jobs = [self.api.find(user, one) for one in (job_id, other_id)]
        if job_id == other_id:
            raise InputError("A job is always like itself.", "Name another one.")
        kinds = [_by_kind(job) for job in jobs]
        if empty := next((job for job, kind in zip(jobs, kinds, strict=True) if not kind), None):
            raise JobStateError(f"The job {empty.id} is {empty.status} and has nothing to compare.", "Choose one that has made something.")
        pairs = []
        for kind in [kind for kind in ("still", "film", "animation") if kind in {*kinds[0], *kinds[1]}]:
            for index, files in enumerate(zip_longest(*(one.get(kind, []) for one in kinds))):
                pairs.append({"kind": kind, "index": index} | self._pair(jobs, files))
        return {"jobs": [job.id for job in jobs], "is_identical": all(one["is_identical"] for one in pairs), "pairs": pairs}

    def _pair(self, jobs: list[Job], files: tuple[Output | None, ...]) -> dict[str, Any]:
        names = {"files": [None if file is None else file.filename for file in files]}
        if None in files:
            return names | {"is_identical": False, "sizes": None, "frames": None, "psnr": None, "worst_psnr": None}
        paths = [_path(self.api.data_dir, job, file) for job, file in zip(jobs, files, strict=True)]
        if gone := next((path for path in paths if not path.is_file()), None):
            raise NotFound(f"The file {gone.name} is gone.", "What was removed cannot be compared.")
        found: Likeness = compare(*paths)
        return names | asdict(found)


def _path(data_dir: Path, job: Job, file: Output) -> Path:
    return inside(Folders(data_dir, job.owner).of(file.type), f"{file.subfolder}/{file.filename}".lstrip("/"))


def _by_kind(job: Job) -> dict[str, list[Output]]:
    """What is shown: stills, films, animations."""
    found: dict[str, list[Output]] = {}
    for file in job.files:
        suffix = PurePosixPath(file.filename).suffix.lower()
        if file.kind != "beside" and suffix in (*_PICTURES, *FILM_SUFFIXES):
            kind = "still" if suffix in _PICTURES else "animation" if suffix in ANIMATIONS else "film"
            found.setdefault(kind, []).append(file)
    return found
