"""What a job will cost, told from jobs that have been: seconds, bytes, memory. The form, the queue and the panel of a job all ask here.

First from jobs of the same work; else scaled from jobs of other sizes, by the same models on the same device. Where those say nothing,
nothing is said. Time grows with pixels times steps in each stage, and with pixels where nothing is sampled; bytes grow with pixels. What
came before the work, the start of PyTorch and the loading of models, does not count: who comes next may find it done.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jobs.job import PREPARING
from jobs.store import JobStore
from workflows.workload import Work

_SAME, _RECENT = 20, 80  # so many of the last are looked at
_FARTHEST = 8.0  # times larger or smaller than what was measured: beyond, nobody knows
_SAMPLED = ("still", "motion")
_FOR_EACH_PICTURE = ("decoding", "encoding")
_WORK = re.compile(r"(?P<kind>\w+):(?P<numbers>\d+(?:x\d+){3})")
_LAST_DEVICE = "SELECT device FROM jobs WHERE status = 'succeeded' AND is_whole AND device <> '' ORDER BY seq DESC LIMIT 1"
_COLUMNS = "seq, work, workflow, stage_seconds, run_seconds, peak_bytes, is_whole, device"
_SAME_WORK = f"SELECT {_COLUMNS} FROM jobs WHERE status = 'succeeded' AND work = ? ORDER BY seq DESC LIMIT ?"
_ANY_WORK = f"SELECT {_COLUMNS} FROM jobs WHERE status = 'succeeded' AND work <> '' ORDER BY seq DESC LIMIT ?"
_BYTES = """
    SELECT job, sum(bytes) AS bytes FROM files
    WHERE job IN (SELECT value FROM json_each(?)) AND type = 'output' AND kind <> 'beside' GROUP BY job
"""


Models = tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """None where nothing is known. `basis` says in words from what `seconds` are told."""

    seconds: float | None = None
    basis: str | None = None
    bytes: int | None = None
    memory_bytes: int | None = None


def estimate(store: JobStore, work: Sequence[Work], workflow: Mapping[str, Any]) -> Estimate:
    """Of a job that would be submitted now, once it runs. Raises StorageError."""
    return Measured(store).estimate("+".join(map(str, work)), models_of(workflow))


class Measured:
    """What the last jobs took, read once for several questions."""

    def __init__(self, store: JobStore) -> None:
        self.store = store

    def estimate(self, work: str, models: Models) -> Estimate:
        """Of work as the table names it. Raises StorageError."""
        if not work:
            return Estimate()
        same, others = self._same(work, models), self._others(work, models)
        seconds, basis = self._seconds(same, others, work)
        peaks = [one.peak_bytes for one in same if one.device == self.device and one.peak_bytes]
        return Estimate(seconds, basis, _size(self.store, same, others, work_of(work)), max(peaks, default=None))

    def seconds(self, work: str, models: Models) -> float | None:
        """The same number alone."""
        return self._seconds(self._same(work, models), self._others(work, models), work)[0] if work else None

    def _seconds(self, same: Sequence[_Done], others: Sequence[_Done], work: str) -> tuple[float | None, str | None]:
        seconds, basis = _of_same([one for one in same if self._counts(one)])
        return (seconds, basis) if seconds is not None else _scaled([one for one in others if self._counts(one)], work_of(work))

    def _counts(self, one: _Done) -> bool:
        return one.is_whole and one.device == self.device

    def _same(self, work: str, models: Models) -> list[_Done]:
        rows = self.store.database.read(_SAME_WORK, (work, _SAME))
        return [one for one in map(_done, rows) if one.models == models]

    def _others(self, work: str, models: Models) -> list[_Done]:
        kinds = _kinds(work_of(work))
        return [one for one in self._recent if one.name != work and one.models == models and _kinds(one.work) == kinds]

    @cached_property
    def device(self) -> str:
        """Where the last one ran that counts."""
        return next((row["device"] for row in self.store.database.read(_LAST_DEVICE)), "")

    @cached_property
    def _recent(self) -> list[_Done]:
        return list(map(_done, self.store.database.read(_ANY_WORK, (_RECENT,))))


def work_of(text: str) -> list[Work]:
    """A job's work, from how the table keeps it; none if it is written otherwise."""
    found = []
    for part in filter(None, text.split("+")):
        written = _WORK.fullmatch(part)
        if not written:
            return []
        found.append(Work("", written["kind"], "", *map(int, written["numbers"].split("x"))))
    return found


