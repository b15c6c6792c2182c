"""On a Space with ZeroGPU: its own library, unmodified, which forks a process for each film, and a server that lends GPUs as the real
one does. What is lent here is only a CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import MOTION_NAME, STILL_NAME

pytestmark = [pytest.mark.demo, pytest.mark.long, pytest.mark.skipif(not hasattr(os, "fork"), reason="wants fork")]
ROOT = Path(__file__).parent.parent
PATIENCE = 120.0
APP = """
import runpy, sys, torch
# A build of PyTorch for CPUs lacks what the library looks at.
torch.version.cuda = torch.version.cuda or "12.8"
for owner, name in ((torch._C, "_cuda_init"), (torch.cuda, "_exchange_device")):
    setattr(owner, name, getattr(owner, name, None))
torch.cuda._is_in_bad_fork = bool
torch.Tensor.cuda, torch.cuda.synchronize = lambda self, *_, **__: self, lambda *_: None  # as if there were a card to be woken
sys.argv = ["app.py", *sys.argv[1:]]
runpy.run_path("app.py", run_name="__main__")
"""
SMALL = {
    "width": 32, "height": 32, "frames": 2, "steps": 1, "motion_steps": 1, "checkpoint": STILL_NAME, "motion_checkpoint": MOTION_NAME,
}  # fmt: skip


class Lender(ThreadingHTTPServer):
    """Lends what it has, one at a time; `is_empty`: nothing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.is_empty = False

    def told(self, path: str) -> list[dict[str, str]]:
        return [query for one, query in self.asked if one == path]


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        is_idle = bool(self.server.told("/schedule"))
        self.server.asked.append((parts.path, query))
        document: dict[str, Any] = {}
        if parts.path == "/schedule":
            lent = {"idle": is_idle, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": f"token {len(self.server.asked)}"}
            document = {"left": 0, "wait": 60} if self.server.is_empty else lent
        body = json.dumps(document).encode()
        self.send_response(429 if parts.path == "/schedule" and self.server.is_empty else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Space:
    def __init__(self, url: str, lender: Lender, pid: int, data_dir: Path) -> None:
        self.url, self.lender, self.pid, self.data_dir = url, lender, pid, data_dir

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def make(self, **values: Any) -> str:
        return self.ask("api/films", SMALL | {"prompt": "a red boat"} | values)["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        return self.ask(f"api/jobs/{job_id}")

    def until(self, job_id: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        limit = time.monotonic() + PATIENCE
        while not is_so(found := self.job(job_id)):
            assert time.monotonic() < limit, found
            time.sleep(0.05)
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        return self.until(job_id, lambda job: job["ended"] is not None)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Space]:
    folder = tmp_path_factory.mktemp("space")
    data_dir = folder / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(tiny_models)
    (folder / "cgroup").write_text("0::/kubepods.slice/pod1.slice/container1.scope\n")
    lender = Lender()
    threading.Thread(target=lender.serve_forever, daemon=True).start()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STILLMOTION_")} | {
        "OMP_NUM_THREADS": "1", "SPACE_ID": "somebody/films", "SPACES_ZERO_GPU": "true", "HOME": str(folder), "STILLMOTION_NO_AUTH": "true",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{lender.server_port}", "ZEROGPU_PROC_SELF_CGROUP_PATH": str(folder / "cgroup"),
        "STILLMOTION_LISTEN": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, "-c", APP, "--port", "0", "--data-dir", str(data_dir), "--device", "cpu", "--no-ui"]
    log = (folder / "log").open("w")
    with log, subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as started:
        try:
            line = started.stdout.readline()
            assert line.startswith("Stillmotion is at "), line + (folder / "log").read_text()
            yield Space(line.split()[-1], lender, started.pid, data_dir)
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
    lender.shutdown()
    lender.server_close()
    assert "Traceback" not in (folder / "log").read_text()


def test_each_film_is_made_in_a_process_that_has_the_gpu_and_gives_it_back(space: Space) -> None:
    first = space.ended(space.make())
    assert (first["status"], first["error"], first["device"]) == ("succeeded", None, "cpu")
    assert all((space.data_dir / "output" / one["subfolder"] / one["filename"]).is_file() for one in first["outputs"])
    second = space.ended(space.make(seed=7))
    assert second["status"] == "succeeded"
    assert [path for path, _ in space.lender.asked] == ["/startup-report", "/schedule", "/allow", "/release", "/schedule", "/release"]
    (allowed,) = space.lender.told("/allow")  # the second film found the process that made the first, with its models
    assert int(allowed["pid"]) != space.pid
    assert second["stage_seconds"]["loading"] < 0.5 <= first["stage_seconds"]["loading"]
    first, second = (int(query["durationSeconds"]) for query in space.lender.told("/schedule"))
    assert first == 120 > second >= 30  # what is known now


def test_a_cancel_reaches_it_and_progress_comes_back(space: Space) -> None:
    job_id = space.make(steps=1000)
    running = space.until(job_id, lambda job: (job["progress"] or {}).get("step", 0) > 3)
    assert (running["status"], running["progress"]["stage"], running["progress"]["total"]) == ("running", "still", 1000)
    began = time.monotonic()
    space.ask(f"api/jobs/{job_id}/cancel", {})
    assert space.ended(job_id)["status"] == "canceled"
    assert time.monotonic() - began < 5


def test_a_process_that_is_ended_in_the_middle_loses_no_job(space: Space) -> None:
    job_id = space.make(steps=1000, seed=3)
    space.until(job_id, lambda job: (job["progress"] or {}).get("step", 0) > 3)
    before = len(space.lender.told("/allow"))
    os.kill(int(space.lender.told("/allow")[-1]["pid"]), signal.SIGKILL)  # as the lender does when the time is over
    space.until(job_id, lambda job: job["attempts"] == 2 and (job["progress"] or {}).get("step", 0) > 3)
    assert len(space.lender.told("/allow")) == before + 1
    space.ask(f"api/jobs/{job_id}/cancel", {})
    space.ended(job_id)


def test_where_none_is_lent_that_is_said(space: Space) -> None:
    space.lender.is_empty = True
    failed = space.ended(space.make(seed=9))
    space.lender.is_empty = False
    assert (failed["status"], failed["error"]["code"]) == ("failed", "gpu_refused")
    assert "No GPU was lent for this film" in failed["error"]["message"]
    retried = space.ask(f"api/jobs/{failed['id']}/retry", {})
    assert space.ended(retried["id"])["status"] == "succeeded"
