"""From the door to the film and back: a real server process, real models (tiny ones), ComfyUI's protocol, and an end in the middle."""

from __future__ import annotations

import io
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import websocket
from PIL import Image

from jobs.job import JobStatus
from jobs.store import JobStore
from tests.conftest import MOTION_NAME, STILL_NAME
from tests.test_serve import address, get, process

TWO_STAGE = json.loads((Path(__file__).parent / "data" / "comfyui" / "two_stage.json").read_text())


def small(**first_sampler: Any) -> dict[str, Any]:
    """The vendor's workflow, as it is but for the models, the sizes and the steps."""
    changes = {
        "3": {"steps": 2, **first_sampler}, "4": {"ckpt_name": STILL_NAME}, "5": {"width": 64, "height": 64}, "13": {"steps": 2},
        "16": {"width": 64, "height": 64, "video_frames": 3}, "18": {"ckpt_name": MOTION_NAME},
    }  # fmt: skip
    return {i: node | {"inputs": node["inputs"] | changes.get(i, {})} for i, node in TWO_STAGE.items()}


def submit(url: str, prompt: dict[str, Any]) -> str:
    body = json.dumps({"prompt": prompt, "client_id": "me"}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}prompt", body), timeout=10) as answer:
        return json.load(answer)["prompt_id"]


def messages(socket: websocket.WebSocket, prompt_id: str) -> Iterator[dict[str, Any]]:
    """What is told of one prompt; previews are left out."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        got = socket.recv()
        told = json.loads(got) if isinstance(got, str) else {"data": {}}
        if told["data"].get("prompt_id") == prompt_id:
            yield told


def ended(url: str, prompt_id: str) -> dict[str, Any]:
    until = time.monotonic() + 60
    while not (history := json.loads(get(f"{url}history/{prompt_id}")[1])):
        assert time.monotonic() < until
        time.sleep(0.05)
    return history[prompt_id]


def files(url: str, outputs: dict[str, Any]) -> dict[str, bytes]:
    entries = [(i, entry) for i, ui in outputs.items() for kind in ("images", "gifs") for entry in ui.get(kind, ())]
    found = {}
    for i, entry in entries:
        query = urlencode({name: entry[name] for name in ("filename", "subfolder", "type")})
        with urllib.request.urlopen(f"{url}view?{query}", timeout=10) as answer:
            found[i] = answer.read()
    return found


@pytest.mark.demo
@pytest.mark.long
def test_a_film_is_made_and_one_that_is_broken_off_is_made_by_the_next_process(data_dir: Path) -> None:
    options = ("--port", 0, "--data-dir", data_dir, "--device", "cpu", "--drain", 0)
    with process("serve", *options) as first:
        url = address(first)
        socket = websocket.create_connection(f"ws{url[4:]}ws?clientId=me", timeout=60)
        prompt_id = submit(url, small())
        kinds = []
        for told in messages(socket, prompt_id):
            kinds.append(told["type"])
            if told["type"] == "executing" and told["data"]["node"] is None:
                break
        assert {"execution_start", "executing", "progress", "executed", "execution_success"} <= set(kinds)
        assert kinds.count("executed") == 3
        check_film(files(url, ended(url, prompt_id)["outputs"]))

        broken_off = submit(url, small(steps=100, seed=1))
        assert any(told["type"] == "progress" and told["data"]["node"] == "3" for told in messages(socket, broken_off))
        first.send_signal(signal.SIGTERM)
        _, log = first.communicate(timeout=30)
        socket.close()
    assert (first.returncode, "Traceback" in log) == (0, False), log

    with closing(JobStore(data_dir / "jobs.sqlite")) as store:
        assert store.get(broken_off).status == JobStatus.QUEUED

    with process("serve", *options) as second:
        url = address(second)
        entry = ended(url, broken_off)
        assert entry["status"]["status_str"] == "success", entry
        check_film(files(url, entry["outputs"]))
        assert list(json.loads(get(f"{url}history")[1])) == [prompt_id, broken_off]
        second.send_signal(signal.SIGTERM)
        _, log = second.communicate(timeout=30)
    assert (second.returncode, "Traceback" in log) == (0, False), log
    assert len(list((data_dir / "output").glob("*.mp4"))) == 2


def check_film(found: dict[str, bytes]) -> None:
    assert found.keys() == {"9", "15", "19"}
    assert Image.open(io.BytesIO(found["9"])).size == (64, 64)
    assert Image.open(io.BytesIO(found["15"])).n_frames == 3
    assert found["19"][4:8] == b"ftyp"
