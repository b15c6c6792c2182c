"""What docs/api.md and README.md show is run, line by line, and what it tells is true."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from api.error_answers import STATUS
from jobs import database
from jobs.deliveries import PAUSES
from tests.api.house import PNG, living
from tests.api.test_jobs import GRAPH

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text()
BLOCKS = {kind: re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) for kind in ("sh", "python")}
README = [block for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "curl " in block]


@pytest.fixture
def curl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """`run(blocks)`: what they print, run in a folder with a picture and a workflow, with a server where they say that it is, and with a
    listener where they say that one is; the first request that fails ends it."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")
    (tmp_path / "still.png").write_bytes(PNG)
    (tmp_path / "workflow.json").write_text(json.dumps(GRAPH))
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    strict = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@" || { echo "failed: $*" >&2; exit 1; }; echo; }\n'
    with living(tmp_path / "data") as house, listening() as (address, heard):

        def run(blocks: list[str]) -> str:
            script = strict + "\n".join(blocks).replace("http://127.0.0.1:8000", house.url).replace("https://films.example.com", address)
            words = ["bash", "-c", script]
            done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60, check=False)
            assert done.returncode == 0, done.stderr + done.stdout[-2000:]
            return done.stdout

        yield SimpleNamespace(run=run, house=house, heard=heard, folder=tmp_path)


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, queue.SimpleQueue[bytes]]]:
    """Its address, and the bodies of what was posted to it."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


def test_every_curl_example_works(curl: SimpleNamespace) -> None:
    said = curl.run(BLOCKS["sh"])
    jobs = curl.house.get("/api/jobs").json()["jobs"]
    told = json.loads(curl.heard.get(timeout=10))
    assert (curl.folder / "film.png").read_bytes().startswith(b"\x89PNG")
    assert "event: succeeded" in said
    assert '"executed"' in said  # out of the sink
    assert len(list(curl.folder.glob("film_*.png"))) == 1  # by /view
    assert len(jobs) == 13
    assert zipfile.is_zipfile(curl.folder / "films.zip")
    assert '"is_identical":true' in said
    assert any(job["title"] == "The best one" and job["is_favourite"] for job in jobs)
    assert (told["event"], told["job"]["title"]) == ("job.succeeded", "a green balloon in the city")


@pytest.mark.skipif(not README, reason="README shows no request")
def test_every_curl_example_of_the_readme_works(curl: SimpleNamespace) -> None:
    curl.run([block.replace(".mp4", ".png") for block in README])  # who plays the GPU here makes stills alone
    assert (curl.folder / "film.png").read_bytes().startswith(b"\x89PNG")


def test_the_signature_is_checked_as_it_is_shown() -> None:
    from jobs.webhooks import signature

    names: dict = {}
    exec(BLOCKS["python"][0], names)
    key, body = bytes(range(32)), b'{"event": "job.succeeded"}'
    assert names["is_genuine"](body, f"sha256={signature(key, body)}", key.hex())
    assert not names["is_genuine"](body + b" ", f"sha256={signature(key, body)}", key.hex())


def test_statuses_and_pauses_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (.*?) \|", TEXT, re.MULTILINE)
    told = {code: status.split(", ") for status, codes in rows for code in re.findall("`(.*?)`", codes)}
    for code in ("bad_input", "bad_workflow", "unknown_job", "wrong_state", "queue_full", "storage"):
        assert str(STATUS.get(code, 400)) in told[code]
    assert PAUSES == (10, 30, 2 * 60, 10 * 60, 3600, 6 * 3600, 24 * 3600)
