"""What a job is, from the moment somebody asks for it until long after it has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from errors import StillmotionError


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_ended(self) -> bool:
        return self in ENDED


PREPARING = ("waking", "loading")  # stages before the work: nobody pays for them, and the next job may find it done
ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)
FILM_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".gif", ".webp")  # what moves, of what nodes write
VERIFIES = "verifies"  # in `extra`: the id of the job that this one does again, with nothing from the cache


@dataclass(frozen=True)
class Output:
    """One file of a job. `kind` is the key under which ComfyUI lists it, e.g. "images" or "gifs"."""

    node_id: str
    kind: str
    filename: str
    subfolder: str = ""
    type: str = "output"
    bytes: int = 0


@dataclass(frozen=True)
class Submission:
    """What somebody asks for. Everything that is random or left open is settled before.

    `number` orders the jobs of one owner, the lowest first; without one a job goes to the end, or with `front` before all.
    `job_id` is the caller's own name for the job; `extra` is the caller's and kept as it is. `targets` are the output nodes that
    count; None means all. `work` names the size of the work, so that later jobs of the same size can be estimated. `warnings`: advice that
    was given when it was checked.
    """

    workflow: dict[str, Any]
    owner: str = ""
    title: str = ""
    tags: tuple[str, ...] = ()
    front: bool = False
    number: float | None = None
    job_id: str | None = None
    batch: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] | None = None
    work: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What executing a workflow gave. `outputs` as ComfyUI says them: `{node_id: {"images": [{filename, subfolder, type}]}}`.

    `files` are the same with their sizes; without them they are read from `outputs`. `is_whole` is False where costly results were
    found in the cache: how long such a run took says nothing about the next one.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    device: str = ""
    cached: list[str] = field(default_factory=list)
    files: tuple[Output, ...] = ()
    is_whole: bool = True

    def all_files(self) -> tuple[Output, ...]:
        return self.files or tuple(_files_in(self.outputs))


@dataclass(frozen=True)
class Failure:
    """Why a job failed, in the words of an error."""

    code: str
    message: str
    hint: str = ""
    node: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, error: StillmotionError) -> Failure:
        """Whoever runs the nodes may set `node` and `details` on the error; that of a workflow has them by node."""
        details, errors = getattr(error, "details", None), getattr(error, "node_errors", None)
        told = dict(details) if isinstance(details, Mapping) else {"node_errors": errors} if errors else {}
        return cls(error.code, error.message, error.hint, str(getattr(error, "node", "")), told)


@dataclass(frozen=True)
class Job:
    """One row of the table. Times are unix seconds; `queued_seconds` and `run_seconds` are never negative.

    `number` is its place among its owner's jobs, the lowest first. `attempts` counts starts; those that were given back do not count.
    """

    id: str
    number: float
    status: JobStatus
    owner: str
    title: str
    tags: tuple[str, ...]
    workflow: dict[str, Any]
    extra: dict[str, Any]
    targets: tuple[str, ...] | None
    work: str
    batch: str | None
    created: float
    started: float | None = None
    ended: float | None = None
    queued_seconds: float = 0.0
    run_seconds: float = 0.0
    attempts: int = 0
    is_cancel_requested: bool = False
    warnings: tuple[str, ...] = ()
    outputs: dict[str, Any] = field(default_factory=dict)
    files: tuple[Output, ...] = ()
    cached: tuple[str, ...] = ()
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    device: str = ""
    error: Failure | None = None
    log: str = ""
    is_favourite: bool = False
    deleted_at: float | None = None


def _files_in(outputs: Mapping[str, Any]) -> Iterator[Output]:
    """Every entry that names a file; nodes may show other things too."""
    for node_id, shown in outputs.items():
        for kind, entries in shown.items():
            for entry in entries if isinstance(entries, list | tuple) else ():
                if isinstance(entry, Mapping) and "filename" in entry:
                    where = entry.get("subfolder", ""), entry.get("type", "output")
                    yield Output(str(node_id), kind, entry["filename"], *where, int(entry.get("bytes", 0)))
