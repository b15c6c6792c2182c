"""A queue in which every job has models of its own, with and without preparing the next job while one is decoded and written.

    python -m benchmarks.ahead [--jobs N] [--rounds N]
    python -m benchmarks.ahead --models DIR --still a.safetensors [--motion b.safetensors] [--width W --height H ...]

The models are the same files under other names (links), so each job loads anew. Without `--motion` the other checkpoint only stills are
made. In every round the same queue is done both ways, in turn the one and the other first, each by a new engine in this process; the
first job of a queue does not count. Seconds are by the clock, of the quickest round: memory that a process takes for the first time costs
more. Exits with 1 if any picture that the two ways made differs.

Prints a table and, last, one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from jobs.job import Job, JobStatus
from jobs.progress import Board
from jobs.runner import Runner, nobody
from jobs.store import JobStore
from jobs.submitting import prepare
from jobs.worker import Worker
from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL
from pipelines.parameters import MachineSettings
from workflows.cache import Cache
from workflows.folders import Folders
from workflows.nodes import catalog
from workflows.templates import fill, find_template

WAYS = ("one after the other", "next job prepared")
SIZES = ("width", "height", "frames", "steps", "motion_steps")
Numbers = dict[str, Any]


def queue_of(count: int, data_dir: Path, still: Path, motion: Path | None, sizes: Numbers) -> list[dict[str, Any]]:
    """Workflows; the models of each are under names of its own."""
    folder, graphs = data_dir / "models" / "checkpoints", []
    folder.mkdir(parents=True)
    template = find_template("text_to_film" if motion else "text_to_still")
    for number in range(count):
        names = {}
        for name, file in (("checkpoint", still), ("motion_checkpoint", motion)):
            if file:
                names[name] = f"{name}_{number}.safetensors"
                (folder / names[name]).symlink_to(file.absolute())
        seeds = {"seed": number, "motion_seed": number} if motion else {"seed": number}
        graphs.append(fill(template, sizes | names | seeds | {"prompt": f"a red boat, number {number}"}))
    return graphs


def measure(data_dir: Path, graphs: list[dict[str, Any]], *, is_prepared: bool) -> tuple[Numbers, list[np.ndarray]]:
    """Seconds, and every frame of the last file of each job, but of the first job."""
    from workflows.run import Engine

    nodes, folders = catalog(), Folders(data_dir)
    with tempfile.TemporaryDirectory() as folder, closing(JobStore(Path(folder) / "jobs.sqlite")) as store:

        def upcoming() -> Job | None:
            places = store.positions()
            return store.get(min(places, key=places.__getitem__)) if places else None

        engine = Engine(MachineSettings(device="cpu"), cache=Cache(memory_bytes=0))
        runner = Runner(data_dir, nodes, lambda: engine, upcoming if is_prepared else nobody)
        worker, done, ends = Worker(store, runner, Board()), [], []
        for graph in graphs:
            store.submit(prepare(graph, nodes, folders)[0])
        while job := worker.step():
            if job.status != JobStatus.SUCCEEDED:
                raise RuntimeError(f"a job failed: {job.error}")
            done.append(job)
            ends.append(time.monotonic())
            print(f"{job.run_seconds:.1f} s, {job.stage_seconds}", file=sys.stderr, flush=True)
        del done[0]
        runner.close()
    waited = [job.stage_seconds.get("loading", 0.0) for job in done]
    written = [data_dir / "output" / file.subfolder / file.filename for job in done for file in job.files[:1]]
    numbers = {"seconds": ends[-1] - ends[0], "loading_s": sum(waited), "jobs": len(done)}
    return numbers, [pixels_of(path) for path in written]


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def table(rows: list[Numbers]) -> str:
    lines = ["| queue | seconds a job | of these waiting for models | of one after the other |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['way']} | {row['seconds'] / row['jobs']:.2f} | {row['loading_s'] / row['jobs']:.2f} | {row['ratio']:.2f} |" for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.ahead", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=4, help="in a queue, besides the one that does not count")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", type=Path, default=BUNDLED, help="the folder with the checkpoints")
    parser.add_argument("--still", default="", help="of these, the one for the still (default: the demo's)")
    parser.add_argument("--motion", default="", help="and the one for the motion; without it, of other checkpoints only stills are made")
    for name in SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    options = parser.parse_args(arguments)
    motion = options.motion or ("" if options.still else DEMO_MOTION)
    files = options.models / (options.still or DEMO_STILL), options.models / motion if motion else None
    sizes = {name: getattr(options, name) for name in SIZES if getattr(options, name)}
    found: dict[str, list[Numbers]] = {way: [] for way in WAYS}
    is_same = True
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        graphs, made = queue_of(options.jobs + 1, data_dir, *files, sizes), []
        for number in range(options.rounds):
            for way in WAYS[:: -1 if number % 2 else 1]:
                numbers, pictures = measure(data_dir, graphs, is_prepared=way == WAYS[1])
                found[way].append(numbers)
                made.append(pictures)
        is_same = all(np.array_equal(one, first) for pictures in made for one, first in zip(pictures, made[0], strict=True))
    rows = [{"way": way} | min(rounds, key=lambda one: one["seconds"]) for way, rounds in found.items()]
    for row in rows:
        row["ratio"] = row["seconds"] / rows[0]["seconds"]
    print(table(rows))
    print(f"\nThe pictures of both are {'equal to the bit' if is_same else 'NOT the same'}.\n")
    print(json.dumps({"benchmark": "ahead", "rounds": options.rounds, "sizes": sizes, "is_same": is_same, "rows": rows}))
    return int(not is_same)


if __name__ == "__main__":
    sys.exit(main())
