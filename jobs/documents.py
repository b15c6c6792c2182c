"""A job as a JSON document: for the API, for webhooks, for the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from errors import InputError
from jobs.job import Job, Output
from jobs.progress import Snapshot
from workflows.advice import for_people


def job_document(job: Job, root: str = "") -> dict[str, Any]:
    """What the table knows. `root`: the path under which a proxy shows us, for the addresses of files. Logs are not in it."""
    return {
        "id": job.id, "status": job.status.value, "title": job.title, "tags": list(job.tags), "owner": job.owner, "batch": job.batch,
        "created": utc(job.created), "started": utc(job.started), "ended": utc(job.ended), "deleted": utc(job.deleted_at),
        "stages": stages_of(job.work),
        "queued_seconds": round(job.queued_seconds, 3), "run_seconds": round(job.run_seconds, 3), "attempts": job.attempts,
        "is_favourite": job.is_favourite, "is_cancel_requested": job.is_cancel_requested,
        "warnings": for_people(job.warnings, is_form="template" in job.extra),
        "outputs": [output_document(job, output, root) for output in job.files], "cached": list(job.cached),
        "stage_seconds": job.stage_seconds, "device": job.device, "peak_bytes": job.peak_bytes, "error": error_document(job),
    }  # fmt: skip


def stages_of(work: str) -> list[str]:
    """What a job goes through, for those who show how far it is: still, motion, file. `work`: of the job; of nodes that nobody knows all
    three."""
    return [*(kind for kind in ("still", "motion") if not work or f"{kind}:" in work), "file"]


def output_document(job: Job, output: Output, root: str = "") -> dict[str, Any]:
    """A file, and where it can be had."""
    query = {"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
    query |= {"owner": job.owner} if job.owner else {}
    return {**vars(output), "url": f"{root}/view?{urlencode(query)}"}


def error_document(job: Job) -> dict[str, Any] | None:
    """Why it failed; `id` is the number in the log, of a mistake of ours."""
    if job.error is None:
        return None
    error, number = job.error, job.error.details.get("id")
    return {"code": error.code, "message": error.message, "hint": error.hint, "node": error.node, "id": number}


def progress_document(snapshot: Snapshot | None, root: str = "") -> dict[str, Any] | None:
    """How far a running job is; None if it does not run. `preview` is another address for each picture."""
    if snapshot is None or snapshot.status != "running":
        return None
    names = ("stage", "node", "step", "total", "has_moved")
    address = f"{root}/api/jobs/{quote(snapshot.job_id, safe='')}/preview.jpg?number={snapshot.previews}"
    seen = {"preview": address if snapshot.preview else None}
    return {name: getattr(snapshot, name) for name in names} | {"seconds": round(snapshot.seconds, 3)} | seen


def utc(seconds: float | None) -> str | None:
    """ISO 8601, to the millisecond."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str | None) -> float | None:
    """A day (UTC) or an ISO 8601 time in unix seconds. Raises InputError."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError) as error:
        raise InputError(f"{text[:50]!r} is no day or time.", "Write it as 2026-03-01 or 2026-03-01T12:00:00Z.") from error


def day_start(text: str) -> float:
    """The beginning of a day (UTC) in unix seconds. Raises InputError."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise InputError(f"{text[:50]!r} is no day.", "Write it as 2026-03-01.") from error
