"""From what is put into an input queue to what comes out of the sink: a job in between, and exactly one result in any case.

The data of a result is a JSON array: an event for every output node that ran, in the order in which they were done, then an event
that says why it ended badly, if it did, and always last an object with all outputs by node: `{"9": {"images": [...]}}`.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from errors import QueueFullError, StillmotionError, StorageError
from jobs.queues import Queues, Request

log = logging.getLogger(__name__)

Submit = Callable[[str, bytes, dict[str, str], str], None]
JobDocument = Mapping[str, Any]

PRIORITY_TAG = "_priority_"  # among the tags that `submit` gets, if it is not 0

_ENDED = ("succeeded", "failed", "canceled")


def submit_request(queues: Queues, submit: Submit, request: Request) -> None:
    """Make a job of an accepted request, or deliver why that cannot be.

    Raises QueueFullError and StorageError only: those pass, while all else is wrong with the workflow itself, or with us.
    """
    tags = request.tags | ({PRIORITY_TAG: str(request.priority)} if request.priority else {})
    try:
        submit(tags.get("task_id", ""), request.data or b"", tags, request.owner)
    except (QueueFullError, StorageError):
        raise
    except StillmotionError as error:
        deliver_error(queues, request.id, error)
    except Exception:
        error_id = secrets.token_hex(4)
        log.exception("What came from a queue could not be submitted (error %s).", error_id)
        message = f"Something went wrong in the server (error {error_id})."
        deliver_error(queues, request.id, StillmotionError(message, "Its log says more."))


def deliver(queues: Queues, job: JobDocument) -> bool:
    """Put the result of a job that has ended into the sink of whoever asked for it.

    Of the job are read: `id`, which is the request id; `status`; `outputs` by node, in the order of completion; `cached`, the nodes
    that did not have to run; `workflow`; and `error` with code, message, hint, node and details, or None. Returns False, and does
    nothing, for a job that no queue asked for or whose result has been delivered before.
    """
    return queues.finish(str(job["id"]), result(job))


def deliver_error(queues: Queues, request_id: str, error: StillmotionError) -> bool:
    """The same, of a request that did not become a job."""
    why = {"code": error.code, "message": error.message, "hint": error.hint, "details": getattr(error, "details", {})}
    return deliver(queues, {"id": request_id, "status": "failed", "outputs": {}, "error": why})


def deliver_withdrawn(queues: Queues, request_id: str) -> bool:
    """The same, of a request whose owner took it out of the queue before it became a job."""
    return deliver(queues, {"id": request_id, "status": "canceled", "outputs": {}})


def reconcile(queues: Queues, submit: Submit, find_job: Callable[[str], JobDocument | None]) -> int:
    """To be called when the server starts: what was accepted and not answered before it died is submitted or delivered now.

    `find_job(request_id)` gives the job, if there is one. Returns how many were mended. Raises StorageError.
    """
    mended = 0
    for request in queues.outstanding():
        job = find_job(request.id)
        if job is not None and job["status"] in _ENDED:
            deliver(queues, job)
        elif job is None and request.data is None:  # its owner took it out of the queue before it became one
            deliver_withdrawn(queues, request.id)
        elif job is None:
            _submit_again(queues, submit, request)
        else:
            continue
        mended += 1
    return mended


def result(job: JobDocument) -> bytes:
    outputs, cached = job["outputs"], set(job.get("cached", ()))
    ran = [node for node in outputs if node not in cached]
    events = [_event("executed", job, {"node": node, "output": outputs[node]}) for node in ran]
    if job["status"] != "succeeded":
        events.append(_why(job, ran))
    return json.dumps([*events, outputs], ensure_ascii=False).encode()


def _submit_again(queues: Queues, submit: Submit, request: Request) -> None:
    """Nobody is there any more to be told that he should come back; so that is the result."""
    try:
        submit_request(queues, submit, request)
    except QueueFullError as error:
        deliver_error(queues, request.id, error)


def _why(job: JobDocument, ran: list[str]) -> dict[str, Any]:
    """In ComfyUI's words, and ours besides."""
    error = job.get("error") or {}
    node = error.get("node", "")
    kind = job.get("workflow", {}).get(node, {}).get("class_type", "")
    values = {"node_id": node, "node_type": kind, "executed": ran}
    if job["status"] == "canceled":
        return _event("execution_interrupted", job, values)
    message = " ".join(filter(None, (error.get("message", ""), error.get("hint", ""))))
    values |= {"exception_message": message, "exception_type": error.get("code", "error"), "traceback": []}
    return _event("execution_error", job, values | {"details": error.get("details", {})})


def _event(kind: str, job: JobDocument, values: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "data": {**values, "prompt_id": str(job["id"])}}
