"""What the job API takes and gives, with examples: the source of `/openapi.json` and `/docs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from jobs.job import JobStatus

MAX_TITLE, MAX_TAGS = 500, 50
Tag = Annotated[str, Field(min_length=1, max_length=100)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
_JOB_ID = "8c8d3f5e-3f0b-4a52-9f7e-0c3a8a0a6f51"


class OutputModel(BaseModel):
    node_id: str = Field(description="The node that wrote it.")
    kind: str = Field(description="Where ComfyUI lists it: images, gifs; or beside, for posters and settings.")
    filename: str
    subfolder: str
    type: str = Field(description="output or temp")
    bytes: int
    url: str = Field(description="Where it can be had, relative to the server.")


class ProgressModel(BaseModel):
    stage: str = Field(description="waking (a machine is waited for), loading, still, motion, decoding or encoding")
    node: str
    step: int
    total: int
    seconds: float = Field(description="How long the job had been at work when this was told; waking and loading do not count.")
    has_moved: bool = Field(False, description="The motion has begun: what is decoded or encoded now is the film.")
    preview: str | None = Field(description="Where a small picture of it as it is now can be had; null if there is none.")


class JobErrorModel(BaseModel):
    code: str = Field(description="Stable, for programs.")
    message: str
    hint: str = Field(description="What to do.")
    node: str
    id: str | None = Field(None, description="Of a mistake of ours: its number in the log of the server.")


class DeliveryModel(BaseModel):
    status: str = Field(description="What the job was when it ended.")
    attempts: int
    delivered: str | None
    next: str | None = Field(description="When it is tried next; null if it was delivered or given up.")
    problem: str


class JobModel(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": _JOB_ID, "status": "running", "title": "a red boat sails on the sea", "tags": [], "owner": "", "batch": None,
                "created": "2026-03-07T12:00:00.000Z", "started": "2026-03-07T12:00:02.100Z", "ended": None, "deleted": None,
                "stages": ["still", "motion", "file"],
                "queued_seconds": 2.1, "run_seconds": 0.0, "attempts": 1, "is_favourite": False, "is_cancel_requested": False,
                "warnings": [], "outputs": [], "cached": [], "stage_seconds": {}, "device": "", "peak_bytes": 0, "error": None,
                "place": None, "is_held": False, "remaining_seconds": 21.5, "webhook": None, "deliveries": [],
                "progress": {"stage": "motion", "node": "13", "step": 4, "total": 20, "seconds": 9.3, "has_moved": True, "preview": None},
            }
        }
    )  # fmt: skip
    id: str
    status: JobStatus
    title: str
    tags: list[str]
    owner: str
    batch: str | None
    created: str = Field(description="ISO 8601, as all times.")
    started: str | None
    ended: str | None
    deleted: str | None = Field(description="A deleted job can be had back for an hour.")
    stages: list[str] = Field(description="What it goes through: still, motion, file.")
    queued_seconds: float
    run_seconds: float
    attempts: int
    is_favourite: bool
    is_cancel_requested: bool
    warnings: list[str] = Field(description="Advice: what is allowed and yet seldom meant.")
    outputs: list[OutputModel]
    cached: list[str] = Field(description="Nodes whose results were there already.")
    stage_seconds: dict[str, float]
    device: str
    peak_bytes: int
    error: JobErrorModel | None
    place: int | None = Field(description="In the queue; 1 is next. Null if it does not wait.")
    is_held: bool = Field(description="It waits, and the queue is paused.")
    remaining_seconds: float | None = Field(
        description="Until it is done, waiting included; while it wakes or loads, once that is over. Null if nobody can tell."
    )
    progress: ProgressModel | None = Field(description="Null if it does not run.")
    webhook: str | None
    deliveries: list[DeliveryModel] = Field(description="How the webhook was told; only where one job is asked for.")


class JobList(BaseModel):
    jobs: list[JobModel] = Field(description="The newest first.")
    cursor: int | None = Field(description="Gives the next page; null if this is the last.")
    counts: dict[str, int] = Field(description="All jobs that you may see, by status.")


class SubmitModel(BaseModel):
    title: str = Field("", max_length=MAX_TITLE, description="What to call it; the prompt, if it is left out.")
    tags: Tags = Field(default_factory=list)
    webhook: str | None = Field(None, max_length=2000, description="This address is told when the job has ended; see docs/api.md.")
    front: bool = Field(False, description="Before your other jobs.")
    metadata: bool = Field(True, description="Keep prompt, seeds and settings inside the files, and as JSON beside them.")


class WorkflowRequest(SubmitModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"workflow": {"4": {"class_type": "CheckpointLoaderSimple", "inputs": {}}}, "title": "a boat"}},
    )
    workflow: dict[str, Any] = Field(description="In ComfyUI's API format.")


class FilmRequest(SubmitModel):
    """What is not listed here is a field of the template; `GET /api/templates` tells which there are."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"example": {"prompt": "a red boat sails on the sea, sun", "frames": 14, "motion_bucket_id": 127, "seed": 7}},
    )
    template: str = Field("text_to_film", max_length=200)
    draft: bool = Field(False, description="Small and quick, to see what it would be.")
    workflow: dict[str, Any] | None = Field(
        None, description="One of your own in place of a template; its fields are those that `POST /api/open` tells of it."
    )


