"""Films and workflows become jobs: what every door does that takes the fields of a template, or a workflow."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from api import films
from api.job_context import JobApi
from api.job_models import BatchRequest, FilmRequest, SubmitModel
from api.users import User
from errors import InputError, UnknownNameError
from jobs import batches
from jobs.job import Job, Submission
from jobs.outgoing import check_url
from jobs.submitting import prepare
from workflows.graph import WorkflowError, check_readable
from workflows.templates import Template, fill, find_template


def make_film(api: JobApi, body: FilmRequest, user: User) -> Job:
    """Raises UnknownNameError, InputError, WorkflowError, QueueFullError, StorageError."""
    template = find_template(body.template, api.data_dir)
    return api.store.submit(_film(api, template, body.model_extra or {}, body, user, is_draft=body.draft))


def make_films(api: JobApi, body: BatchRequest, user: User) -> list[Job]:
    """All of them or none, as one batch. Raises as `make_film`, and BadRows."""
    template = find_template(body.template, api.data_dir)
    rows = batches.repeated(_rows(body, template), body.seeds, template)
    if len(rows) > batches.MOST_ROWS:
        raise InputError(f"These are {len(rows)} films; {batches.MOST_ROWS} are the most at once.", "Use fewer rows or fewer of each.")
    made = batches.prepared(rows, lambda values: _film(api, template, values, body, user, is_draft=body.draft))
    ordered = made[::-1] if body.front else made  # each comes before those that wait, so the first has to come last
    jobs = api.store.submit_many(ordered, batch=str(uuid.uuid4()))
    return jobs[::-1] if body.front else jobs


def submit(api: JobApi, graph: dict[str, Any], body: SubmitModel, user: User, **extra: Any) -> Job:
    """Raises InputError, WorkflowError, QueueFullError, StorageError."""
    return api.store.submit(_submission(api, graph, body, user, **extra))


def _rows(body: BatchRequest, template: Template) -> list[batches.Row]:
    if (body.lines is None) == (body.csv is None):
        raise InputError("Exactly one of `lines` and `csv` is taken.", "Send one prompt a line as `lines`, or a table as `csv`.")
    fields = template.fields()
    for name in body.values:
        if name not in fields:
            raise UnknownNameError(f"field of {template.id}", name, fields)
    if body.csv is not None:
        return batches.of_table(body.csv, fields, body.values)
    if "prompt" not in fields:
        raise InputError(f"{template.id} has no field `prompt`.", "Send a table with columns for its fields as `csv`.")
    return batches.of_lines(body.lines, body.values)


def _film(
    api: JobApi, template: Template, given: Mapping[str, Any], body: SubmitModel, user: User, *, is_draft: bool = False
) -> Submission:
    graph = fill(template, given, is_draft=is_draft)
    try:
        return _submission(api, graph, body, user, template=template.id)
    except WorkflowError as error:
        raise films.in_fields(error, template, given) from error


def _submission(api: JobApi, graph: dict[str, Any], body: SubmitModel, user: User, **extra: Any) -> Submission:
    check_readable(graph)
    if body.webhook is not None:
        check_url(body.webhook, allows_private=api.allows_private_webhooks)
        extra["webhook"] = body.webhook
    submission, workflow = prepare(
        graph, api.catalog, api.folders(user), extra=extra, max_pixel_steps=api.max_pixel_steps, title=body.title,
        tags=tuple(body.tags), front=body.front,
    )  # fmt: skip
    if workflow.node_errors:  # what is asked for here is done whole or not at all
        raise WorkflowError("prompt_outputs_failed_validation", "Some outputs cannot be made", node_errors=workflow.node_errors)
    return submission
