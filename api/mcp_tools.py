"""MCP, for assistants: the calls of `calls.py` as tools, at `/mcp` (Streamable HTTP). Imported only when asked for: it needs `mcp`.

Who asks is known from each request, as everywhere. A call that is canceled, or whose session is ended, cancels its job; a connection
that is lost does not.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
from fastapi import APIRouter
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api import calls
from api.calls import CALLS, Call, Parameter
from api.job_context import JobApi, user_of
from api.job_files import address, job_file, name_of
from api.uploads import keep_file
from api.users import User
from errors import InputError, UnknownNameError
from jobs.job import Job, Output

_BODY_BYTES = 32 * 2**20
_PICTURE_BYTES = 4 * 2**20  # larger ones are only named
_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}
_PICTURE = "A picture: its name on the server, or data:image/png;base64,..."


class _Manager:
    """As a route's endpoint."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self.manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.manager.handle_request(scope, receive, send)


def mcp_routes(api: JobApi, version: str) -> APIRouter:
    manager = StreamableHTTPSessionManager(_server(api, version), max_request_body_size=_BODY_BYTES)

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with manager.run():
            yield

    router = APIRouter(lifespan=lifespan)
    router.routes.append(Route("/mcp", _Manager(manager), methods=["GET", "POST", "DELETE"]))
    return router


def _server(api: JobApi, version: str) -> Server:
    server: Server = Server("Stillmotion", version)
    known = {call.name: call for call in CALLS}

    @server.list_tools()
    async def list_tools() -> list[types.Tool]:
        return await run_in_threadpool(lambda: [_tool(call, calls.parameters(call, api)) for call in CALLS])

    @server.call_tool()
    async def call_tool(name: str, arguments: dict[str, Any]) -> list[types.ContentBlock]:
        """What it raises becomes a result that says so."""
        if name not in known:
            raise UnknownNameError("tool", name, known)
        return await _Visit(api, server).made(known[name], arguments)

    return server


def _tool(call: Call, parameters: list[Parameter]) -> types.Tool:
    schema = {
        "type": "object", "properties": {one.name: _property(one) for one in parameters}, "additionalProperties": False,
        "required": [one.name for one in parameters if one.default is None],
    }  # fmt: skip
    return types.Tool(name=call.name, description=call.about, inputSchema=schema)


def _property(one: Parameter) -> dict[str, Any]:
    about = _PICTURE if one.name == "image" else one.help
    return {"type": _JSON_TYPES[one.type], "description": about} | ({} if one.default is None else {"default": one.default})


class _Visit:
    """One call of one user."""

    def __init__(self, api: JobApi, server: Server) -> None:
        self.api, self.context = api, server.request_context
        self.request: Request = self.context.request
        self.told = 0

    async def made(self, call: Call, arguments: Mapping[str, Any]) -> list[types.ContentBlock]:
        """Raises StillmotionError."""
        job = await run_in_threadpool(self._begin, call, arguments, user_of(self.request))
        try:
            job = await calls.follow(self.api, job, self._tell)
        except anyio.get_cancelled_exc_class():
            if not self.api.is_ending():
                with anyio.CancelScope(shield=True):
                    await run_in_threadpool(self.api.store.cancel, job.id)
            raise
        return await run_in_threadpool(self._content, call, job)

    def _begin(self, call: Call, arguments: Mapping[str, Any], user: User) -> Job:
        picture = arguments.get("image", "")
        kept = {"image": self._kept(picture, user)} if picture.startswith("data:") else {}
        return calls.begin(self.api, call, {**arguments, **kept}, user)

    def _kept(self, data: str, user: User) -> str:
        """Raises InputError, UnreadableFileError, StorageError."""
        kind, _, text = data.removeprefix("data:").partition(";base64,")
        try:
            ending, content = _ENDINGS[kind], base64.b64decode(text, validate=True)
        except (KeyError, binascii.Error) as error:
            raise InputError("The picture cannot be read.", f"Send data:KIND;base64,... with one of {', '.join(_ENDINGS)}.") from error
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"picture{ending}"
            path.write_bytes(content)
            return keep_file(self.api.folders(user), path, path.name)

    def _tell(self, step: int, total: int | None, doing: str) -> None:
        """In a worker thread."""
        token = self.context.meta.progressToken if self.context.meta else None
        if token is not None:
            self.told += 1
            doing = f"{doing} {step}/{total}" if total else doing
            with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # nobody listens any more
                anyio.from_thread.run(self._send, token, doing)

    async def _send(self, token: str | int, doing: str) -> None:
        await self.context.session.send_progress_notification(
            token, self.told, message=doing, related_request_id=str(self.context.request_id)
        )

    def _content(self, call: Call, job: Job) -> list[types.ContentBlock]:
        """Settings and addresses as JSON; then a small picture as it is."""
        root = str(self.request.base_url).rstrip("/")
        outputs = [one for one in calls.files(call, job) if one is not None]
        told = {"files": [address(job, one, root) for one in outputs]} | calls.settings(call, job)
        pictures = [self._picture(job, one) for one in outputs if one.filename.endswith(".png") and one.bytes <= _PICTURE_BYTES]
        return [types.TextContent(type="text", text=json.dumps(told)), *pictures]

    def _picture(self, job: Job, output: Output) -> types.ImageContent:
        data = base64.b64encode(job_file(self.api, job, name_of(output)).read_bytes()).decode()
        return types.ImageContent(type="image", data=data, mimeType="image/png")
