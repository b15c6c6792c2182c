"""A whole server on a real port, with a worker whose GPU we are: it writes little files, and does what a prompt tells it to do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from api.access import AccessSettings
from api.access_settings import SERVER_OPTIONS
from api.comfy import comfy_routes
from api.downloads import Downloads
from api.metrics import Metrics
from api.queue_jobs import QueueJobs
from api.server import BODY_LIMITS, ServerParts, comfy_context, job_api, make_server_app
from errors import Canceled, InputError
from jobs.job import Job, Outcome
from jobs.service import Service
from jobs.service_settings import StoreSettings, WorkSettings
from pipelines.hub import HubSettings
from workflows.folders import Folders
from workflows.nodes import catalog

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)


@dataclass
class Gpu:
    """A prompt with "fail" in it fails, one with "break" breaks, one with "wait" waits until it is let go or canceled."""

    data_dir: Path
    go: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    seen: list[str] = field(default_factory=list)

    def __call__(self, job: Job, report: Callable[[str, dict], None], is_canceled: Callable[[], bool], journal: object) -> Outcome:
        self.seen.append(job.id)
        report("cached", {"nodes": ["4"]})
        report("node", {"node_id": "3"})
        report("progress", {"node_id": "3", "stage": "still", "step": 1, "total": 2})
        self.began.set()
        if "fail" in job.title:
            raise InputError("The boat sank.", "Take another boat.")
        if "break" in job.title:
            raise ZeroDivisionError("secret")
        while "wait" in job.title and not self.go.is_set():
            if is_canceled():
                raise Canceled
            self.go.wait(0.005)
        return self._written(job, report)

    def _written(self, job: Job, report: Callable[[str, dict], None]) -> Outcome:
        folder, name = Folders(self.data_dir, job.owner).of("output"), f"film_{len(self.seen):05}_.png"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)
        shown = {"images": [{"filename": name, "subfolder": "", "type": "output"}]}
        report("output", {"node_id": "9", "ui": shown, "is_cached": False})
        return Outcome({"9": shown}, stage_seconds={"still": 0.25}, device="cpu", cached=["4"])


@dataclass
class House:
    url: str
    service: Service
    gpu: Gpu
    client: httpx.Client
    app: Any

    def ask(self, method: str, path: str, *, token: str = "", **more: Any) -> httpx.Response:
        headers = more.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.client.request(method, self.url + path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.ask("POST", path, json=body, **more)

    def film(self, prompt: str, *, token: str = "", wait: int | None = None, **more: Any) -> dict[str, Any]:
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        answer = self.post("/api/films", {"prompt": prompt, **more}, token=token, headers=headers, timeout=20 + (wait or 0))
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def job(self, job_id: str, **more: Any) -> dict[str, Any]:
        return self.get(f"/api/jobs/{job_id}", **more).json()


@contextlib.contextmanager
def living(
    folder: Path,
    *,
    max_queued: int = 0,
    max_pixel_steps: int = 0,
    works: bool = True,
    routers: Any = (),
    add_page: Any = None,
    page: Any = None,
    hub: HubSettings | None = None,
    **access: Any,
) -> Iterator[House]:
    """`access`: settings of `AccessSettings`; `works` False: the worker is not started; `page(app, api)`: an `add_page` with the API."""
    store = StoreSettings(folder, folder / "jobs.sqlite", max_queued=max_queued, max_pixel_steps=max_pixel_steps)
    gpu = Gpu(folder)
    service = Service(store, WorkSettings(webhook_private=True), catalog(), run=gpu)
    queue_jobs, metrics = QueueJobs(service), Metrics(service)
    others = [comfy_routes(comfy_context(service, "1.2.3")), *routers]
    settings = AccessSettings(body_limits=BODY_LIMITS, **access)
    add_page = partial(page, api=job_api(service)) if page else add_page
    downloads = Downloads(folder / "models", hub or HubSettings(is_offline=True))
    app = make_server_app(ServerParts(service, queue_jobs, metrics, settings, "1.2.3", downloads, others, add_page))
    downloads.start()
    if works:
        service.start()
        queue_jobs.start()
    try:
        with serving(app, lifespan="on" if page else "off") as url, httpx.Client(timeout=20, trust_env=False) as client:
            yield House(url, service, gpu, client, app)
    finally:
        gpu.go.set()
        downloads.close()
        queue_jobs.close()
        service.close()


@contextlib.contextmanager
def serving(app: Any, *, lifespan: str = "off") -> Iterator[str]:
    config = uvicorn.Config(app, port=0, lifespan=lifespan, log_config=None, timeout_graceful_shutdown=1, **SERVER_OPTIONS)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def until(is_so: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < end, "this never came to be"
        time.sleep(0.005)
    return found
