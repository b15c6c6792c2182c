"""`/prompt`, `/queue` and `/interrupt`: jobs come in, wait, and are stopped.

Without an id everybody acts on his own jobs only; an admin may name those of others.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import Response

from api.comfy_context import Call
from errors import InputError
from jobs.job import Job, JobStatus
from jobs.submitting import prepare
from workflows.graph import WorkflowError, read_json

_SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")  # editors send them along; they have no business in a history
_SOMEBODY_ELSE = {"title": "someone's job"}
_PAGE = 500


def read_prompt(call: Call) -> dict[str, Any]:
    counts = call.store.counts()
    return {"exec_info": {"queue_remaining": counts[JobStatus.QUEUED] + counts[JobStatus.RUNNING]}}


def submit(call: Call) -> dict[str, Any]:
    """Raises WorkflowError, InputError, QueueFullError, StorageError."""
    document = read_json(call.body)
    graph, asked = _taken_apart(document)
    options = {"number": _number(asked), "front": bool(asked.get("front")), "job_id": _text(asked, "prompt_id")}
    submission, workflow = prepare(
        graph, call.context.catalog, call.folders, only=_targets(asked), extra=_extra(asked),
        max_pixel_steps=call.context.max_pixel_steps, title_of_file=call.store.title_of_file, **options,
    )  # fmt: skip
    job = call.store.submit(submission)
    call.request.state.job_id = job.id
    return {"prompt_id": job.id, "number": job.number, "node_errors": dict(workflow.node_errors)}


def read_queue(call: Call) -> dict[str, Any]:
    places = call.store.positions()
    running, waiting = _all(call, JobStatus.RUNNING), _all(call, JobStatus.QUEUED)
    waiting.sort(key=lambda job: places.get(job.id, len(places)))
    return {"queue_running": [_entry(call, job) for job in running], "queue_pending": [_entry(call, job) for job in waiting]}


def change_queue(call: Call) -> Response:
    """Only what waits; what runs is stopped by `interrupt`. Raises InputError."""
    document = call.document()
    going = [job for job in map(call.find, call.ids(document)) if job]
    if document.get("clear"):
        going += _all(call, JobStatus.QUEUED, call.user.name)
    for job in going:
        if job.status == JobStatus.QUEUED:
            call.store.cancel(job.id)
    return Response()


def interrupt(call: Call) -> Response:
    """Raises InputError."""
    wanted = call.document().get("prompt_id")
    found = _all(call, JobStatus.RUNNING, call.user.name) if not wanted else [call.find(wanted)]
    for job in found:
        if job and job.status == JobStatus.RUNNING:
            call.request.state.job_id = job.id
            call.store.cancel(job.id)
    return Response()


def _taken_apart(document: Any) -> tuple[Any, dict[str, Any]]:
    """The graph, and what is asked for besides. A bare graph is taken too. Raises WorkflowError."""
    if isinstance(document, dict) and "prompt" in document and not _is_node(document["prompt"]):
        return document["prompt"], document
    if isinstance(document, dict) and any(map(_is_node, document.values())):
        return document, {}
    raise WorkflowError("no_prompt", "No prompt provided", "No prompt provided")


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "class_type" in value


def _number(asked: dict[str, Any]) -> float | None:
    given = asked.get("number")
    try:
        number = None if given is None else float(given)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise InputError(f'"number" is {str(given)[:50]!r}, no number.', "Give a number, or leave it out.")
    return number


def _text(asked: dict[str, Any], name: str) -> str | None:
    given = asked.get(name)
    if given is not None and not isinstance(given, str):
        raise InputError(f'"{name}" is {str(given)[:50]}, no text.', "Give a text, or leave it out.")
    return given


def _targets(asked: dict[str, Any]) -> list[str] | None:
    given = asked.get("partial_execution_targets")
    if given is not None and not (isinstance(given, list) and all(isinstance(one, str) for one in given)):
        raise InputError('"partial_execution_targets" is no list of node ids.', "Give a list of texts, or leave it out.")
    return given


def _extra(asked: dict[str, Any]) -> dict[str, Any]:
    given = asked.get("extra_data") or {}
    if not isinstance(given, dict):
        raise InputError(f'"extra_data" is {type(given).__name__}, not an object.', "Give an object, or leave it out.")
    client = _text(asked, "client_id")
    kept = {name: value for name, value in given.items() if name not in _SECRETS}
    return kept if client is None else kept | {"client_id": client}


def _all(call: Call, status: JobStatus, owner: str | None = None) -> list[Job]:
    """The oldest first."""
    found, cursor = [], None
    while True:
        page = call.store.list_jobs(status=status, owner=owner, cursor=cursor, limit=_PAGE)
        found += page.jobs
        cursor = page.cursor
        if cursor is None:
            return found[::-1]


def _entry(call: Call, job: Job) -> list[Any]:
    if not call.may_see(job):
        return [job.number, job.id, {}, _SOMEBODY_ELSE, []]
    return [job.number, job.id, job.workflow, job.extra, list(job.targets or ())]