class OpenRequest(BaseModel):
    """One of them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"job": _JOB_ID}})
    workflow: dict[str, Any] | None = Field(None, description="In ComfyUI's API format, or as its editor saves it.")
    job: str | None = Field(None, max_length=200, description="The id of a job.")


class LackModel(BaseModel):
    kind: Literal["node", "model", "picture", "value", "link", "workflow"]
    text: str = Field(description="What is missing, and what is nearest to it.")
    node: str
    name: str = Field(description="Of what is not there, or of the input that is wrong.")
    nearest: str = Field(description="Of those that are there; empty if none is near.")
    folder: str = Field(description="Where such a file belongs in the data directory.")


class ExportRequest(FilmRequest):
    """As for `POST /api/films`, and `as`."""

    model_config = ConfigDict(json_schema_extra={"example": {"as": "curl", "prompt": "a red boat sails on the sea, sun", "seed": 7}})
    form: Literal["comfy", "curl", "python", "settings"] = Field("comfy", alias="as")


class EstimateModel(BaseModel):
    seconds: float | None = Field(description="That it will be at work; what is loaded before does not count. Null if nothing is known.")
    seconds_basis: str | None = Field(description="What that is told from.", examples=["3 similar jobs"])
    frames: int | None = Field(description="Of the film; null for pictures.")
    film_seconds: float | None
    bytes: int | None = Field(description="Of the films and pictures.")
    memory_bytes: int | None = Field(description="The most that was used at once for the same work.")
    warnings: list[str] = Field(description="Advice: what is allowed and yet seldom meant.")
    queue_seconds: float | None = Field(description="At most so long it waits; null if nobody can tell.")
    is_held: bool = Field(description="It would wait until the queue, which is paused, goes on.")


class BatchRequest(SubmitModel):
    """Many films at once, one a line or one a row. All of them are made, or if one is wrong none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"csv": "prompt,seed\na red boat sails on the sea,7\na blue car in the city,\n", "values": {"frames": 14}}
        },
    )
    template: str = Field("text_to_film", max_length=200)
    draft: bool = Field(False, description="Small and quick, to see what they would be.")
    values: dict[str, Any] = Field(default_factory=dict, description="Fields of the template that all of them have.")
    lines: str | None = Field(None, max_length=4_000_000, description="A prompt a line.")
    csv: str | None = Field(None, max_length=4_000_000, description="A table whose first line names fields. An empty cell is left open.")
    seeds: int = Field(1, ge=1, le=1000, description="So many of each, with different seeds.")


class BatchAnswer(BaseModel):
    batch: str = Field(description="For `GET /api/jobs?batch=`.")
    jobs: list[JobModel] = Field(description="In the order of the lines or rows.")


class LineAnswer(BaseModel):
    is_paused: bool = Field(description="What runs goes on; nothing else begins.")
    may_pause: bool = Field(description="Whether you may pause it and let it go on.")
    queued: int = Field(description="Of the jobs that you may see.")
    running: int
    own: int = Field(description="How many of those that wait are your own: `POST /api/line/cancel` takes these out.")
    remaining_seconds: float | None = Field(description="Until all of these are done; null if nobody can tell.")
    jobs: list[JobModel] = Field(description="The first of them, in the order in which they will be done.")


class JobIds(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"jobs": [_JOB_ID]}})
    jobs: list[Annotated[str, Field(max_length=200)]] = Field(max_length=10_000, description="Ids.")


class RetryRequest(JobIds):
    in_place: bool = Field(False, description="Those that were canceled while they waited get back their places in the line.")


class BatchModel(BaseModel):
    id: str
    title: str = Field(description="Of its first job.")
    created: str = Field(description="When its first job was asked for, UTC.")
    count: int
    counts: dict[JobStatus, int] = Field(description="Jobs by status.")


