"""How fast the queue and the library are when the table of jobs is full.

    python -m benchmarks.full_table [--folder FOLDER] [--jobs 100000] [--waiting 1000]

Fills a table with films that have been made, for five owners, with real workflows and three files each; then so many more wait.
Measures what the library and the queue ask for, and what it takes to submit, claim and end a job, beside the same in a table of a
hundredth. While it is filled commits are not forced to the disk; while it is measured they are. Prints a table and ends with one JSON
document; the exit code is 1 if anything that a person looks at takes longer than a tenth of a second.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.doors import GRAPH
from benchmarks.job_queue import OWNERS, row, seconds_each
from jobs import database
from jobs.job import Job, JobStatus, Outcome, Submission
from jobs.store import JobStore

GOAL_SECONDS = 0.1  # at the median
SUBJECTS = ("rocket", "boat", "train", "balloon", "fish", "ball", "bird", "car", "airplane", "ufo")
LOOKS = ("page", "last page", "search", "search in vain", "favourites", "counts", "positions", "queue", "one job")


def submission(number: int, rng: random.Random) -> Submission:
    prompt = f"A {rng.choice(SUBJECTS)} number {number} before the city at night"
    text = {"inputs": GRAPH["6"]["inputs"] | {"text": prompt}}
    workflow = GRAPH | {"6": GRAPH["6"] | text}
    return Submission(workflow, owner=f"owner {number % OWNERS}", title=prompt, job_id=f"job-{number}", extra={"template": "text_to_film"})


def outcome(number: int) -> Outcome:
    names = [f"film_{number:06}{suffix}" for suffix in (".png", ".webp", ".mp4")]
    files = [{"filename": name, "subfolder": "", "type": "output"} for name in names]
    return Outcome({"20": {"images": files}}, stage_seconds={"still": 2.0, "motion": 9.0, "file": 1.0})


def filled(folder: Path, jobs: int, waiting: int) -> Path:
    folder.mkdir()
    rng = random.Random(1)
    with mock.patch.object(database, "_SYNCHRONOUS", "OFF"), closing(JobStore(folder / "jobs.sqlite")) as store:
        for number in range(jobs):
            store.restore(submission(number, rng), outcome(number), created=1.7e9 + number)
        for number in range(0, jobs, 1 + jobs // 50):
            store.favourite(f"job-{number}")
        store.submit_many([submission(jobs + number, rng) for number in range(waiting)])
    return folder / "jobs.sqlite"


def measure(file: Path, jobs: int) -> dict[str, list[float]]:
    with closing(JobStore(file)) as store:
        mine, succeeded = "owner 1", JobStatus.SUCCEEDED
        claimed: list[Job] = []
        looks: dict[str, Callable[[int], Any]] = {
            "page": lambda _: store.list_jobs(owner=mine, status=succeeded, has_files=True),
            "last page": lambda _: store.list_jobs(owner=mine, status=succeeded, has_files=True, cursor=60),
            "search": lambda _: store.list_jobs(owner=mine, status=succeeded, text="balloon"),
            "search in vain": lambda _: store.list_jobs(owner=mine, status=succeeded, text="no such word"),
            "favourites": lambda _: store.list_jobs(owner=mine, is_favourite=True),
            "counts": lambda _: store.counts(mine),
            "positions": lambda _: store.positions(),
            "queue": lambda _: store.list_jobs(owner=mine, status=(JobStatus.QUEUED, JobStatus.RUNNING)),
            "one job": lambda number: store.get(f"job-{number * 7 % jobs}"),
        }
        taken = {name: seconds_each(20, look) for name, look in looks.items()}
        rng = random.Random(2)
        taken["submit"] = seconds_each(100, lambda number: store.submit(submission(10_000_000 + number, rng)))
        taken["claim"] = seconds_each(100, lambda _: claimed.append(store.claim("benchmark")))
        taken["finish"] = seconds_each(100, lambda number: store.finish(claimed[number].id, Outcome()))
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.full_table", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary folder)")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--waiting", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = {}
        for jobs in (options.jobs // 100, options.jobs):
            file = filled(Path(folder) / str(jobs), jobs, options.waiting)
            found[jobs] = [row(name, taken) for name, taken in measure(file, jobs).items()]
        megabytes = file.stat().st_size / 1e6
    few, many = found.values()
    print(f"{'median ms (p99)':<18}" + "".join(f"{jobs:>14} jobs" for jobs in found))
    for pair in zip(few, many, strict=True):
        print(f"{pair[0]['what']:<18}" + "".join(f"{one['median_ms']:>10.2f} ({one['p99_ms']:>5.1f})" for one in pair))
    slowest = max(one["median_ms"] for one in many if one["what"] in LOOKS) / 1e3
    told = {"waiting": options.waiting, "megabytes": megabytes, "goal_seconds": GOAL_SECONDS, "slowest_look_seconds": slowest}
    print(json.dumps({"benchmark": "full_table", **told, "rows": {str(jobs): rows for jobs, rows in found.items()}}))
    return int(slowest > GOAL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
