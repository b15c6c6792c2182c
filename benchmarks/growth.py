"""How the cost of a film grows with frames, pixels and steps, and how well it is told before.

    python -m benchmarks.growth [--sides 96,128,192,256] [--frames 7,14] [--steps 8,16] [--plot FILE]
    python -m benchmarks.growth --models DIR --still a.safetensors --motion b.safetensors     with other checkpoints

Makes films of every combination through a real worker, in an order drawn by chance, and asks before each what the page asks: what will
it take? (`jobs/estimates.py`). After the first few, sizes that nobody has made are told from others. Prints what each stage took and
what was told, the fitted growth of each stage (least squares, one fixed part and one that grows with pixels, or with pixels times steps
where something is sampled), and, last, one JSON document. `--plot` wants matplotlib (requirements-benchmarks.txt).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kill import submit
from benchmarks.many_jobs import one_worker
from jobs.estimates import estimate, work_of
from jobs.job import PREPARING, Job, JobStatus
from jobs.store import JobStore

SEED = 1


@dataclass(frozen=True)
class Film:
    """`told`: seconds that were told before; None where nobody could. `pixel_steps`, of each sampled stage."""

    side: int
    frames: int
    steps: int
    told: float | None
    seconds: float
    stages: dict[str, float]
    pixel_steps: dict[str, int]

    def amount(self, stage: str) -> int:
        """What the time of a stage should grow with."""
        return self.pixel_steps.get(stage) or self.side**2 * self.frames


def measure(data_dir: Path, sizes: list[tuple[int, int, int]], values: dict[str, Any]) -> list[Film]:
    films = []
    with closing(JobStore(data_dir / "jobs.sqlite")) as store:
        worker = one_worker(store, data_dir)
        for number, (side, frames, steps) in enumerate(sizes):
            size = {"width": side, "height": side, "frames": frames, "steps": steps, "motion_steps": steps}
            job_id = submit(store, data_dir, values | size | {"seed": number, "motion_seed": number}, number)
            waiting = store.get(job_id)
            told = estimate(store, work_of(waiting.work), waiting.workflow).seconds
            job = worker.step()
            if job.status != JobStatus.SUCCEEDED:
                raise RuntimeError(f"{size}: {job.error}")
            films.append(_film(job, (side, frames, steps), told))
            print(f"{side}x{side}x{frames}, {steps} steps: {job.run_seconds:.1f} s, told {told and round(told, 1)}", flush=True)
    return films


def _film(job: Job, size: tuple[int, int, int], told: float | None) -> Film:
    pixel_steps = {work.kind: work.pixel_steps for work in work_of(job.work)}
    seconds = job.run_seconds - sum(job.stage_seconds.get(stage, 0.0) for stage in PREPARING)  # as it is told
    return Film(*size, told, seconds, job.stage_seconds, pixel_steps)


def growth(films: list[Film]) -> dict[str, dict[str, float]]:
    """By stage: seconds = fixed + rate x amount, and how much of the variance that explains. Without the first film, which loads."""
    found = {}
    for stage in sorted({stage for film in films for stage in film.stages} - {"loading"}):
        amounts, seconds = [film.amount(stage) for film in films[1:]], [film.stages.get(stage, 0.0) for film in films[1:]]
        rate, fixed = statistics.linear_regression(amounts, seconds)
        explained = statistics.correlation(amounts, seconds) ** 2
        found[stage] = {"fixed_seconds": fixed, "seconds_per_million": rate * 1e6, "r_squared": explained}
    return found


def misses(films: list[Film]) -> list[float]:
    """How far what was told was off, as a part of what it took: 0.1 is a tenth too much."""
    return [film.told / film.seconds - 1 for film in films if film.told is not None]


def plot(films: list[Film], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages = [name for name in ("still", "motion", "decoding", "encoding") if any(name in film.stages for film in films)]
    figure, every = pyplot.subplots(1, len(stages) + 1, figsize=(3.4 * (len(stages) + 1), 3.4), layout="constrained")
    fitted = growth(films)
    for axes, stage in zip(every, stages, strict=False):
        amounts = [film.amount(stage) / 1e6 for film in films[1:]]
        axes.scatter(amounts, [film.stages.get(stage, 0.0) for film in films[1:]], s=14)
        line = fitted[stage]
        axes.plot(
            [0, max(amounts)], [line["fixed_seconds"], line["fixed_seconds"] + line["seconds_per_million"] * max(amounts)], color="gray"
        )
        unit = "pixels x steps" if stage in films[0].pixel_steps else "pixels"
        axes.set(title=f"{stage}: {line['seconds_per_million']:.2f} s a million", xlabel=f"million {unit}", ylabel="seconds")
    known = [film for film in films if film.told is not None]
    most = max(film.seconds for film in films)
    every[-1].scatter([film.seconds for film in known], [film.told for film in known], s=14)
    every[-1].plot([0, most], [0, most], color="gray")
    every[-1].set(title="What was told before", xlabel="seconds it took", ylabel="seconds told")
    for axes in every:
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--sides", default="96,128,192,256", help="pixels, separated by commas")
    parser.add_argument("--frames", default="7,14")
    parser.add_argument("--steps", default="8,16")
    parser.add_argument("--plot", type=Path, help="draw it into this file")
    parser.add_argument("--models", type=Path, help="a models folder with other checkpoints")
    parser.add_argument("--still", help="of these, the one for the still")
    parser.add_argument("--motion", help="and the one for the motion")
    options = parser.parse_args()
    sizes = list(itertools.product(*([int(one) for one in given.split(",")] for given in (options.sides, options.frames, options.steps))))
    random.Random(SEED).shuffle(sizes)
    names = {"checkpoint": options.still, "motion_checkpoint": options.motion}
    with tempfile.TemporaryDirectory() as folder:
        if options.models:
            (Path(folder) / "models").symlink_to(options.models)
        films = measure(Path(folder), sizes, {name: value for name, value in names.items() if value})
    fitted, off = growth(films), misses(films)
    for stage, line in fitted.items():
        print(f"{stage:<12}{line['fixed_seconds']:>8.2f} s + {line['seconds_per_million']:>8.3f} s a million   R2 {line['r_squared']:.3f}")
    typical, worst = statistics.median(map(abs, off)), max(map(abs, off))
    print(f"told before for {len(off)} of {len(films)} films; off by {typical:.0%} in the middle, {worst:.0%} at most")
    if options.plot:
        plot(films, options.plot)
    told = {"films": len(films), "told": len(off), "off_median": typical, "off_most": worst}
    print(json.dumps({"benchmark": "growth", **told, "growth": fitted}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
