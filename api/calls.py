"""Calls: what other programs call by name, with typed parameters, and wait for: film, still and animate.

Each is a template; its parameters are the template's fields, all but the advanced ones. `ui/endpoints.py` offers them to `gradio_client`,
`api/mcp_tools.py` to MCP clients. A call submits a job like every other: it is seen in the queue, and goes on if the caller goes away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from api import films
from api.asking import make_film
from api.job_context import JobApi
from api.job_events import Watch
from api.job_models import FilmRequest
from api.users import User
from errors import Canceled, StillmotionError
from jobs.job import Job, JobStatus, Output
from jobs.progress import Snapshot
from workflows.folders import Folders
from workflows.templates import WITHOUT_METADATA, Template, find_template

_LOOK_SECONDS = 1.0
_TYPES = {"integer": int, "number": float, "switch": bool}
Tell = Callable[[int, int | None, str], None]
"""Step, of how many (None if nobody knows), and what is done."""


@dataclass(frozen=True)
class Call:
    """`files`: the endings of the files that it gives, in this order."""

    name: str
    template: str
    about: str
    files: tuple[str, ...]


CALLS = (
    Call("film", "text_to_film", "Makes a film from a sentence: first a still, then its motion.", (".mp4", ".webp", ".png")),
    Call("still", "text_to_still", "Makes a still from a sentence.", (".png",)),
    Call("animate", "still_to_film", "Makes a film from a picture: it begins to move.", (".mp4", ".webp")),
)


@dataclass(frozen=True)
class Parameter:
    """`default` None: it has to be given. A seed is a text, since some programs round large numbers; "" draws one."""

    name: str
    type: type
    default: Any
    help: str


class JobFailed(StillmotionError):
    """What the job says of its end, with its code."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.error.message, job.error.hint)
        self.code = job.error.code


class GoesOn(StillmotionError):
    """The server ends before the job does."""

    code = "server_ends"


def parameters(call: Call, api: JobApi) -> list[Parameter]:
    """The first one has to be given."""
    document = films.document(find_template(call.template), api.catalog, Folders(api.data_dir))
    shown = [one for group in document["groups"] for one in group["fields"] if not one["is_advanced"]]
    return [_parameter(one, is_first=number == 0) for number, one in enumerate(shown)]


def _parameter(one: Mapping[str, Any], *, is_first: bool) -> Parameter:
    is_seed = one["kind"] == "integer" and one["default"] is None
    kind = str if is_seed else _TYPES.get(one["kind"], str)
    bounds = f" ({one['min']:g} to {one['max']:g})" if "min" in one and not is_seed else ""
    about = one["help"] or one["title"]["en"]
    words = about[0].upper() + about[1:].rstrip(".") + bounds + ("; empty: drawn at random" if is_seed else "")
    return Parameter(one["name"], kind, None if is_first else "" if is_seed else one["default"], words)


def begin(api: JobApi, call: Call, values: Mapping[str, Any], user: User) -> Job:
    """Raises InputError, WorkflowError, QueueFullError, StorageError."""
    fields = find_template(call.template).fields()
    seeds, required = ({one.name for one in fields.values() if getattr(one, kind)} for kind in ("seed", "required"))
    said = {name: value for name, value in values.items() if value is not None and (value != "" or name in required)}
    given = {name: _seed(value) if name in seeds else value for name, value in said.items()}
    return make_film(api, FilmRequest(template=call.template, **given), user)


def _seed(value: Any) -> Any:
    """A text as a number. What is none stays, and is refused with all else that is wrong."""
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.lstrip("-").isdecimal() and len(text) < 30 else value


async def follow(api: JobApi, job: Job, tell: Tell) -> Job:
    """The job once it has succeeded. Raises JobFailed, Canceled, GoesOn, UnknownJobError."""
    with Watch(api.board, job.id) as watch:
        job = await run_in_threadpool(api.store.get, job.id)  # from here on nothing is missed
        while not job.status.is_ended:
            if api.is_ending():
                raise GoesOn(f"The server is about to end; the job {job.id} is kept.", "It goes on when the server is there again.")
            await run_in_threadpool(_tell, api, job, tell)
            event = await watch.next(_LOOK_SECONDS)
            if event is None or event.kind != "progress":
                job = await run_in_threadpool(api.store.get, job.id)
    if job.status == JobStatus.FAILED:
        raise JobFailed(job)
    if job.status == JobStatus.CANCELED:
        raise Canceled
    return job


def _tell(api: JobApi, job: Job, tell: Tell) -> None:
    snapshot: Snapshot | None = api.board.newest(job.id)
    if snapshot is not None and snapshot.status == "running":
        tell(snapshot.step, snapshot.total or None, snapshot.stage or "begins")
    elif place := api.document(job)["place"]:
        tell(0, None, "waits" if place == 1 else f"waits, {place - 1} before it")


def files(call: Call, job: Job) -> list[Output | None]:
    """What it gives; None for one that was not written."""
    shown = [one for one in job.files if one.kind != "beside"]
    return [next((one for one in shown if one.filename.lower().endswith(ending)), None) for ending in call.files]


def settings(call: Call, job: Job) -> dict[str, Any]:
    """Every value with which it was made, both seeds among them, and how long it took."""
    return {
        "job": job.id, "template": call.template, "values": _values(find_template(call.template), job),
        "queued_seconds": round(job.queued_seconds, 3), "run_seconds": round(job.run_seconds, 3), "stage_seconds": job.stage_seconds,
        "device": job.device, "warnings": list(job.warnings),
    }  # fmt: skip


def _values(template: Template, job: Job) -> dict[str, Any]:
    workflow, found = job.workflow, {"metadata": not job.extra.get(WITHOUT_METADATA)}
    for name, one in template.fields().items():
        node, _, input_name = (one.inputs or ("",))[0].partition(".")
        value = workflow.get(node, {}).get("inputs", {}).get(input_name)
        if isinstance(value, str | int | float | bool):
            found[name] = value
    return found