class BatchList(BaseModel):
    batches: list[BatchModel] = Field(description="The newest first.")


class DuplicateRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"new_seeds": True}})
    new_seeds: bool = Field(False, description="Another film of the same kind; otherwise the very same.")


def _place(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError as error:  # which would tell of each kind that it may be
        raise PydanticCustomError("place", "It must be front, back, or a place from 1 on") from error


Place = Annotated[Literal["front", "back"] | Annotated[int, Field(ge=1, le=10**9)], WrapValidator(_place)]


class MoveRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"to": "front"}})
    to: Place = Field("back", description="front, back, or a place among the owner's waiting jobs; 1 is the front.")
    before: str | None = Field(None, max_length=200, description="The id of another waiting job of the same owner.")


class ChangeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"title": "The best one", "is_favourite": True}})
    title: str | None = Field(None, max_length=MAX_TITLE)
    tags: Tags | None = None
    is_favourite: bool | None = Field(None, description="Favourites are never removed to make room.")


class SettingModel(BaseModel):
    place: str = Field(description="Node and input.", examples=["3.seed"])
    name: str = Field(description="The input's own name.", examples=["seed"])
    value: str = Field(description="As text: seeds may be larger than what JavaScript counts to.", examples=["18446744073709551615"])
    node: str = Field(description="What the node is called.")
    kind: Literal["prompt", "seed", "setting"]
    title: dict[str, str] = Field(description="By language; empty where no template shows it.")
    group: dict[str, str] = Field(description="The group of the form that it is in, by language.")


class DetailsModel(BaseModel):
    template: str | None
    verifies: str | None = Field(description="The job that this one does again.")
    settings: list[SettingModel] = Field(description="Prompts, seeds, then the others in the order of the form.")


class PairModel(BaseModel):
    kind: Literal["still", "film", "animation"]
    index: int
    files: list[str | None] = Field(description="One of each job; null if it has none to match.")
    is_identical: bool = Field(description="Every pixel of every frame.")
    sizes: list[tuple[int, int]] | None = Field(description="Width and height of each.")
    frames: list[int] | None = Field(description="How many each has; those that both have are compared.")
    psnr: float | None = Field(description="In dB, over all frames; null if they are identical or of different sizes.")
    worst_psnr: float | None = Field(description="Of the frame that differs most.")


class ComparisonModel(BaseModel):
    jobs: list[str]
    is_identical: bool
    pairs: list[PairModel]


class UsageEntry(BaseModel):
    owner: str
    day: str = Field(description="UTC", examples=["2026-03-07"])
    seconds: float
    runs: int


class UsageAnswer(BaseModel):
    usage: list[UsageEntry]
    seconds: float = Field(description="The sum.")


class FieldModel(BaseModel):
    name: str = Field(description="The name that `POST /api/films` takes.", examples=["frames"])
    title: dict[str, str] = Field(description="By language: en, zh.")
    kind: str = Field(description="text, integer, number, choice, switch, file or loras", examples=["integer"])
    default: Any = Field(description="What is taken if it is left out; null for a seed, which is drawn.")
    min: float | None = None
    max: float | None = None
    choices: list[str] | None = None
    help: str
    is_advanced: bool
    follows: str | None = Field(None, description="The field whose value it has if it is left out.")
    is_main: bool = Field(description="What everybody sets; forms show it first.")
    is_required: bool = Field(description="An empty text is refused; left out, it is the default.")


class GroupModel(BaseModel):
    title: dict[str, str]
    fields: list[FieldModel]


class TemplateModel(BaseModel):
    id: str = Field(examples=["text_to_film"])
    title: dict[str, str]
    description: dict[str, str]
    groups: list[GroupModel]


class TemplateList(BaseModel):
    templates: list[TemplateModel]


class OpenedModel(BaseModel):
    template: str | None = Field(description="The template that it is; null for a workflow of its own.")
    like: str = Field(description="The template whose form a workflow of its own has; empty if none.")
    values: dict[str, Any] = Field(description="Of each field. Seeds, and numbers that browsers would round, are text.")
    fields: TemplateModel | None = Field(description="The form of a workflow of its own; null for a template.")
    missing: list[LackModel] = Field(description="What it needs and is not here.")
    notes: list[str] = Field(description="What was changed or left out, and advice.")
    workflow: dict[str, Any] = Field(description="In API format. `POST /api/films` takes it, with values for its fields.")
