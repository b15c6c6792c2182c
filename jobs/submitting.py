"""From what somebody sent to what the store takes: checked as a whole, every doubt settled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from errors import InputError
from jobs.job import Submission
from workflows.advice import advice, title_of, unknown
from workflows.declare import Catalog
from workflows.folders import Folders
from workflows.graph import Link, Workflow
from workflows.saving import check_codec_of
from workflows.workload import workload


def prepare(
    document: Any,
    catalog: Catalog,
    folders: Folders,
    *,
    only: Iterable[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    max_pixel_steps: int = 0,
    title_of_file: Callable[[str, str], str] | None = None,
    **more: Any,
) -> tuple[Submission, Workflow]:
    """A submission of the owner of `folders`, and its workflow (whose `node_errors` say which outputs are left out). `more`: other fields
    of the submission. With `max_pixel_steps` larger work is refused: pixels times frames times steps, of all samplers.
    `title_of_file(owner, "name [output]")` tells what the job is called that made a file.

    Raises WorkflowError, InputError."""
    workflow = Workflow.parse(document, catalog, folders, only)
    work = workload(workflow, folders)
    size = sum(one.pixel_steps for one in work)
    if max_pixel_steps and size > max_pixel_steps:
        times = size / max_pixel_steps
        raise InputError(f"This is {times:.1f} times the work that one job may be.", "Use a smaller size, fewer frames or fewer steps.")
    for node in workflow.nodes.values():
        check_codec_of({name: value for name, value in node.inputs.items() if not isinstance(value, Link)})
    settled = {
        "workflow": dict(workflow.graph), "owner": folders.owner, "targets": workflow.targets, "extra": dict(extra or {}),
        "work": "+".join(map(str, work)), "warnings": tuple(advice(workflow, folders)),
    }  # fmt: skip
    title = more.pop("title", "") or title_of(workflow, partial(title_of_file, folders.owner) if title_of_file else unknown)
    return Submission(**settled, title=title, **more), workflow
