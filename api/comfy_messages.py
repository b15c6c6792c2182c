"""What ComfyUI says of a job, on the socket while it runs and in the history for ever after: pairs of type and data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobs.job import Failure, Job

Message = tuple[str, dict[str, Any]]

_UNKNOWN = Failure("error", "It failed, and nobody wrote down why.")


def began(job: Job) -> Message:
    return "execution_start", {"prompt_id": job.id, "timestamp": milliseconds(job.started)}


def cached(job_id: str, nodes: Iterable[str], seconds: float | None) -> Message:
    return "execution_cached", {"nodes": list(nodes), "prompt_id": job_id, "timestamp": milliseconds(seconds)}


def succeeded(job: Job) -> Message:
    return "execution_success", {"prompt_id": job.id, "timestamp": milliseconds(job.ended)}


def interrupted(job: Job, node: str, executed: Iterable[str]) -> Message:
    where = {"node_id": node, "node_type": class_of(job, node), "executed": list(executed)}
    return "execution_interrupted", {"prompt_id": job.id, **where, "timestamp": milliseconds(job.ended)}


def failed(job: Job, executed: Iterable[str]) -> Message:
    error = job.error or _UNKNOWN
    inputs = job.workflow.get(error.node, {}).get("inputs", {})
    why = {
        "exception_message": " ".join(filter(None, (error.message, error.hint))),
        "exception_type": error.code,
        "traceback": [],
        "current_inputs": {name: [value] for name, value in inputs.items() if not isinstance(value, list)},
        "current_outputs": list(job.workflow),
    }
    where = {"node_id": error.node, "node_type": class_of(job, error.node), "executed": list(executed)}
    return "execution_error", {"prompt_id": job.id, **where, **why, "timestamp": milliseconds(job.ended)}


def class_of(job: Job, node: str) -> str:
    return job.workflow.get(node, {}).get("class_type", "")


def milliseconds(seconds: float | None) -> int:
    return round((seconds or 0) * 1000)