@dataclass(frozen=True)
class _Done:
    """A job that has been; its seconds without those of `PREPARING`."""

    seq: int
    name: str
    work: list[Work]
    models: Models
    stage_seconds: Mapping[str, float]
    run_seconds: float
    peak_bytes: int
    is_whole: bool
    device: str


def _done(row: Any) -> _Done:
    spent = json.loads(row["stage_seconds"])
    before = sum(spent.pop(stage, 0.0) for stage in PREPARING)
    return _Done(
        row["seq"], row["work"], work_of(row["work"]), models_of(json.loads(row["workflow"])), spent,
        max(0.0, row["run_seconds"] - before), row["peak_bytes"], bool(row["is_whole"]), row["device"],
    )  # fmt: skip


def _of_same(done: Sequence[_Done]) -> tuple[float | None, str | None]:
    return (statistics.median(one.run_seconds for one in done), _counted(len(done), "similar job")) if done else (None, None)


def _kinds(work: Iterable[Work]) -> list[str]:
    return [one.kind for one in work]


def models_of(workflow: Mapping[str, Any]) -> Models:
    """By which it is made."""
    inputs = [node.get("inputs", {}) for node in workflow.values() if isinstance(node, dict)]
    return tuple(sorted(str(one["ckpt_name"]) for one in inputs if "ckpt_name" in one))


# Scaled from other sizes


def _scaled(done: Sequence[_Done], work: Sequence[Work]) -> tuple[float | None, str | None]:
    """The sum of what each stage should take; what a job needs besides its stages is the middle of what it was."""
    if not done or not work or not _is_near(work, [one.work for one in done]):
        return None, None
    total = statistics.median(max(0.0, one.run_seconds - sum(one.stage_seconds.values())) for one in done)
    for stage in sorted({stage for one in done for stage in one.stage_seconds}):
        points = [(_amount(one.work, stage), one.stage_seconds.get(stage, 0.0)) for one in done]
        total += _line(points, _amount(work, stage))
    return total, f"scaled from {_counted(len(done), 'job')} of other sizes"


def _amount(work: Iterable[Work], stage: str) -> float:
    """What the time of a stage grows with; 0 for stages that do not grow."""
    if stage in _SAMPLED:
        return sum(one.pixel_steps for one in work if one.kind == stage)
    return _pixels(work) if stage in _FOR_EACH_PICTURE else 0


def _pixels(work: Iterable[Work]) -> int:
    return sum(one.width * one.height * one.count for one in work)


def _is_near(work: Sequence[Work], done: Iterable[Sequence[Work]]) -> bool:
    """Whether each stage is about as large as one that was measured; and whether its size is known at all."""
    known = list(done)
    for number, one in enumerate(work):
        sizes = [other[number].pixel_steps for other in known if other[number].pixel_steps]
        if not one.pixel_steps or not sizes or not min(sizes) / _FARTHEST <= one.pixel_steps <= max(sizes) * _FARTHEST:
            return False
    return True


def _line(points: Sequence[tuple[float, float]], amount: float) -> float:
    """Least squares: a fixed part and one that grows, neither negative. With one size alone all of it grows."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    fixed = mean_y - slope * mean_x
    if mean_x and (not spread or fixed < 0):
        return sum(x * y for x, y in points) / sum(x * x for x, _ in points) * amount
    return mean_y if slope <= 0 else fixed + slope * amount


def _size(store: JobStore, same: Sequence[_Done], others: Sequence[_Done], work: Sequence[Work]) -> int | None:
    sizes = _bytes(store, [one.seq for one in (*same, *others)])
    if known := [sizes[one.seq] for one in same if sizes.get(one.seq)]:
        return round(statistics.median(known))
    rates = [sizes[one.seq] / _pixels(one.work) for one in others if sizes.get(one.seq) and _pixels(one.work)]
    return round(statistics.median(rates) * _pixels(work)) if rates and _pixels(work) else None


def _bytes(store: JobStore, seqs: Sequence[int]) -> dict[int, int]:
    """Of a job's films and pictures, without what stands beside them."""
    return {row["job"]: row["bytes"] for row in store.database.read(_BYTES, (json.dumps(list(seqs)),))}


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
