"""A whole server for the tests of ComfyUI's protocol, on a real port: table, board, worker and routes are the real ones. Only the GPU's
work is done by a stand-in, which reports what an engine reports and writes small real files."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
import uvicorn
import websocket
from fastapi import FastAPI
from PIL import Image
from starlette.types import Receive, Scope, Send

from api.comfy import ComfyContext, comfy_routes
from errors import Canceled, StillmotionError
from jobs.job import Job, Outcome
from jobs.progress import Board
from jobs.store import JobStore
from jobs.worker import Worker
from pipelines.filenames import next_name, publish
from workflows.folders import Folders
from workflows.graph import Workflow
from workflows.nodes import catalog

DATA = Path(__file__).parents[1] / "data" / "comfyui_contract"
WORKFLOW = json.loads((DATA / "workflow.json").read_text())
STILL = {i: WORKFLOW[i] for i in ("3", "4", "5", "6", "7", "8", "9")}
ORDER = ["4", "18", "5", "7", "6", "3", "8", "9", "16", "17", "13", "14", "15", "19"]  # in which the recorded server worked
SUFFIXES = {"SaveImage": ".png", "PreviewImage": ".png", "SaveAnimatedWEBP": ".webp", "VHS_VideoCombine": ".mp4"}
FRAME = b"\xff\xd8\xff preview"


def recorded(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text())


def changed(base: dict[str, Any] = WORKFLOW, **changes: dict[str, Any]) -> dict[str, Any]:
    """`changed(n3={"steps": 0})`: the workflow with other inputs in node 3."""
    graph = copy.deepcopy(base)
    for name, inputs in changes.items():
        graph[name[1:]]["inputs"] |= inputs
    return graph


def picture(color: str = "red", size: tuple[int, int] = (8, 6), form: str = "PNG", mode: str = "RGB") -> bytes:
    made = io.BytesIO()
    Image.new(mode, size, color).save(made, form)
    return made.getvalue()


class StandIn:
    """Does the GPU's part of a job. `cached`: what it found. `before[node]` is called when that node has begun."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir, self.catalog = data_dir, catalog()
        self.cached: list[str] = []
        self.previews, self.frame = False, FRAME
        self.before: dict[str, Callable[[], None]] = {}
        self.fails: dict[str, StillmotionError] = {}

    def __call__(self, job: Job, report: Callable, is_canceled: Callable[[], bool], journal: object) -> Outcome:
        folders = Folders(self.data_dir, job.owner)
        workflow = Workflow.parse(job.workflow, self.catalog, folders, job.targets)
        outputs: dict[str, Any] = {}
        report("cached", {"nodes": [i for i in self.cached if i in workflow.nodes]})
        for i in self.cached:
            if i in workflow.targets:
                outputs[i] = self._ui(workflow.nodes[i], folders)
                report("output", {"node_id": i, "ui": outputs[i], "is_cached": True})
        for i in [i for i in ORDER if i in workflow.nodes and i not in self.cached]:
            node = workflow.nodes[i]
            report("node", {"node_id": i})
            self.before.get(i, lambda: None)()
            if i in self.fails:
                self.fails[i].node = i
                raise self.fails[i]
            self._steps(node, report, is_canceled)
            if i in workflow.targets:
                outputs[i] = self._ui(node, folders)
                report("output", {"node_id": i, "ui": outputs[i], "is_cached": False})
        return Outcome(outputs, cached=self.cached, device="stand-in")

    def _steps(self, node: Any, report: Callable, is_canceled: Callable[[], bool]) -> None:
        if node.node_class.name.endswith("CheckpointLoader") or node.node_class.name == "CheckpointLoaderSimple":
            report("progress", {"node_id": node.id, "stage": "loading", "step": 7, "total": 9})
        total = {"KSampler": node.inputs.get("steps", 0), "VHS_VideoCombine": 5}.get(node.node_class.name, 0)
        for step in range(total + 1) if total else ():
            if is_canceled():
                raise Canceled
            report("progress", {"node_id": node.id, "stage": "still", "step": step, "total": total})
            if step and self.previews and node.node_class.name == "KSampler":
                report("preview", {"node_id": node.id, "image": self.frame, "format": "jpeg"})
            self.before.get(f"{node.id} step {step}", lambda: None)()

    def _ui(self, node: Any, folders: Folders) -> dict[str, Any]:
        name, suffix = node.node_class.name, SUFFIXES[node.node_class.name]
        kind = "temp" if name == "PreviewImage" else "output"
        style = "video" if name == "VHS_VideoCombine" else "image"
        numbered = next_name(folders.of(kind), node.inputs.get("filename_prefix", "Preview"), style=style)
        path = publish(numbered, suffix, lambda part: part.write_bytes(picture() if suffix == ".png" else bytes(range(256)) * 4))
        subfolder = path.parent.relative_to(folders.of(kind)).as_posix()
        entry = {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder, "type": kind}
        if name == "VHS_VideoCombine":
            told = {"format": "video/h264-mp4", "frame_rate": 10.0, "workflow": path.with_suffix(".png").name, "fullpath": str(path)}
            return {"gifs": [entry | told]}
        return {"images": [entry]} | ({"animated": [True]} if name == "SaveAnimatedWEBP" else {})


