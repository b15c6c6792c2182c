"""What `gradio_client` calls by name: `/film`, `/still`, `/animate`, with typed parameters; progress while they run; files at the end.

    endpoints = Endpoints(api)
    endpoints.add_routes(app)    before Gradio is mounted, since two of its own routes do what ours must not
    endpoints.add()              inside `with gr.Blocks()`
    endpoints.make_room(blocks)  once it has a queue

Gradio's cancel stops every call that one client has made to one endpoint; ours stops the job that is meant. Gradio's file route fetches
from other servers; ours sends the files of jobs to those who may see them, so that they are never copied into Gradio's cache.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gradio as gr
from fastapi import FastAPI
from gradio.context import LocalContext
from gradio.utils import get_upload_folder
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import calls
from api.calls import CALLS, Call, Parameter
from api.comfy_context import Outside
from api.job_context import JobApi, user_of
from api.job_files import address, job_file
from api.uploads import keep_file
from api.users import User
from api.views import sent
from errors import Canceled, InputError, QueueFullError, StillmotionError
from jobs.job import Job, Output
from ui.door import GradioDoor
from ui.first_page import OwnHead

_REMEMBERED = 1000
_AT_ONCE = 900  # each is a job that somebody waits for; the page wants to be answered too
_FOLLOWED = 1000  # by Gradio in all. What it does not follow yet is no job, and stands in no line of ours
_OURS = re.compile(r"s?://[^/]+.*?/api/jobs/(?P<job>[^/]+)/files/(?P<name>.+)")
_ASKING = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)


class Endpoints:
    """`add` inside a `gr.Blocks`, `add_routes` before it is mounted."""

    def __init__(self, api: JobApi) -> None:
        self.api = api
        self._jobs: dict[str, str] = {}  # ids of Gradio's events to ids of jobs
        self._canceled: OrderedDict[str, None] = OrderedDict()  # events that were canceled before they had begun
        self._blocks: gr.Blocks | None = None

    def add(self) -> None:
        for call in CALLS:
            gr.api(self._endpoint(call), api_name=call.name, concurrency_limit=None)

    def make_room(self, blocks: gr.Blocks) -> None:
        """So that no call waits in Gradio's queue, where it would be no job. Gradio sets this itself only in `launch`."""
        blocks._queue.max_thread_count = _FOLLOWED
        self._blocks = blocks

    def add_routes(self, app: FastAPI) -> None:
        app.add_middleware(GradioDoor)
        app.add_middleware(OwnHead)
        app.add_route("/gradio_api/cancel", self._cancel, methods=["POST"])
        app.add_route("/gradio_api/file=http{rest:path}", self._file, methods=["GET", "HEAD"])

    def outdated(self, request: Request, error: Exception) -> Response:
        """The answer where Gradio has not found what it was asked for, in a form that has been drawn anew meanwhile: nothing changes.
        Raises the error if it is about something else, or the visit itself is forgotten: then the page says that something is wrong."""
        asked = request.scope.get("gradio.asked")
        session = asked.get("session_hash") if isinstance(asked, dict) else None
        is_missing = isinstance(session, str) and error.args == (asked.get("fn_index"),)
        if not is_missing or self._blocks is None or not self._blocks.state_holder[session].state_data:
            raise error
        return JSONResponse({"data": [], "is_generating": False})

    def _endpoint(self, call: Call) -> Callable[..., Coroutine[Any, Any, Any]]:
        """A function with the signature that the template declares: what Gradio makes its documentation and its defaults of."""
        parameters = calls.parameters(call, self.api)

        async def endpoint(request: gr.Request, *given: Any) -> tuple[Any, ...]:
            values = dict(zip([one.name for one in parameters], given, strict=True))
            try:
                return await self._made(call, values, request.request)
            except StillmotionError as error:
                raise gr.Error(str(error), title=error.code, print_exception=False) from error

        results = (*(str for _ in call.files), dict)
        endpoint.__name__, endpoint.__doc__ = call.name, _docstring(call, parameters)
        asked = [_ASKING, *map(_parameter, parameters)]
        endpoint.__signature__ = inspect.Signature(asked, return_annotation=tuple[results])
        endpoint.__annotations__ = {one.name: one.annotation for one in asked} | {"return": tuple[results]}
        return endpoint

    async def _made(self, call: Call, values: Mapping[str, Any], request: Request) -> tuple[Any, ...]:
        """A job is asked for and followed to its files. Raises StillmotionError."""
        if len(self._jobs) >= _AT_ONCE:
            raise QueueFullError(
                f"{_AT_ONCE} calls are waited for already.", "Try again later, or use POST /api/films, which waits for none."
            )
        user, event = user_of(request), LocalContext.event_id.get(None) or ""
        if event in self._canceled:
            raise Canceled
        job = await run_in_threadpool(self._begin, call, values, user)
        self._jobs[event] = job.id
        try:
            if event in self._canceled:  # meanwhile
                await run_in_threadpool(self.api.store.cancel, job.id)
            job = await calls.follow(self.api, job, _progress())
        finally:
            self._jobs.pop(event, None)
        root = str(request.base_url).rstrip("/")
        return *(_sent_file(job, one, root) for one in calls.files(call, job)), calls.settings(call, job)

    def _begin(self, call: Call, values: Mapping[str, Any], user: User) -> Job:
        """Raises InputError, UnreadableFileError, WorkflowError, QueueFullError, StorageError."""
        pictures = {name: self._picture(value, user) for name, value in values.items() if name == "image"}
        return calls.begin(self.api, call, {**values, **pictures}, user)

    def _picture(self, sent: Any, user: User) -> str:
        """Among those of the user; its name there. A text is the name of one that is there. Raises InputError, UnreadableFileError."""
        if isinstance(sent, str):
            return sent
        if not isinstance(sent, dict) or not isinstance(sent.get("path"), str):
            raise InputError("There is no picture.", 'Send one with handle_file("picture.png").')
        path = Path(sent["path"]).resolve()
        if not path.is_relative_to(Path(get_upload_folder()).resolve()):
            raise InputError("This picture was not sent.", 'Send it with handle_file("picture.png").')
        return keep_file(self.api.folders(user), path, Path(str(sent.get("orig_name") or path.name)).name)

    async def _cancel(self, request: Request) -> Response:
        """The job of one event; what has ended, or is somebody else's, stays as it is."""
        event = (await _document(request)).get("event_id")
        if not isinstance(event, str):
            raise InputError('"event_id" is missing.', "Clients of Gradio send it.")
        if job_id := self._jobs.get(event):
            await run_in_threadpool(self._cancel_job, job_id, user_of(request))
        else:
            self._canceled[event] = None
            while len(self._canceled) > _REMEMBERED:
                self._canceled.popitem(last=False)
        return JSONResponse({"success": True})

    def _cancel_job(self, job_id: str, user: User) -> None:
        self.api.store.cancel(self.api.find(user, job_id).id)

    async def _file(self, request: Request) -> Response:
        """Raises Outside for every address that is not one of a job's file here, Missing for those of others."""
        found = _OURS.fullmatch(request.path_params["rest"])
        if found is None:
            raise Outside("Files of other servers are not fetched here.", "Fetch it yourself, and send it.")
        return await run_in_threadpool(self._sent, unquote(found["job"]), unquote(found["name"]), request)

    def _sent(self, job_id: str, name: str, request: Request) -> Response:
        return sent(job_file(self.api, self.api.find(user_of(request), job_id), name), request.headers)


