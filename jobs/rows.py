"""Between a job and its row: what is a list or a dict there is JSON here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from errors import InputError
from jobs.job import Failure, Job, JobStatus, Outcome, Output, Submission

_ID_LENGTH = 200


def to_json(value: Any) -> str:
    """Readable where it can be, so that it can be searched; half a surrogate pair, which JSON lets through, stays escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def job_of(row: sqlite3.Row, files: Iterable[Output]) -> Job:
    same = {name: row[name] for name in _SAME}
    return Job(
        **same,
        status=JobStatus(row["status"]),
        is_cancel_requested=bool(row["is_cancel_requested"]),
        is_favourite=bool(row["is_favourite"]),
        targets=tuple(json.loads(row["targets"])) if row["targets"] is not None else None,
        error=Failure(**json.loads(row["error"])) if row["error"] else None,
        **{name: tuple(json.loads(row[name])) for name in ("tags", "warnings", "cached")},
        **{name: json.loads(row[name]) for name in ("workflow", "extra", "outputs", "stage_seconds")},
        files=tuple(files),
    )


def file_of(row: sqlite3.Row) -> Output:
    return Output(row["node_id"], row["kind"], row["filename"], row["subfolder"], row["type"], row["bytes"])


def submitted_columns(submission: Submission) -> dict[str, Any]:
    """Raises InputError for text that cannot be stored."""
    values = {
        "owner": submission.owner,
        "title": submission.title,
        "tags": to_json(list(submission.tags)),
        "warnings": to_json(list(submission.warnings)),
        "workflow": to_json(submission.workflow),
        "extra": to_json(submission.extra),
        "targets": None if submission.targets is None else to_json(list(submission.targets)),
        "work": submission.work,
        "batch": submission.batch,
    }
    for name in ("owner", "title", "work", "batch"):
        check_text(name, values[name] or "")
    return values | {"words": words_of(submission.title, submission.tags, submission.workflow)}


def outcome_columns(outcome: Outcome) -> dict[str, Any]:
    lists = {name: to_json(getattr(outcome, name)) for name in ("outputs", "warnings", "stage_seconds", "cached")}
    return lists | {"peak_bytes": outcome.peak_bytes, "device": outcome.device, "is_whole": outcome.is_whole}


def file_columns(seq: int, files: Sequence[Output]) -> list[tuple[Any, ...]]:
    return [(seq, position, *asdict(file).values()) for position, file in enumerate(files)]


def words_of(title: str, tags: Iterable[str], workflow: dict[str, Any]) -> str:
    """What a person may look for: the title, the tags, and what the nodes were told in words. In small letters."""
    return "\n".join([title, *tags, *_texts(workflow)]).casefold().encode(errors="replace").decode()


def check_text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"The {name} {text!r} is not valid Unicode.") from error
    return text


def check_id(job_id: str) -> str:
    """The caller's own id goes into addresses and logs, so it is one printable line."""
    if not isinstance(job_id, str) or not 0 < len(job_id) <= _ID_LENGTH or not job_id.isprintable():
        raise InputError(
            f"The job id {str(job_id)[:_ID_LENGTH]!r} cannot be used.", f"Give 1 to {_ID_LENGTH} printable characters, or none."
        )
    return job_id


def _texts(workflow: dict[str, Any]) -> Iterator[str]:
    """Prompts, and names of pictures and films; of anything else what is more than one word, and neither a sampler's name nor a file's."""
    for node in workflow.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            if isinstance(value, str) and (name in _WORDY or (name not in _NAMES and " " in value.strip())):
                yield value


_WORDY = ("text", "prompt", "image", "file")
_NAMES = ("filename_prefix", "ckpt_name", "vae_name", "lora_name")  # they may hold spaces
_SAME = (
    "id", "number", "owner", "title", "work", "batch", "created", "started", "ended", "queued_seconds", "run_seconds", "attempts",
    "peak_bytes", "device", "log", "deleted_at",
)  # fmt: skip
