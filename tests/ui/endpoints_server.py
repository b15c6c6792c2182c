"""A server with the endpoints on an otherwise empty page, in a process of its own, since importing Gradio leaves event loops open.

Its GPU writes little files. It says where it is, and ends when its standard input does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from api.job_context import JobApi
from jobs import database
from jobs.job import Job, Outcome
from tests.api.house import PNG, living
from ui.endpoints import Endpoints
from workflows.folders import Folders

_FILES = {"9": ("images", ".png"), "15": ("images", ".webp"), "19": ("gifs", ".mp4")}


def with_endpoints(app: FastAPI, api: JobApi) -> None:
    endpoints = Endpoints(api)
    endpoints.add_routes(app)
    with gr.Blocks(analytics_enabled=False) as blocks:
        endpoints.add()
    blocks.queue(default_concurrency_limit=None, api_open=False)
    endpoints.make_room(blocks)
    gr.mount_gradio_app(app, blocks, path="/", run_history=False, enable_monitoring=False, footer_links=[])


def written(folder: Path, job: Job) -> Outcome:
    """What the nodes of a job would write."""
    output = Folders(folder, job.owner).of("output")
    output.mkdir(parents=True, exist_ok=True)
    shown: dict[str, Any] = {}
    for node, (kind, ending) in _FILES.items():
        if node in job.workflow:
            name = f"{job.id[:8]}{ending}"
            (output / name).write_bytes(PNG if ending == ".png" else f"{job.owner}{ending}".encode())
            shown[node] = {kind: [{"filename": name, "subfolder": "", "type": "output"}]}
    return Outcome(shown, stage_seconds={"still": 0.25}, device="cpu")


def main(folder: Path, access: dict[str, Any]) -> None:
    database._SYNCHRONOUS = "OFF"
    access |= {name: Path(value) for name, value in access.items() if name.endswith("_path")}
    with living(folder, page=with_endpoints, **access) as house:
        house.gpu._written = lambda job, report: written(folder, job)
        sys.stdout.write(house.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