def _parameter(one: Parameter) -> inspect.Parameter:
    """A picture is an object, as `handle_file` makes it."""
    default = inspect.Parameter.empty if one.default is None else one.default
    kind = dict if one.name == "image" else one.type
    return inspect.Parameter(one.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


def _docstring(call: Call, parameters: list[Parameter]) -> str:
    """In the form that Gradio reads."""
    told = "\n".join(f"    {one.name}: {one.help}" for one in parameters)
    files = ", ".join(ending.strip(".").upper() for ending in call.files)
    return f"{call.about}\n\nParameters:\n{told}\nReturns:\n    {files}, settings: every value with which it was made, and its job"


def _progress() -> calls.Tell:
    """What `job.status()` shows."""
    progress = gr.Progress()
    return lambda step, total, doing: progress((step, total), desc=doing)


def _sent_file(job: Job, output: Output | None, root: str) -> dict[str, Any] | None:
    """A file as Gradio's clients take it: they get it from its address, and nothing is copied here."""
    if output is None:
        return None
    url = address(job, output, root)
    return {"path": url, "url": url, "orig_name": output.filename, "size": output.bytes, "meta": {"_type": "gradio.FileData"}}


async def _document(request: Request) -> dict[str, Any]:
    """Raises InputError."""
    try:
        document = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise InputError("The body is no valid JSON.") from error
    if not isinstance(document, dict):
        raise InputError("The body is no object.")
    return document
