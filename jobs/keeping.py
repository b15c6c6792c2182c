"""The results on the disk: removed when they have to go, and found again without the database."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import StillmotionError
from jobs.job import Outcome, Output, Submission
from jobs.retention import RetentionPlan
from jobs.store import JobStore
from pipelines.metadata import settings_in
from workflows.folders import Folders, inside

log = logging.getLogger(__name__)

RESULTS = (".png", ".webp", ".mp4", ".webm", ".gif")
_SPACE = uuid.UUID("6b1f6e0e-9a70-4b7b-9e0e-3d8d5f1c2a44")  # ids of results that no record names are made from their paths


def keep_within(
    store: JobStore, data_dir: Path, keep_days: float | None = None, keep_bytes: int | None = None, *, is_dry: bool = False
) -> RetentionPlan:
    """Remove what is too old or too much, files first; gives what went, or with `is_dry` what would."""
    plan = store.plan_retention(keep_days, keep_bytes)
    if is_dry:
        return plan
    for owner, output in plan.files:
        try:
            inside(Folders(data_dir, owner).of(output.type), f"{output.subfolder}/{output.filename}".lstrip("/")).unlink(missing_ok=True)
        except (OSError, StillmotionError) as error:
            log.warning("%s could not be removed: %s", output.filename, error)
    for job in plan.jobs:
        try:
            record_of(data_dir, job.id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("The record of job %s could not be removed: %s", job.id, error)
    store.purge(job.id for job in plan.jobs)
    return plan


def record_of(data_dir: Path, job_id: str) -> Path:
    """Where a job's record is kept, which `reindex` reads."""
    stem = job_id if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", job_id) else hashlib.sha256(job_id.encode()).hexdigest()
    return data_dir / "library" / f"{stem}.json"


def reindex(store: JobStore, data_dir: Path) -> tuple[int, int]:
    """Put into the store what the data directory holds and it does not know: jobs from their records, then results without one from the
    settings inside them. Gives how many of each."""
    known, restored, owners = set(), 0, set()
    for path in sorted((data_dir / "library").glob("*.json")):
        try:
            submission, outcome, created = _from_record(json.loads(path.read_text("utf-8")), data_dir)
            known |= {(submission.owner, file.subfolder, file.filename) for file in outcome.files}
            owners.add(submission.owner)
            restored += store.restore(submission, outcome, created)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StillmotionError) as error:
            log.warning("%s is no record of a job: %s", path.name, error)
    loose = 0
    for owner, path in _results(data_dir, owners):
        folder = Folders(data_dir, owner).of("output")
        subfolder = path.parent.relative_to(folder).as_posix().removeprefix(".")
        if (owner, subfolder, path.name) not in known and owner not in store.owners_of(path.name, subfolder):
            loose += _restore_loose(store, owner, path, subfolder)
    return restored, loose


def _from_record(document: dict[str, Any], data_dir: Path) -> tuple[Submission, Outcome, float]:
    folders = Folders(data_dir, document["owner"])
    files = tuple(file for file in (Output(**one) for one in document["files"]) if _size(folders, file))
    submission = Submission(
        document["workflow"], document["owner"], document["title"], tuple(document["tags"]), job_id=document["id"],
        extra=document["extra"], work=document["work"], targets=document["targets"] and tuple(document["targets"]),
    )  # fmt: skip
    outcome = Outcome(
        document["outputs"], document["warnings"], stage_seconds=document["stage_seconds"], device=document["device"], files=files
    )
    return submission, outcome, float(document["created"])


def _size(folders: Folders, file: Output) -> int:
    path = folders.of(file.type) / file.subfolder / file.filename
    return path.stat().st_size if path.is_file() else 0


def _results(data_dir: Path, owners: set[str]) -> Iterator[tuple[str, Path]]:
    """(owner, path) of every result; a folder in `output` is a user's if one of the records is his."""
    root = data_dir / "output"
    for path in sorted(root.rglob("*")) if root.is_dir() else []:
        if path.suffix in RESULTS and not path.name.startswith("."):
            first, *inner = path.relative_to(root).parts
            yield first if inner and first in owners else "", path


def _restore_loose(store: JobStore, owner: str, path: Path, subfolder: str) -> bool:
    """A result that no record names, from the settings inside. False if there are none: then it is not ours."""
    try:
        workflow = settings_in(path).get("prompt")
    except StillmotionError as error:
        log.warning("%s", error)
        return False
    if not isinstance(workflow, dict):
        return False
    status = path.stat()
    kind = "images" if path.suffix in (".png", ".webp") else "gifs"
    output = Output("", kind, path.name, subfolder, "output", status.st_size)
    shown = {"": {kind: [{"filename": path.name, "subfolder": subfolder, "type": "output"}]}}
    submission = Submission(workflow, owner, path.stem, job_id=str(uuid.uuid5(_SPACE, f"{owner}/{subfolder}/{path.name}")))
    return store.restore(submission, Outcome(shown, files=(output,)), status.st_mtime)
