"""The one app that answers on the one port: the job API, PAI-EAS's queue, other protocols, health, metrics, documentation, and the page.

`Access` stands before all of it. Nothing here loads PyTorch.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import Access, AccessSettings
from api.comfy_context import ComfyContext
from api.docs_page import POLICY, docs_page
from api.downloads import Downloads
from api.error_answers import translate_errors
from api.job_context import JobApi
from api.jobs import job_routes
from api.late_page import LatePage
from api.library import library_routes
from api.line import line_routes
from api.metrics import CONTENT_TYPE, Metrics
from api.models import model_routes
from api.opening import opening_routes
from api.queue_jobs import QueueJobs
from api.queue_service import queue_routes
from jobs.service import READY, Service
from pipelines.model_files import DEMO_MOTION, DEMO_STILL, list_checkpoints
from workflows.model_list import ModelList

MIB = 2**20
BODY_LIMITS = dict.fromkeys(("/upload/", "/api/upload/", "/api/predict/", "/api/open", "/gradio_api/upload"), 110 * MIB)
_ABOUT = "Type a sentence, get a film. Every answer that is an error has the form of ErrorAnswer."
_BOTH = ("GET", "HEAD")


@dataclass(frozen=True)
class ServerParts:
    """`routers`: other protocols. `add_page` puts the page under "/", after all else. `notices`: what it says at the top, as keys of its
    texts."""

    service: Service
    queue_jobs: QueueJobs
    metrics: Metrics
    access: AccessSettings
    version: str
    downloads: Downloads
    routers: Sequence[APIRouter] = ()
    add_page: Callable[[FastAPI], None] | None = None
    notices: tuple[str, ...] = ()


def make_server_app(parts: ServerParts) -> ASGIApp:
    """Raises what `Access` raises for its settings."""
    late = None if parts.add_page is None else LatePage(partial(_make_page, parts.add_page))
    app = FastAPI(
        title="Stillmotion", version=parts.version, description=_ABOUT, docs_url=None, redoc_url=None, openapi_url=None,
        lifespan=late.lifespan if late else None,
    )  # fmt: skip
    translate_errors(app)
    jobs = job_api(parts.service)
    for routes in (opening_routes, library_routes, line_routes, job_routes):  # in this order: ids of jobs may have slashes
        app.include_router(routes(jobs))
    app.include_router(model_routes(ModelList(parts.service.settings.data_dir), parts.downloads))
    app.include_router(queue_routes(parts.service.queues, parts.queue_jobs.submit, parts.queue_jobs.withdraw))
    for router in parts.routers:
        app.include_router(router)
    _add_health(app, parts)
    _add_docs(app)
    if late is None:
        app.add_route("/", lambda request: RedirectResponse("docs"), methods=list(_BOTH))
    else:
        app.router.default = _page_or_nothing(late, app.router.not_found)  # of all that is nobody else's
    return Access(app, parts.access)


def _page_or_nothing(page: ASGIApp, nothing: ASGIApp) -> ASGIApp:
    """The page, but under "/api/", where whoever mistypes an address gets an error of the form that is promised."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_api = scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")).startswith("/api/")
        await (nothing if is_api else page)(scope, receive, send)

    return serve


def _make_page(add_page: Callable[[FastAPI], None]) -> FastAPI:
    page = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    translate_errors(page)
    add_page(page)
    return page


def comfy_context(service: Service, version: str) -> ComfyContext:
    """What ComfyUI's protocol works on, for `comfy_routes`."""
    return ComfyContext(
        service.store, service.board, service.catalog, service.settings.data_dir, service.release, service.device, version,
        service.settings.max_pixel_steps,
    )  # fmt: skip


def job_api(service: Service) -> JobApi:
    """What the job API works on, for its routes and for the page."""
    return JobApi(
        service.store, service.board, service.catalog, service.settings.data_dir, service.settings.max_pixel_steps,
        service.work.webhook_private, service.runner.hands, lambda: service.is_over,
    )  # fmt: skip


def _add_health(app: FastAPI, parts: ServerParts) -> None:
    async def healthz(request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "alive"})

    def readyz(request: Request) -> Response:
        """Jobs are taken and done."""
        status, reason = parts.service.state()
        headers = {"Retry-After": "5"} if status != READY else {}
        return JSONResponse({"status": status} | ({"reason": reason} if reason else {}), 200 if status == READY else 503, headers)

    def metrics(request: Request) -> Response:
        return PlainTextResponse(parts.metrics.text(), media_type=CONTENT_TYPE)

    instance = uuid.uuid4().hex  # of this process: a page that was drawn by another is drawn anew

    def about(request: Request) -> Response:
        """What the page says of the server."""
        user = {"user": request.scope["user"].name, "is_admin": request.scope["user"].is_admin}
        known = {"version": parts.version, "instance": instance, "notices": parts.notices, "signs_in": parts.access.has_credentials}
        models = list_checkpoints(parts.service.settings.data_dir / "models")
        return JSONResponse(known | user | {"is_demo_only": models.keys() <= {DEMO_STILL, DEMO_MOTION}})

    app.add_route("/api/about", about, methods=["GET"])
    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        app.add_route(path, endpoint, methods=list(_BOTH))


def _add_docs(app: FastAPI) -> None:
    def openapi(request: Request) -> Response:
        return JSONResponse(_document(app) | {"servers": [{"url": request.scope["root_path"] or "/"}]})

    def docs(request: Request) -> Response:
        return HTMLResponse(docs_page(_document(app)), headers={"Content-Security-Policy": POLICY})

    app.add_route("/openapi.json", openapi, methods=list(_BOTH))
    app.add_route("/docs", docs, methods=list(_BOTH))


def _document(app: FastAPI) -> dict[str, Any]:
    """Without FastAPI's own answer to wrong values, which is ours here."""
    document = app.openapi()
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document
