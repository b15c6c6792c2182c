"""Many small jobs through one worker: do memory, file handles and threads stay flat, and what does a job cost besides its work?

    python -m benchmarks.many_jobs --jobs 1000                     on the demo checkpoints: hours on a laptop
    python -m benchmarks.many_jobs --models DIR --still a.safetensors --motion b.safetensors     with tiny ones: minutes

Prints a line every tenth of the way, and last one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from pathlib import Path

from benchmarks.kill import submit
from jobs.job import JobStatus
from jobs.progress import Board
from jobs.runner import Runner
from jobs.store import JobStore
from jobs.worker import Worker
from pipelines.parameters import MachineSettings
from workflows.cache import Cache
from workflows.nodes import catalog

SMALL = {"width": 32, "height": 32, "frames": 2, "steps": 1, "motion_steps": 1}


def footprint() -> dict[str, float]:
    """Of this process, on Linux."""
    status = Path("/proc/self/status").read_text()
    return {
        "rss_mib": round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1),
        "handles": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


def one_worker(store: JobStore, data_dir: Path) -> Worker:
    """As a server's, on the CPU, with the shelf of a small machine, and a cache that is soon full: what grows then is no kept result."""
    from pipelines.shelf import Shelf
    from workflows.run import Engine

    cache = Cache(data_dir / "cache", memory_bytes=2**22, disk_bytes=2**22)
    return Worker(store, Runner(data_dir, catalog(), lambda: Engine(MachineSettings(device="cpu"), Shelf(2**30), cache)), Board())


def run(data_dir: Path, count: int, values: dict[str, object]) -> list[dict[str, float]]:
    store = JobStore(data_dir / "jobs.sqlite")
    worker, rows, began = one_worker(store, data_dir), [], time.monotonic()
    for number in range(1, count + 1):
        submit(store, data_dir, values, number)
        job = worker.step()
        if job.status != JobStatus.SUCCEEDED:
            raise RuntimeError(f"job {number} is {job.status}: {job.error}")
        if number % max(1, count // 10) == 0:
            rows.append({"jobs": number, "seconds_a_job": round((time.monotonic() - began) / number, 3)} | footprint())
            print(rows[-1], flush=True)
    store.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--models", type=Path, help="a models folder with other checkpoints")
    parser.add_argument("--still", help="of these, the one for the still")
    parser.add_argument("--motion", help="and the one for the motion")
    options = parser.parse_args()
    random.seed(1)
    names = {"checkpoint": options.still, "motion_checkpoint": options.motion}
    with tempfile.TemporaryDirectory() as folder:
        if options.models:
            (Path(folder) / "models").symlink_to(options.models)
        rows = run(Path(folder), options.jobs, SMALL | {name: value for name, value in names.items() if value})
    print(json.dumps({"jobs": options.jobs, "rows": rows}))


if __name__ == "__main__":
    main()
