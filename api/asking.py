"""What is asked for: a template's fields, or a workflow of one's own with the fields of its form. Checked here as a whole, by whoever will
submit it and by whoever only wants to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api import films
from api.job_context import JobApi
from api.job_models import FilmRequest, SubmitModel
from api.users import User
from jobs.job import Job, Submission
from jobs.outgoing import check_url
from jobs.submitting import prepare
from workflows.graph import Workflow, WorkflowError, check_readable
from workflows.opening import open_workflow
from workflows.templates import WITHOUT_METADATA, Graph, Template, check_given, check_said, extra_of, fill, find_template


@dataclass(frozen=True)
class Wish:
    """`given`: the fields that were given; `wrong`: what does not fit among them, which is left out of the graph. `graph`: with every seed
    drawn."""

    template: Template
    graph: Graph
    given: Mapping[str, Any] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)


def make_film(api: JobApi, body: FilmRequest, user: User) -> Job:
    """Raises UnknownNameError, InputError, Unsaid, WorkflowError, QueueFullError, StorageError."""
    asked = wish(api, body, user)
    if body.workflow is None:
        check_given(asked.template, asked.given)
    return api.store.submit(checked(api, asked, body, user)[0])


def run_workflow(api: JobApi, graph: Graph, body: SubmitModel, user: User) -> Job:
    """Raises InputError, WorkflowError, QueueFullError, StorageError."""
    return api.store.submit(prepared(api, graph, body, user)[0])


def wish(api: JobApi, body: FilmRequest, user: User) -> Wish:
    """Raises UnknownNameError, InputError, WorkflowError."""
    given = body.model_extra or {}
    if body.workflow is None:
        return wish_for(api, find_template(body.template, api.data_dir), given, is_draft=body.draft)
    opened = open_workflow(body.workflow, api.catalog, api.folders(user))
    return wish_for(api, opened.template, given, opened.values)


def wish_for(
    api: JobApi, template: Template, given: Mapping[str, Any], others: Mapping[str, Any] | None = None, *, is_draft: bool = False
) -> Wish:
    """`others`: values of fields that were not given. Raises UnknownNameError, InputError."""
    wrong = films.misfits(template, given, api.catalog)
    fitting = {name: value for name, value in given.items() if name not in wrong}
    return Wish(template, fill(template, {**(others or {}), **fitting}, is_draft=is_draft), given, wrong)


def checked(api: JobApi, asked: Wish, body: SubmitModel, user: User) -> tuple[Submission, Workflow]:
    """What is wrong with nodes is said of the fields that set them. Raises InputError, Unsaid, WorkflowError."""
    check_said(asked.template, asked.graph)
    named = {"template": asked.template.id} if asked.template.id else {}
    named |= extra_of(asked.template, asked.given)
    try:
        found = prepared(api, asked.graph, body, user, **named)
    except WorkflowError as error:
        raise films.in_fields(error, asked.template, asked.given, asked.wrong) from error
    if asked.wrong:
        raise films.BadFields(asked.wrong)
    return found


def prepared(api: JobApi, graph: Graph, body: SubmitModel, user: User, **extra: Any) -> tuple[Submission, Workflow]:
    """Raises InputError, WorkflowError."""
    check_readable(graph)
    if body.webhook is not None:
        check_url(body.webhook, allows_private=api.allows_private_webhooks)
        extra["webhook"] = body.webhook
    if not body.metadata:
        extra[WITHOUT_METADATA] = True
    submission, workflow = prepare(
        graph, api.catalog, api.folders(user), extra=extra, max_pixel_steps=api.max_pixel_steps,
        title_of_file=api.store.title_of_file, title=body.title, tags=tuple(body.tags), front=body.front,
    )  # fmt: skip
    if workflow.node_errors:  # what is asked for here is done whole or not at all
        raise WorkflowError("prompt_outputs_failed_validation", "Some outputs cannot be made", node_errors=workflow.node_errors)
    return submission, workflow
