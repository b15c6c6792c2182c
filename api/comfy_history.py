"""`/history`: what has been, from the table. ComfyUI lists the oldest first, and only what has begun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

from api import comfy_messages
from api.comfy_context import Call
from errors import InputError, JobStateError
from jobs.job import ENDED, Job, JobStatus
from jobs.progress import Board

_MOST = 10_000  # at once, as ComfyUI
_PAGE = 200


def read_all(call: Call) -> dict[str, Any]:
    """Raises InputError."""
    most, offset = max(0, _number(call, "max_items", _MOST)), _number(call, "offset", -1)
    newest = _newest(call, most if offset < 0 else _MOST)
    jobs = newest[::-1] if offset < 0 else newest[::-1][offset : offset + most]
    return {job.id: entry(job, call.context.board) for job in jobs}


def read_one(call: Call) -> dict[str, Any]:
    """Empty for what is unknown, or has not ended."""
    job = call.find(call.request.path_params["prompt_id"])
    return {job.id: entry(job, call.context.board)} if job and _is_shown(job) else {}


def change(call: Call) -> Response:
    """Raises InputError."""
    document = call.document()
    ids = call.ids(document)
    if document.get("clear"):
        call.store.clear_history(call.user.name)
    for job in filter(None, map(call.find, ids)):
        try:
            call.store.delete(job.id)
        except JobStateError:  # it has not ended, or somebody else was faster
            continue
    return Response()


def entry(job: Job, board: Board) -> dict[str, Any]:
    messages = [comfy_messages.began(job), comfy_messages.cached(job.id, job.cached, job.started), _ending(job, board)]
    return {
        "prompt": [job.number, job.id, job.workflow, job.extra, list(job.targets or ())],
        "outputs": job.outputs,
        "status": {
            "status_str": "success" if job.status == JobStatus.SUCCEEDED else "error",
            "completed": job.status == JobStatus.SUCCEEDED,
            "messages": [list(message) for message in messages],
        },
        "meta": {i: {"node_id": i, "display_node": i, "parent_node": None, "real_node_id": i} for i in job.outputs},
    }


def _ending(job: Job, board: Board) -> comfy_messages.Message:
    executed = [node for node in job.outputs if node not in job.cached]
    if job.status == JobStatus.SUCCEEDED:
        return comfy_messages.succeeded(job)
    if job.status == JobStatus.FAILED:
        return comfy_messages.failed(job, executed)
    last = board.newest(job.id)
    return comfy_messages.interrupted(job, last.node if last else "", executed)


def _is_shown(job: Job) -> bool:
    return job.status.is_ended and job.started is not None


def _newest(call: Call, most: int) -> list[Job]:
    owner = None if call.user.is_admin else call.user.name
    found: list[Job] = []
    for job in _ended(call, owner, min(_PAGE, most)):
        if len(found) >= most:
            break
        found.append(job)
    return found


def _ended(call: Call, owner: str | None, size: int) -> Iterator[Job]:
    cursor = None
    while size > 0:
        page = call.store.list_jobs(status=ENDED, owner=owner, cursor=cursor, limit=size)
        yield from filter(_is_shown, page.jobs)
        cursor = page.cursor
        if cursor is None:
            return


def _number(call: Call, name: str, otherwise: int) -> int:
    text = call.query.get(name)
    try:
        return otherwise if text is None else max(-1, min(int(text), 2**31))
    except ValueError as error:
        raise InputError(f"{name} is {text[:50]!r}, no number.", "Give a whole number, or leave it out.") from error