class Listener:
    """A socket, as websocket-client has it."""

    def __init__(self, url: str, user: str, client: str | None, prefix: str = "", rcvbuf: int = 0) -> None:
        query = f"?clientId={client}" if client is not None else ""
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)] if rcvbuf else []
        self.socket = websocket.create_connection(f"ws{url[4:]}{prefix}/ws{query}", header={"X-User": user}, timeout=5, sockopt=options)

    def next(self) -> Any:
        """An empty text: the other side has closed it."""
        got = self.socket.recv()
        return json.loads(got) if got and isinstance(got, str) else got

    def until(self, is_last: Callable[[Any], bool]) -> list[Any]:
        """All messages up to the one that is meant."""
        got = [self.next()]
        while not is_last(got[-1]):
            got.append(self.next())
        return got

    def until_over(self) -> list[Any]:
        return self.until(lambda one: isinstance(one, dict) and one["type"] == "executing" and one["data"]["node"] is None)

    def is_silent(self) -> bool:
        """Whether nothing came until now: a feature_flags message is answered after everything before."""
        self.socket.send(json.dumps({"type": "feature_flags", "data": {}}))
        return self.next()["type"] == "feature_flags"

    def close(self) -> None:
        self.socket.close()
        self.socket.shutdown()  # also if the other side had closed it


class House:
    """People are known by the header X-User; "root" is an admin."""

    def __init__(self, folder: Path, **context: Any) -> None:
        self.data_dir = folder / "data"
        checkpoints = self.data_dir / "models" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for name in ("LandscapeBING_v10.safetensors", "svd_xt_image_decoder.safetensors"):
            (checkpoints / name).write_bytes(struct.pack("<Q", 34) + b'{"__metadata__": {"format": "pt"}}')
        self.board = Board()
        self.store = JobStore(folder / "jobs.sqlite", tell=self.board.publish, max_queued=50)
        self.stand_in = StandIn(self.data_dir)
        self.worker = Worker(self.store, self.stand_in, self.board)
        self.released: list[bool] = []
        self.device: dict[str, Any] | None = None
        self.context = ComfyContext(
            self.store, self.board, catalog(), self.data_dir, lambda: self.released.append(True), device=lambda: self.device, **context
        )
        self.session = requests.Session()
        self.session.trust_env = False

    def app(self) -> Callable:
        app = FastAPI()
        app.include_router(comfy_routes(self.context))

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            name = dict(scope["headers"]).get(b"x-user", b"").decode()
            await app({**scope, "user": SimpleNamespace(name=name, is_admin=name in ("", "root"))}, receive, send)

        return guarded

    def ask(self, method: str, path: str, user: str = "", **more: Any) -> requests.Response:
        headers = {"X-User": user} | more.pop("headers", {})
        return self.session.request(method, self.url + path, headers=headers, timeout=10, **more)

    def get(self, path: str, user: str = "", **more: Any) -> requests.Response:
        return self.ask("GET", path, user, **more)

    def post(self, path: str, user: str = "", **more: Any) -> requests.Response:
        return self.ask("POST", path, user, **more)

    def submit(self, user: str = "", prompt: Any = None, **more: Any) -> str:
        answer = self.post("/prompt", user, json={"prompt": STILL if prompt is None else prompt, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()["prompt_id"]

    def work(self) -> Job | None:
        return self.worker.step()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[threading.Thread]:
        """One job in a thread of its own, as the worker has it."""
        thread = threading.Thread(target=self.work)
        thread.start()
        yield thread
        thread.join(10)
        assert not thread.is_alive()

    @contextlib.contextmanager
    def listening(self, client: str | None = "c", user: str = "", prefix: str = "", rcvbuf: int = 0) -> Iterator[Listener]:
        listener = Listener(self.url, user, client, prefix, rcvbuf)
        try:
            yield listener
        finally:
            listener.close()


def replay(server: House, user: str, exchange: dict[str, Any], **more: Any) -> requests.Response:
    """Ask what was recorded. A workflow is recorded by its changes to WORKFLOW."""
    asked = exchange["request"]
    body = asked.get("json")
    if isinstance(body, dict) and isinstance(body.get("prompt"), dict) and "_changes" in body["prompt"]:
        changes = body["prompt"]["_changes"]
        body = body | {"prompt": {i: node for i, node in (WORKFLOW | changes).items() if node is not None}}
    if "json" in asked:
        more["json"] = body
    if "raw" in asked:
        raw = asked["raw"]
        more["data"] = ast.literal_eval(raw) if raw.startswith("b'") else raw.encode()
    return server.ask(asked["method"], asked["path"], user, headers=asked.get("headers", {}), **more)


@contextlib.contextmanager
def serving(app: Callable) -> Iterator[str]:
    """Gives its address; the server runs until the block ends."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def house(folder: Path, **context: Any) -> Iterator[House]:
    made = House(folder, **context)
    try:
        with serving(made.app()) as made.url:
            yield made
    finally:
        made.session.close()
        made.store.close()
