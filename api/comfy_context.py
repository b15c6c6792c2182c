"""What the routes of ComfyUI's protocol share: what they work on, who asks, and how answers and errors are written.

An error has ComfyUI's shape, and in it `code` and `hint` as all errors here:
`{"error": {"type", "message", "details", "extra_info", "code", "hint"}, "node_errors": {}}`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from api.refusals import Refusal
from api.users import User
from errors import InputError, StillmotionError, UnknownJobError
from jobs.job import Job
from jobs.progress import Board
from jobs.store import JobStore
from workflows.declare import Catalog
from workflows.folders import Folders
from workflows.graph import WorkflowError, read_json

_STATUS = {"queue_full": 429, "storage": 507, "too_large": 413}
_RETRY_SECONDS = 5


def unknown_device() -> None:
    """A `device` for servers that do not know what they run on."""


@dataclass(frozen=True)
class ComfyContext:
    """`release` gives back the memory of models and kept results; it is called in any thread, also while a job runs. `device` tells what
    jobs run on, with ComfyUI's keys (name, type, index, vram_total, vram_free, ...); None as long as nobody knows. With `max_pixel_steps`
    larger jobs are refused. A socket that takes nothing for `stall_seconds` is let go."""

    store: JobStore
    board: Board
    catalog: Catalog
    data_dir: Path
    release: Callable[[], None]
    device: Callable[[], Mapping[str, Any] | None] = unknown_device
    version: str = ""
    max_pixel_steps: int = 0
    max_upload_bytes: int = 100 * 2**20
    stall_seconds: float = 60.0

    @property
    def features(self) -> dict[str, Any]:
        return {"supports_preview_metadata": True, "max_upload_size": self.max_upload_bytes}


class Missing(Refusal):
    """What was asked for is not there, or not for this user: nobody can tell which."""

    status = 404
    code = "not_found"


class Outside(Refusal):
    status = 403
    code = "outside"


class WrongMethod(Refusal):
    status = 405
    code = "wrong_method"


class Call:
    """One request, whose body has been read."""

    def __init__(self, context: ComfyContext, request: Request, body: bytes = b"") -> None:
        self.context, self.request, self.body = context, request, body
        self.query, self.store = request.query_params, context.store

    @cached_property
    def user(self) -> User:
        return user_of(self.request)

    @cached_property
    def folders(self) -> Folders:
        return Folders(self.context.data_dir, self.user.name)

    def may_see(self, job: Job) -> bool:
        return self.user.is_admin or job.owner == self.user.name

    def find(self, job_id: object) -> Job | None:
        """None if there is none, it was deleted, or it is somebody else's."""
        try:
            job = self.store.get(job_id) if isinstance(job_id, str) else None
        except UnknownJobError:
            return None
        return job if job and job.deleted_at is None and self.may_see(job) else None

    def document(self) -> dict[str, Any]:
        """The body, an object; nothing at all is an empty one. Raises WorkflowError, InputError."""
        document = read_json(self.body) if self.body.strip() else {}
        if not isinstance(document, dict):
            raise InputError(f"The body is {type(document).__name__}, not an object.", "Send a JSON object.")
        return document

    def ids(self, document: Mapping[str, Any]) -> list[str]:
        """What is to be deleted. Raises InputError."""
        ids = document.get("delete") or []
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise InputError('"delete" is no list of ids.', 'Send {"delete": ["..."]}.')
        return ids


Endpoint = Callable[[Call], Any] | Callable[[ComfyContext, Request], Awaitable[Response]]


def user_of(connection: HTTPConnection) -> User:
    """Whom the layer in front let in."""
    return connection.scope.get("user") or User("", is_admin=False)


def answering(context: ComfyContext, endpoints: Mapping[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
    """One route, by method. A plain function gets a `Call` in a worker thread and gives a Response, or what becomes JSON; one that awaits
    reads the request itself. Errors are translated for the wire here, and only here."""

    async def answer(request: Request) -> Response:
        try:
            endpoint = endpoints.get("GET" if request.method == "HEAD" else request.method)
            if endpoint is None:
                return _other_method(request, endpoints)
            if inspect.iscoroutinefunction(endpoint):
                return await endpoint(context, request)
            given = await run_in_threadpool(endpoint, Call(context, request, await request.body()))
            return given if isinstance(given, Response) else as_json(given)
        except StillmotionError as error:
            return refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)

    return answer


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """In ASCII, since a workflow may hold text that is no valid Unicode."""
    return Response(json.dumps(value), status, headers, "application/json; charset=utf-8")


def refusal(error: StillmotionError) -> Response:
    if isinstance(error, WorkflowError):
        document = error.document()
    else:
        said = {"type": error.code, "message": error.message, "details": error.hint, "extra_info": {}}
        document = {"error": said, "node_errors": {}}
    document["error"] |= {"code": error.code, "hint": error.hint}
    status = error.status if isinstance(error, Refusal) else _STATUS.get(error.code, 400)
    headers = dict(error.headers) if isinstance(error, Refusal) else {}
    if status == 429:
        headers["Retry-After"] = str(_RETRY_SECONDS)
    return as_json(document, status, headers)


def _other_method(request: Request, endpoints: Mapping[str, Endpoint]) -> Response:
    """Raises WrongMethod."""
    allowed = ", ".join([*endpoints, *(["HEAD"] if "GET" in endpoints else []), "OPTIONS"])
    if request.method == "OPTIONS":
        return Response(headers={"Allow": allowed})
    raise WrongMethod(f"{request.method} does not work here.", f"Use {allowed}.", {"Allow": allowed})
