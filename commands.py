"""What `jobs`, `usage`, `keep`, `reindex`, `backup`, `restore` and `user` do. Each gives the text to print."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from api import films, users
from errors import InputError, JobStateError, UnknownJobError, UnreadableFileError
from job_options import JobsCommand, SubmitCommand, UsageCommand, UserCommand
from jobs import batches
from jobs.backup import back_up, restore
from jobs.documents import day_start, job_document
from jobs.job import Job, JobStatus, Submission
from jobs.keeping import keep_within
from jobs.keeping import reindex as found_again
from jobs.outgoing import check_url
from jobs.report import job_table, usage_csv, usage_table
from jobs.retention import RetentionPlan
from jobs.service import make_folders, open_store
from jobs.service_settings import StoreSettings
from jobs.store import JobStore
from jobs.submitting import prepare
from model_options import DownloadCommand, ModelsCommand
from pipelines.fetch import fetch
from run_options import BackupCommand, KeepCommand, ReindexCommand, RestoreCommand
from workflows.folders import Folders
from workflows.graph import WorkflowError, read_json
from workflows.model_list import ModelList
from workflows.nodes import catalog
from workflows.seeds import with_new_seeds
from workflows.templates import check_said, extra_of, fill, find_template

_MOST_ROWS = 10_000
_SHORTEST_ID = 4
_LOST = (
    "What only a database holds is not found again: jobs that have not succeeded, favourites, usage, what webhooks were told, "
    "messages of PAI-EAS's queues."
)


def jobs(command: JobsCommand) -> str:
    """Raises UnknownJobError, JobStateError, InputError, StorageError."""
    if command.action in ("pause", "resume"):
        return _switched(command)
    with _known_jobs(command.store) as store:
        if command.action == "list":
            return _shown([] if store is None else _listed(store, command), command.is_json)
        if store is None:
            raise UnknownJobError(command.ids[0])
        ids = [_whole_id(store, one) for one in command.ids]  # all of them before any is changed
        if command.action == "show":
            return json.dumps(job_document(store.get(ids[0])), indent=2)
        change = _changes(store, command)
        return _shown([change(job_id) for job_id in dict.fromkeys(ids)], command.is_json)


def submit(command: SubmitCommand) -> str:
    """All of them or none, as one batch. Raises InputError, WorkflowError, QueueFullError, StorageError, UnreadableFileError."""
    make_folders(command.store.data_dir)
    with closing(open_store(command.store)) as store:
        submissions = _of_file(command) if command.file is not None else _of_template(command)
        made = store.submit_many(submissions)
        for line in dict.fromkeys(line for job in made for line in job.warnings):
            sys.stderr.write(f"note: {line}\n")
        return _shown(made, command.is_json)


def usage(command: UsageCommand) -> str:
    """Raises InputError, StorageError."""
    since = None if command.since is None else day_start(command.since)
    with _known_jobs(command.store) as store:
        found = [] if store is None else store.usage(command.owner, since)
    if command.is_json:
        return json.dumps([vars(one) for one in found])
    return usage_csv(found) if command.is_csv else usage_table(found)


def keep(command: KeepCommand) -> str:
    """Raises StorageError."""
    with _known_jobs(command.store) as store:
        limits = command.keep_days, command.keep_bytes
        plan = keep_within(store, command.store.data_dir, *limits, is_dry=command.is_dry) if store else RetentionPlan([], [], 0)
    if command.is_json:
        return json.dumps({"jobs": [job.id for job in plan.jobs], "files": len(plan.files), "bytes": plan.bytes, "is_dry": command.is_dry})
    done = "would go" if command.is_dry else "are gone"
    return f"{job_table(plan.jobs)}\n{len(plan.jobs)} jobs and {len(plan.files)} files, {plan.bytes / 2**20:.1f} MiB, {done}."


def reindex(command: ReindexCommand) -> str:
    """Raises StorageError."""
    make_folders(command.store.data_dir)
    with closing(open_store(command.store)) as store:
        recorded, loose = found_again(store, command.store.data_dir)
    found = f"{recorded} jobs were found again by their records, and {loose} results by the settings inside them."
    return f"{found}\n{_LOST}"


def models(command: ModelsCommand) -> str:
    """Raises nothing but for a damaged data directory."""
    document = ModelList(command.data_dir).document()
    if command.is_json:
        return json.dumps(document)
    lines = [f"{one['folder']}/{one['name']}: {_model(one)}" for one in document["models"]]
    lacking = [one for one in document["known"] if one["state"] == "missing"]
    lines += ["", "Known by name; `app.py download ID` fetches them:"] if lacking else []
    lines += [f"  {one['id']:<11} {one['title']}, about {one['about_bytes'] / 1e9:.1f} GB, {one['licence']}" for one in lacking]
    return "\n".join(lines)


def download(command: DownloadCommand) -> str:
    """With a bar on standard error. Raises InputError, HubError and its kinds, StorageError."""
    from tqdm import tqdm

    wanted, models_dir = command.wanted, command.data_dir / "models"
    hidden = command.is_quiet or sys.stderr is None
    with tqdm(desc=wanted.name, unit="B", unit_scale=True, file=sys.stderr, disable=hidden) as bar:

        def told(state: str, place: int, total: int) -> None:
            bar.total = total
            bar.update(place - bar.n)

        path = fetch(command.hub, wanted, models_dir, told, lambda: False)
    said = {"path": str(path), "bytes": path.stat().st_size}
    return json.dumps(said) if command.is_json else f"{path} is there, {said['bytes'] / 1e9:.2f} GB, and its SHA-256 is that of the hub."


def _model(one: dict[str, Any]) -> str:
    """A line of the table."""
    if one["state"] != "complete":
        return " ".join(filter(None, (one["state"], one["problem"], one["hint"])))
    serves = ", ".join(one["serves"]) or "nothing"
    return f"{one['title']}, {one['bytes'] / 2**20:.0f} MiB, complete; serves {serves}"


def backup(command: BackupCommand) -> str:
    """Raises InputError, UnreadableFileError, StorageError."""
    made = back_up(command.store, command.folder, earlier=command.like, has_models=command.has_models)
    return f"{command.folder} holds the jobs and {len(made.files)} files, {made.bytes / 2**20:.1f} MiB."


def restored(command: RestoreCommand) -> str:
    """Brought up to date if an older Stillmotion had made the backup. Raises UnreadableFileError, StorageError."""
    found = restore(command.store, command.folder)
    with closing(open_store(command.store)) as store:
        counts = store.counts()
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.made))
    where = command.store.data_dir
    return f"{where} is as it was at {made}: {sum(counts.values())} jobs and {len(found.files)} files, {found.bytes / 2**20:.1f} MiB."


def user(command: UserCommand, ask: Callable[[], str]) -> str:
    """`ask` gives the password. Raises InputError, UnknownNameError, UnreadableFileError, StorageError."""
    if command.action == "token":
        token = users.new_token(command.file, command.name)
        return f"{token}\nIt is kept as a hash: this is the only time that it can be read."
    users.add(command.file, command.name, ask(), "admin" if command.is_admin else "user")
    return f"{command.name} may enter a server that is started with --users {command.file}."


def _switched(command: JobsCommand) -> str:
    make_folders(command.store.data_dir)
    with closing(open_store(command.store)) as store:
        if command.action == "pause":
            return "The queue is paused: what runs goes on, nothing else begins." if store.pause() else "The queue was paused already."
        return "The queue goes on." if store.resume() else "The queue was not paused."


@contextmanager
def _known_jobs(settings: StoreSettings) -> Iterator[JobStore | None]:
    """The table of jobs; None if there is none yet. Whoever only looks makes no folders."""
    if not settings.database.exists():
        sys.stderr.write(f"note: there are no jobs in {settings.data_dir} yet.\n")
        yield None
        return
    with closing(open_store(settings)) as store:
        yield store


def _whole_id(store: JobStore, given: str) -> str:
    """The id that is meant by it or by its first characters. Raises UnknownJobError, InputError if several begin so."""
    found = store.ids_from(given) if len(given) >= _SHORTEST_ID else []
    if given in found or len(given) < _SHORTEST_ID:
        return store.get(given).id
    if not found:
        raise UnknownJobError(given)
    if len(found) > 1:
        raise InputError(f"Several jobs begin with {given!r}, such as {found[0]} and {found[1]}.", "Give more characters.")
    return found[0]


def _listed(store: JobStore, command: JobsCommand) -> list[Job]:
    options = dict(command.options)
    statuses = [JobStatus(one) for one in options.pop("status") or ()]
    return store.list_jobs(status=statuses or None, is_deleted=options.pop("deleted"), **options).jobs


def _changes(store: JobStore, command: JobsCommand) -> Callable[[str], Job]:
    """What is done with each id."""
    options = command.options

    def cancel(job_id: str) -> Job:
        if not store.cancel(job_id):
            raise JobStateError(f"The job {job_id} has ended.", "There is nothing to cancel.")
        return store.get(job_id)

    def move(job_id: str) -> Job:
        to = int(options["to"]) if options["to"].isdecimal() else options["to"]
        before = options["before"]
        return store.move(job_id, to=to, before=before and _whole_id(store, before))

    return {
        "cancel": cancel,
        "move": move,
        "retry": store.retry,
        "delete": store.delete,
        "undo": store.undo_delete,
        "duplicate": lambda job_id: store.duplicate(job_id, with_new_seeds if options["new_seeds"] else None),
        "favourite": lambda job_id: store.favourite(job_id, not options["off"]),
    }[command.action]


def _of_file(command: SubmitCommand) -> list[Submission]:
    workflow = read_json(_read(command.file), "The workflow" if str(command.file) == "-" else str(command.file))
    return [_prepared(command, with_new_seeds(_bare(workflow)) if number else workflow) for number in range(command.seeds)]


def _of_template(command: SubmitCommand) -> list[Submission]:
    template = find_template(command.template, command.store.data_dir)

    def make(values: Mapping[str, str]) -> Submission:
        graph = fill(template, values)
        check_said(template, graph)
        try:
            return _prepared(command, graph, **extra_of(template, values))
        except WorkflowError as error:
            raise films.in_fields(error, template, values) from error

    if command.prompt is not None:
        alone = batches.Row("", {**command.values, "prompt": command.prompt})
        return [make(row.values) for row in batches.repeated([alone], command.seeds, template)]
    text, source = batches.decoded(_read(command.prompts), str(command.prompts)), str(command.prompts)
    rows = batches.of_table(text, template.fields(), command.values, most=_MOST_ROWS, source=source)
    return batches.prepared(batches.repeated(rows, command.seeds, template), make)


def _bare(workflow: Any) -> Any:
    return workflow["prompt"] if isinstance(workflow, dict) and isinstance(workflow.get("prompt"), dict) else workflow


def _prepared(command: SubmitCommand, graph: Any, **extra: Any) -> Submission:
    more = dict(command.more)
    owner, webhook = more.pop("owner"), more.pop("webhook")
    if webhook:
        check_url(webhook, allows_private=command.allows_private_webhooks)
    extra |= {"webhook": webhook} if webhook else {}
    folders, most = Folders(command.store.data_dir, owner), command.store.max_pixel_steps
    submission, workflow = prepare(graph, catalog(), folders, extra=extra, max_pixel_steps=most, **more)
    if workflow.node_errors:
        raise WorkflowError("prompt_outputs_failed_validation", "Some outputs cannot be made", node_errors=workflow.node_errors)
    return submission


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error


def _shown(found: list[Job], is_json: bool) -> str:
    return json.dumps([job_document(job) for job in found]) if is_json else job_table(found)
