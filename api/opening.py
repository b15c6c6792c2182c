"""Workflows come in and go out, and what they would cost: `/api/open`, `/api/export`, `/api/jobs/{id}/export`, `/api/estimate`. Nothing is
stored by any of them."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api import films
from api.asking import checked, wish
from api.error_answers import documented
from api.job_context import Asking, JobApi, Root
from api.job_models import EstimateModel, ExportRequest, FilmRequest, OpenedModel, OpenRequest
from api.plain_json import plain_json
from api.users import User
from errors import InputError
from jobs.estimates import estimate
from jobs.forecast import queue_seconds
from jobs.job import Job
from pipelines.filenames import storage_error
from pipelines.metadata import read_settings
from workflows.advice import for_people
from workflows.exporting import Exported, export, order_of
from workflows.graph import check_readable, read_json
from workflows.opening import exact_text, open_workflow
from workflows.playing import length
from workflows.templates import WITHOUT_METADATA, all_templates
from workflows.workload import workload

_CHUNK = 1024 * 1024
_FILE = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]}
_BODY = {
    "required": True,
    "content": {"application/json": {"schema": OpenRequest.model_json_schema()}, "multipart/form-data": {"schema": _FILE}},
}
_TEXTS = {200: {"content": {"application/json": {}, "text/plain": {}}, "description": "A file."}}
JobId = Annotated[str, InPath(max_length=200, examples=["8c8d3f5e-3f0b-4a52-9f7e-0c3a8a0a6f51"])]
Form = Annotated[Literal["comfy", "curl", "python", "settings"], Query(alias="as", description="In whose words.")]


def opening_routes(api: JobApi) -> APIRouter:
    """Every one may raise StorageError."""
    router, opening = APIRouter(), _Opening(api)
    router.add_api_route(
        "/api/open", opening.open_workflow, methods=["POST"], response_model=OpenedModel, tags=["templates"],
        responses=documented(404, 413), openapi_extra={"requestBody": _BODY},
    )  # fmt: skip
    router.add_api_route(
        "/api/export", opening.export_values, methods=["POST"], response_class=Response, tags=["templates"],
        responses=documented(413) | _TEXTS,
    )  # fmt: skip
    router.add_api_route(
        "/api/jobs/{job_id:path}/export", opening.export_job, methods=["GET"], response_class=Response, tags=["jobs"],
        responses=documented(404) | _TEXTS,
    )  # fmt: skip
    router.add_api_route(
        "/api/estimate", opening.estimate, methods=["POST"], response_model=EstimateModel, tags=["jobs"], responses=documented(413)
    )
    return router


def opened(api: JobApi, document: Any, user: User, prefer: str = "") -> dict[str, Any]:
    """As `OpenedModel`. Raises WorkflowError."""
    folders = api.folders(user)
    found = open_workflow(document, api.catalog, folders, prefer)
    return {
        "template": found.template.id if found.is_ours else None, "like": found.like, "values": found.exact_values(),
        "fields": None if found.is_ours else films.document(found.template, api.catalog, folders),
        "missing": [vars(one) for one in found.missing], "notes": list(found.notes), "workflow": exact_text(found.workflow),
    }  # fmt: skip


def opened_job(api: JobApi, job_id: str, user: User) -> dict[str, Any]:
    """Raises UnknownJobError."""
    job = api.find(user, job_id)
    found = opened(api, job.workflow, user, _template_of(job))
    if job.extra.get(WITHOUT_METADATA) and "metadata" in found["values"]:
        found["values"] |= {"metadata": False}
    return found


def estimated(api: JobApi, body: FilmRequest, user: User) -> dict[str, Any]:
    """As `EstimateModel`. Raises what submitting raises, but for a queue or a disk that is full."""
    submission, workflow = checked(api, wish(api, body, user), body, user)
    folders = api.folders(user)
    found = estimate(api.store, workload(workflow, folders), submission.workflow)
    frames, seconds = length(workflow, folders)
    return {
        "seconds": _rounded(found.seconds), "seconds_basis": found.basis, "frames": frames, "film_seconds": seconds,
        "bytes": found.bytes, "memory_bytes": found.memory_bytes,
        "warnings": for_people(submission.warnings, is_form=body.workflow is None),
        "queue_seconds": queue_seconds(api.store, api.board.seconds_at_work, hands=api.hands),
        "is_held": api.store.is_paused,
    }  # fmt: skip


class _Opening:
    def __init__(self, api: JobApi) -> None:
        self.api = api

    async def open_workflow(self, request: Request, user: Asking) -> Any:
        """What a workflow is here: a template with its values, or a form of its own, and what it needs that is not here. Send a file (a
        picture or film that carries its settings, or a JSON), or a workflow or the id of a job as JSON."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            return await self._open_form(request, user)
        body = _open_request(read_json(await request.body()))
        return plain_json(await run_in_threadpool(self._open, body, user))

    def export_job(self, job_id: JobId, request: Request, user: Asking, root: Root, form: Form = "comfy") -> Any:
        """A job for ComfyUI, as a curl command, as a Python script, or its settings as a file that can be opened here again."""
        job = self.api.find(user, job_id)
        request.state.job_id = job.id
        order = order_of(job.workflow, all_templates(self.api.data_dir), _template_of(job))
        if job.extra.get(WITHOUT_METADATA):
            order = replace(order, body=dict(order.body) | {"metadata": False})
        name = re.sub(r"[^A-Za-z0-9]", "", job.id)[:8]
        return _answer(export(form, job.workflow, order, _server(request, root), f"stillmotion-{name}"))

    def export_values(self, body: ExportRequest, request: Request, user: Asking, root: Root) -> Any:
        """The same of what is not submitted yet. Models that are missing here do not matter."""
        asked = wish(self.api, body, user)
        check_readable(asked.graph)
        order = order_of(asked.graph, all_templates(self.api.data_dir), asked.template.id)
        if asked.template.id and body.workflow is None:  # what was left open stays open
            told = {"template": asked.template.id} | ({"draft": True} if body.draft else {})
            told |= {} if body.metadata else {"metadata": False}
            order = replace(order, path="/api/films", body=told | dict(asked.given))
        return _answer(export(body.form, asked.graph, order, _server(request, root)))

    def estimate(self, body: FilmRequest, user: Asking) -> Any:
        """What it would cost, from jobs that have been. It is checked as if it were submitted, and not stored."""
        return estimated(self.api, body, user)

    async def _open_form(self, request: Request, user: User) -> Response:
        try:
            async with request.form(max_files=1, max_fields=1) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise InputError("No file was sent.", 'Send a form with a file in the field "file".')
                return plain_json(await run_in_threadpool(self._open_file, file, user))
        except HTTPException as error:
            raise InputError(f"The form cannot be read: {error.detail}", "/docs says what is taken.") from error

    def _open_file(self, file: UploadFile, user: User) -> dict[str, Any]:
        """Raises UnreadableFileError, WorkflowError, StorageError."""
        with tempfile.TemporaryDirectory(prefix="stillmotion-") as folder:
            path = Path(folder, _file_name(file.filename or ""))
            try:
                with path.open("wb") as target:
                    shutil.copyfileobj(file.file, target, _CHUNK)
            except OSError as error:
                raise storage_error(Path(folder), error) from error
            settings = read_settings(path)
        return opened(self.api, settings, user)

    def _open(self, body: OpenRequest, user: User) -> dict[str, Any]:
        return opened(self.api, body.workflow, user) if body.job is None else opened_job(self.api, body.job, user)


def _template_of(job: Job) -> str:
    """With which it was asked for; "" if with none."""
    name = job.extra.get("template")
    return name if isinstance(name, str) else ""


def _open_request(document: Any) -> OpenRequest:
    try:
        body = OpenRequest.model_validate(document)
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors()]) from error
    if (body.workflow is None) == (body.job is None):
        raise InputError("One of workflow and job is wanted.", 'Send {"workflow": {...}}, {"job": "ID"}, or a form with a file.')
    return body


def _file_name(name: str) -> str:
    """What messages call it."""
    plain = "".join(one for one in PurePosixPath(name.replace("\\", "/")).name if one.isprintable())
    kept = plain.encode("utf-8", "replace")[:150].decode("utf-8", "ignore")
    return kept if kept.strip(".") else "The file"


def _server(request: Request, root: str) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{root}"


def _answer(exported: Exported) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{exported.filename}"'}
    return Response(exported.text, headers=headers, media_type=exported.media_type)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
