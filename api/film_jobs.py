"""Films and workflows become jobs: what every door does that takes the fields of a template, or a workflow."""

from __future__ import annotations

from typing import Any

from api import films
from api.job_context import JobApi
from api.job_models import FilmRequest, SubmitModel
from api.users import User
from jobs.job import Job
from jobs.outgoing import check_url
from jobs.submitting import prepare
from workflows.graph import WorkflowError, check_readable
from workflows.templates import fill, find_template


def make_film(api: JobApi, body: FilmRequest, user: User) -> Job:
    """Raises UnknownNameError, InputError, WorkflowError, QueueFullError, StorageError."""
    template = find_template(body.template, api.data_dir)
    given = body.model_extra or {}
    graph = fill(template, given, is_draft=body.draft)
    try:
        return submit(api, graph, body, user, template=template.id)
    except WorkflowError as error:
        raise films.in_fields(error, template, given) from error


def submit(api: JobApi, graph: dict[str, Any], body: SubmitModel, user: User, **extra: Any) -> Job:
    """Raises InputError, WorkflowError, QueueFullError, StorageError."""
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
    return api.store.submit(submission)
