"""Many films from one request: all of them or none."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from api.asking import checked, wish_for
from api.job_context import JobApi
from api.job_models import BatchRequest
from api.users import User
from errors import InputError, UnknownNameError
from jobs import batches
from jobs.job import Job, Submission
from workflows.templates import Template, check_given, find_template


def make_films(api: JobApi, body: BatchRequest, user: User) -> list[Job]:
    """As one batch, in the order of the lines or rows. Raises UnknownNameError, InputError, BadRows, QueueFullError, StorageError."""
    template = find_template(body.template, api.data_dir)
    rows = batches.repeated(_rows(body, template), body.seeds, template)
    if len(rows) > batches.MOST_ROWS:
        raise InputError(f"These are {len(rows)} films; {batches.MOST_ROWS} are the most at once.", "Use fewer rows or fewer of each.")

    def make(values: Mapping[str, Any]) -> Submission:
        check_given(template, values)
        return checked(api, wish_for(api, template, values, is_draft=body.draft), body, user)[0]

    made = batches.prepared(rows, make, body.values)
    ordered = made[::-1] if body.front else made  # each comes before those that wait, so the first has to come last
    jobs = api.store.submit_many(ordered, batch=str(uuid.uuid4()))
    return jobs[::-1] if body.front else jobs


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
