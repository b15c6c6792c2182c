"""How fast jobs come in and are given out, on the disk that counts.

    python -m benchmarks.job_queue [--folder FOLDER] [--jobs 1000]

Submits jobs one by one and in batches, claims and ends them, and measures how long one submission takes while a job runs that reports
its progress all the time. Every commit is forced to the disk; the last row says what one such commit costs there, whatever the program.
Prints a table and ends with one JSON document; the exit code is 1 if the goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jobs.job import Job, Outcome, Submission
from jobs.progress import Board
from jobs.store import JobStore
from jobs.worker import Worker

GOAL_P99_SECONDS = 0.05  # of one submission while a job runs
OWNERS = 5
PROMPT = "a red boat sails on the sea " * 8
WORKFLOW = {str(node): {"class_type": "KSampler", "inputs": {"text": PROMPT, "seed": node}} for node in range(14)}


def seconds_each(times: int, call: Callable[[int], object]) -> list[float]:
    taken = []
    for number in range(times):
        began = time.perf_counter()
        call(number)
        taken.append(time.perf_counter() - began)
    return taken


def submission(number: int) -> Submission:
    return Submission(WORKFLOW, owner=f"owner {number % OWNERS}")


def measure_table(store: JobStore, jobs: int) -> dict[str, list[float]]:
    """Seconds of each call, with so many jobs waiting."""
    claimed: list[Job] = []
    batch = [submission(number) for number in range(jobs)]
    began = time.perf_counter()
    store.submit_many(batch)
    together = (time.perf_counter() - began) / jobs
    return {
        "submit in a batch": [together] * jobs,
        "submit": seconds_each(jobs, lambda number: store.submit(submission(number))),
        "positions": seconds_each(10, lambda _: store.positions()),
        "claim": seconds_each(jobs, lambda _: claimed.append(store.claim("benchmark"))),
        "finish": seconds_each(jobs, lambda number: store.finish(claimed[number].id, Outcome())),
    }


def measure_beside_a_running_job(store: JobStore, board: Board, jobs: int) -> list[float]:
    """Submissions while the worker runs a job."""
    is_measured, runs = threading.Event(), threading.Event()

    def run(job: Job, report: Callable, is_canceled: Callable[[], bool], journal: object) -> Outcome:
        runs.set()
        step = 0
        while not (is_measured.is_set() or is_canceled()):
            report("progress", {"node_id": "3", "stage": "still", "step": step, "total": 1000})
            step += 1
            time.sleep(0.002)  # as a GPU that works: the thread waits
        return Outcome()

    worker = Worker(store, run, board)
    thread = threading.Thread(target=worker.step)
    thread.start()
    runs.wait(60)
    taken = seconds_each(jobs, lambda number: store.submit(submission(number)))
    is_measured.set()
    thread.join()
    return taken


def measure_disk(folder: Path, times: int) -> list[float]:
    with (folder / "probe").open("wb", buffering=0) as file:
        return seconds_each(times, lambda _: (file.write(bytes(4096)), os.fsync(file)))


def row(name: str, taken: list[float]) -> dict[str, float | str]:
    p99 = statistics.quantiles(taken, n=100)[98]
    return {"what": name, "per_second": len(taken) / sum(taken), "median_ms": statistics.median(taken) * 1e3, "p99_ms": p99 * 1e3}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.job_queue", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary folder)")
    parser.add_argument("--jobs", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        board = Board()
        store = JobStore(Path(folder) / "jobs.sqlite", tell=board.publish)
        measured = measure_table(store, options.jobs)
        measured["submit beside a running job"] = measure_beside_a_running_job(store, board, options.jobs)
        store.close()
        measured["fsync of this disk"] = measure_disk(Path(folder), 200)
    rows = [row(name, taken) for name, taken in measured.items()]
    print(f"{'':<28}{'a second':>10}{'median ms':>11}{'p99 ms':>9}")
    for one in rows:
        print(f"{one['what']:<28}{one['per_second']:>10.0f}{one['median_ms']:>11.2f}{one['p99_ms']:>9.2f}")
    p99 = rows[-2]["p99_ms"] / 1e3
    print(
        json.dumps({"benchmark": "job_queue", "jobs": options.jobs, "rows": rows, "goal_p99_seconds": GOAL_P99_SECONDS, "p99_seconds": p99})
    )
    return int(p99 > GOAL_P99_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
