"""Kill the worker with SIGKILL at random moments while it works through a list of jobs, and count what is there at the end.

    python -m benchmarks.kill --kills 50 --jobs 30          on the demo checkpoints, in a temporary directory; minutes

Every job that was accepted has to be there once, ended once, with every file that it lists whole on the disk, and no file that none
lists. A job that was killed twice is parked as failed, with the reason. Prints a table and, last, one JSON document.

The parent imports what is slow to import and makes each worker by a fork, so that a kill costs milliseconds and not seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

from jobs.job import Job, JobStatus
from jobs.progress import Board
from jobs.runner import Runner
from jobs.store import JobStore
from jobs.submitting import prepare
from jobs.worker import Worker
from pipelines.parameters import MachineSettings
from pipelines.probe import run_ffmpeg
from workflows.cache import Cache
from workflows.folders import Folders
from workflows.nodes import catalog
from workflows.templates import fill, find_template

DRAFT = {"width": 64, "height": 64, "frames": 4, "steps": 3, "motion_steps": 3}


def work(data_dir: Path) -> None:
    """A worker until nothing waits."""
    from pipelines.shelf import Shelf
    from workflows.run import Engine

    board = Board()
    store = JobStore(data_dir / "jobs.sqlite", tell=board.publish)
    runner = Runner(data_dir, catalog(), lambda: Engine(MachineSettings(device="cpu"), Shelf(2**30), Cache(data_dir / "cache")))
    worker = Worker(store, runner, board)
    store.recover()
    while worker.step() is not None:
        pass


def forked(data_dir: Path) -> int:
    """The pid of a worker of its own process."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work(data_dir)
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)


def submit(store: JobStore, data_dir: Path, values: dict[str, object], number: int) -> str:
    graph = fill(find_template("text_to_film"), {"prompt": f"a red boat {number}", "prefix": f"film{number}"} | values)
    job_id = str(uuid.UUID(int=random.getrandbits(128)))
    submission, _ = prepare(graph, catalog(), Folders(data_dir), job_id=job_id)
    return store.submit(submission).id


def kill_until_done(data_dir: Path, kills: int, jobs: int, values: dict[str, object]) -> dict[str, object]:
    """One job in peace, to know how long one takes; then submit while killing; then let the rest be done."""
    _import_what_is_slow_to_import()
    store, done = JobStore(data_dir / "jobs.sqlite"), 0
    accepted = [submit(store, data_dir, values, 0)]
    store.close()
    began = time.monotonic()
    os.waitpid(forked(data_dir), 0)
    longest = 1.2 * (time.monotonic() - began)
    store = JobStore(data_dir / "jobs.sqlite")
    while done < kills:
        store.close()
        pid = forked(data_dir)
        store = JobStore(data_dir / "jobs.sqlite")
        if len(accepted) < jobs:
            accepted += [submit(store, data_dir, values, len(accepted)) for _ in range(max(1, jobs // kills))]
        time.sleep(random.uniform(0.02, longest))
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            done += 1
        elif len(accepted) >= jobs and not store.counts()[JobStatus.QUEUED]:
            accepted.append(submit(store, data_dir, values, len(accepted)))
    accepted += [submit(store, data_dir, values, len(accepted)) for _ in range(jobs - len(accepted))]
    store.close()
    status = os.waitpid(forked(data_dir), 0)[1]
    return {"kills": done, "last_worker": os.waitstatus_to_exitcode(status)} | judge(data_dir, accepted)


def _import_what_is_slow_to_import() -> None:
    """By name: both libraries import their parts when they are first used."""
    import torchsde  # noqa: F401
    from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, UNet2DConditionModel, UNetSpatioTemporalConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection  # noqa: F401

    import workflows.run  # noqa: F401


def judge(data_dir: Path, accepted: list[str]) -> dict[str, object]:
    """What is wrong, in words; nothing is."""
    store, wrong = JobStore(data_dir / "jobs.sqlite"), []
    found = store.list_jobs(limit=10 * len(accepted)).jobs
    if sorted(job.id for job in found) != sorted(accepted):
        wrong.append(f"{len(accepted)} jobs were accepted and {len(found)} are there")
    listed: Counter[str] = Counter()
    for job in found:
        wrong += _wrong_with(job, data_dir)
        listed.update(file.filename for file in job.files)
    wrong += [f"{name} belongs to {count} jobs" for name, count in listed.items() if count > 1]
    there = {path.name for path in (data_dir / "output").iterdir() if not path.name.startswith(".")}
    parked = [Path(file.filename).stem for job in found if job.status == JobStatus.FAILED for file in job.files]
    beside = tuple(stem for stem in parked) or ("\0",)  # posters and sidecars are not listed by a node
    wrong += [f"{name} belongs to no job" for name in there - listed.keys() if not name.startswith(beside)]
    counts = {str(status): count for status, count in store.counts().items() if count}
    store.close()
    return {"accepted": len(accepted), "counts": counts, "files": len(there), "wrong": wrong}


def _wrong_with(job: Job, data_dir: Path) -> list[str]:
    if job.status == JobStatus.FAILED:
        return [] if job.error and job.error.code == "crashed" else [f"{job.title} failed: {job.error}"]
    if job.status != JobStatus.SUCCEEDED:
        return [f"{job.title} is {job.status}"]
    paths = [data_dir / "output" / file.filename for file in job.files]
    wrong = [f"{job.title}: {path.name} is missing" for path in paths if not path.is_file()]
    if len(paths) != 5:
        wrong.append(f"{job.title} has {len(paths)} files")
    for path in paths:
        if path.suffix == ".mp4" and path.is_file():
            with run_ffmpeg("-v", "error", "-i", str(path), "-f", "null", "-") as (process, _):
                process.stdout.read()
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="a models folder with other checkpoints")
    parser.add_argument("--still", help="of these, the one for the still")
    parser.add_argument("--motion", help="and the one for the motion")
    options = parser.parse_args()
    random.seed(options.seed)
    names = {"checkpoint": options.still, "motion_checkpoint": options.motion}
    values = DRAFT | {name: value for name, value in names.items() if value}
    with tempfile.TemporaryDirectory() as folder:
        if options.models:
            (Path(folder) / "models").symlink_to(options.models)
        began = time.monotonic()
        result = kill_until_done(Path(folder), options.kills, options.jobs, values)
        result["seconds"] = round(time.monotonic() - began)
    print("\n".join(f"{name:12} {value}" for name, value in result.items()))
    print(json.dumps(result))
    sys.exit(bool(result["wrong"] or result["last_worker"]))


if __name__ == "__main__":
    main()
