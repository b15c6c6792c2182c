"""A queue of jobs, with and without preparing the next one while one is finished.

    python -m benchmarks.ahead [--jobs N] [--rounds N] [--same-models] [--device cuda] [--width W --height H ...]
    python -m benchmarks.ahead --still FILE [--motion FILE]     with other checkpoints; without one for the motion only stills are made

Unless they are to be the same, each job has models of its own: the same files under other names (links), so that it loads anew. In every
round the same queue is done both ways, in turn from the first and from the last, each by a new engine in this process; the first job of
a queue does not count. Seconds are by the clock, of the quickest round: memory that a process takes for the first time costs more. Exits
with 1 if any picture that the two made differs.

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

from jobs.job import JobStatus
from jobs.progress import Board
from jobs.runner import Runner
from jobs.store import JobStore
from jobs.submitting import prepare
from jobs.worker import Worker
from pipelines.model_files import BUNDLED, DEMO_MOTION, DEMO_STILL
from pipelines.parameters import MachineSettings
from workflows.cache import Cache
from workflows.folders import Folders
from workflows.nodes import catalog
from workflows.templates import fill, find_template

WAYS = {"is not prepared": False, "is prepared": True}
SIZES = ("width", "height", "frames", "steps", "motion_steps")
Numbers = dict[str, Any]


def queue_of(count: int, data_dir: Path, still: Path, motion: Path | None, sizes: Numbers, *, same_models: bool) -> list[dict[str, Any]]:
    """Workflows; the models of each are under names of its own, or under one."""
    folder, graphs = data_dir / "models" / "checkpoints", []
    folder.mkdir(parents=True)
    template = find_template("text_to_film" if motion else "text_to_still")
    for number in range(count):
        names = {}
        for name, file in (("checkpoint", still), ("motion_checkpoint", motion)):
            if file:
                names[name] = f"{name}_{0 if same_models else number}.safetensors"
                link = folder / names[name]
                if not link.is_symlink():
                    link.symlink_to(file.absolute())
        seeds = {"seed": number, "motion_seed": number} if motion else {"seed": number}
        graphs.append(fill(template, sizes | names | seeds | {"prompt": f"a red boat, number {number}"}))
    return graphs


def measure(data_dir: Path, graphs: list[dict[str, Any]], device: str, *, is_prepared: bool) -> tuple[Numbers, list[np.ndarray]]:
    """Seconds, and every frame of all pictures and animations of each job but the first."""
    from workflows.run import Engine

    nodes, folders = catalog(), Folders(data_dir)
    with tempfile.TemporaryDirectory() as folder, closing(JobStore(Path(folder) / "jobs.sqlite")) as store:
        engine = Engine(MachineSettings(device=device, attention="sdpa"), cache=Cache(), prepares_next=is_prepared)
        runner = Runner(data_dir, nodes, lambda: engine, store.upcoming)
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
        runner.release()
    waited = [job.stage_seconds.get("loading", 0.0) for job in done]
    written = [data_dir / "output" / file.subfolder / file.filename for job in done for file in job.files if file.kind == "images"]
    numbers = {"seconds": ends[-1] - ends[0], "loading_s": sum(waited), "jobs": len(done)}
    return numbers, [pixels_of(path) for path in written]


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def table(rows: list[Numbers]) -> str:
    lines = ["| next job | seconds a job | of these waiting for models | of not prepared |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['way']} | {row['seconds'] / row['jobs']:.2f} | {row['loading_s'] / row['jobs']:.2f} | {row['ratio']:.2f} |" for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.ahead", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=4, help="in a queue, besides the one that does not count")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--same-models", action="store_true", help="for all jobs, whose prompts differ")
    parser.add_argument("--still", type=Path, help="checkpoint for the still (default: the demo's)")
    parser.add_argument("--motion", type=Path, help="and for the motion; without it, of other checkpoints only stills are made")
    for name in SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    options = parser.parse_args(arguments)
    files = options.still or BUNDLED / DEMO_STILL, options.motion or (None if options.still else BUNDLED / DEMO_MOTION)
    sizes = {name: getattr(options, name) for name in SIZES if getattr(options, name)}
    found: dict[str, list[Numbers]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        data_dir, made = Path(folder), []
        graphs = queue_of(options.jobs + 1, data_dir, *files, sizes, same_models=options.same_models)
        for number in range(options.rounds):
            for way in list(WAYS)[:: -1 if number % 2 else 1]:
                print(way, file=sys.stderr)
                numbers, pictures = measure(data_dir, graphs, options.device, is_prepared=WAYS[way])
                found[way].append(numbers)
                made.append(pictures)
        is_same = all(np.array_equal(one, first) for pictures in made for one, first in zip(pictures, made[0], strict=True))
    rows = [{"way": way} | min(rounds, key=lambda one: one["seconds"]) for way, rounds in found.items()]
    for row in rows:
        row["ratio"] = row["seconds"] / rows[0]["seconds"]
    print(table(rows))
    print(f"\nThe pictures of all are {'equal to the bit' if is_same else 'NOT the same'}.\n")
    print(
        json.dumps(
            {
                "benchmark": "ahead",
                "rounds": options.rounds,
                "sizes": sizes,
                "same_models": options.same_models,
                "is_same": is_same,
                "rows": rows,
            }
        )
    )
    return int(not is_same)


if __name__ == "__main__":
    sys.exit(main())
