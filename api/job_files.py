"""The files of a job under the names that they have: for programs that keep a file under the last part of its address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from api.comfy_context import Missing
from api.job_context import JobApi
from jobs.job import Job, Output
from workflows.folders import Folders, inside


def address(job: Job, output: Output, root: str) -> str:
    """`root`: the server, and the path under which a proxy shows it."""
    return f"{root}/api/jobs/{quote(job.id, safe='')}/files/{quote(name_of(output))}"


def name_of(output: Output) -> str:
    return f"{output.subfolder}/{output.filename}".lstrip("/")


def job_file(api: JobApi, job: Job, name: str) -> Path:
    """Raises Missing."""
    output = next((one for one in job.files if name_of(one) == name), None)
    if output is None:
        raise Missing(f"This job has no file {name[:200]!r}.", "Its outputs say which it has.")
    return inside(Folders(api.data_dir, job.owner).of(output.type), name)
