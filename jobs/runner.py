"""What the worker does with a job: run its workflow on the engine, tell the board how far it is, keep account of its files."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.job import VERIFIES, Job, Outcome, Output
from jobs.keeping import record_of
from jobs.progress import progress_data
from jobs.publications import Journal
from pipelines.parameters import MachineSettings
from pipelines.progress import IsCanceled, Progress
from pipelines.values import Saved
from workflows.advice import advice
from workflows.declare import Catalog
from workflows.folders import Folders
from workflows.graph import Workflow, WorkflowError
from workflows.templates import WITHOUT_METADATA

if TYPE_CHECKING:
    from workflows.run import Engine, Event, Run

log = logging.getLogger(__name__)

Report = Callable[[str, dict[str, Any]], None]


def nobody() -> None:
    """No job that is known to come."""


class Runner:
    """The executor of this process: one job at a time. `make_engine` is called at the first one, since it loads PyTorch. `upcoming` tells,
    in any thread, which job comes next; it is prepared while one is decoded and written.

    What the service knows of any executor, of `Afar` for several machines and of `Lent` for a GPU that is lent too: it is a `Run` for
    `Worker`; how many jobs it does at once, `hands`; `start` and whether it `is_started`; `close`, `release`, `device`, `cache_counts`;
    whether it `hears` who wants it to stop; whether it `reads_here`, so that the models of the next job can be read ahead.
    """

    hands, is_started, reads_here = 1, True, True

    def __init__(
        self, data_dir: Path, catalog: Catalog, make_engine: Callable[[], Engine], upcoming: Callable[[], Job | None] = nobody
    ) -> None:
        self.data_dir, self.catalog, self._make_engine, self.upcoming = data_dir.absolute(), catalog, make_engine, upcoming

    @cached_property
    def engine(self) -> Engine:
        return self._make_engine()

    def start(self) -> None:
        """Before the first job."""

    def close(self) -> None:
        """After the last one."""
        if "engine" in self.__dict__:
            self.engine.ahead.stop()

    def release(self) -> None:
        """Give the memory back that loaded models and kept results take."""
        if "engine" in self.__dict__:
            self.engine.idle()

    @property
    def hears(self) -> bool:
        """Not while PyTorch is being loaded."""
        return "engine" in self.__dict__ and "placement" in vars(self.engine)

    def device(self) -> Mapping[str, Any] | None:
        """What jobs run on, with ComfyUI's keys; None as long as no job has run."""
        if not self.hears:
            return None
        from pipelines.device_report import device_report

        return device_report(self.engine.placement.device)

    def cache_counts(self) -> tuple[int, int]:
        """Hits and misses."""
        return (self.engine.cache.hits, self.engine.cache.misses) if "engine" in self.__dict__ else (0, 0)

    def __call__(self, job: Job, report: Report, is_canceled: IsCanceled, journal: Journal) -> Outcome:
        """Raises StillmotionError, with the node in `node`; Canceled."""
        outcome = self.work(job, report, is_canceled, journal)
        record(self.data_dir, job, outcome)
        return outcome

    def work(self, job: Job, report: Report, is_canceled: IsCanceled, journal: Journal) -> Outcome:
        """Without a record in the library. Raises as a call."""
        folders = Folders(self.data_dir, job.owner)
        workflow = Workflow.parse(job.workflow, self.catalog, folders, job.targets)
        if set(job.targets or ()) - set(workflow.targets):  # a file that was there when it was submitted
            raise WorkflowError("prompt_outputs_failed_validation", "It cannot be made any more", node_errors=workflow.node_errors)
        extra, seconds = job.extra.get("extra_pnginfo"), self._prepare(report)
        run = self.engine.execute(
            workflow, folders, extra=extra if isinstance(extra, Mapping) else {}, tell=_Teller(report, folders), is_canceled=is_canceled,
            journal=_Account(journal), keeps_metadata=not job.extra.get(WITHOUT_METADATA), is_fresh=VERIFIES in job.extra,
            shows_previews=True, following=self._following,
        )  # fmt: skip
        run.seconds["loading"] = round(run.seconds.get("loading", 0.0) + seconds, 3)
        return outcome_of(run, advice(workflow, folders), folders)

    def _following(self) -> tuple[Workflow, Folders] | None:
        """Raises WorkflowError, StorageError."""
        job = self.upcoming()
        if job is None:
            return None
        folders = Folders(self.data_dir, job.owner)
        return Workflow.parse(job.workflow, self.catalog, folders, job.targets), folders

    def _prepare(self, report: Report) -> float:
        """The first job waits for PyTorch, and is told so; gives the seconds that it took. Raises InputError, UnknownNameError for a device
        that is not there."""
        began = time.monotonic()
        if not self.hears:
            report("progress", progress_data(Progress("loading", 0, 0)))
            _ = self.engine.placement
        return time.monotonic() - began


class _Teller:
    """The engine's events as the board takes them."""

    def __init__(self, report: Report, folders: Folders) -> None:
        self.report, self.folders = report, folders

    def __call__(self, event: Event) -> None:
        from workflows.run import Cached, Glimpse, NodeDone, NodeStarted

        match event:
            case Progress():
                self.report("progress", progress_data(event, event.node))
            case Cached():
                self.report("cached", {"nodes": list(event.nodes)})
            case Glimpse():
                self.report("preview", {"node_id": event.node, "image": event.image, "format": "jpeg"})
            case NodeStarted():
                self.report("node", {"node_id": event.node})
            case NodeDone(ui=ui) if ui is not None:
                files = files_of(event.node, ui, event.files, self.folders)
                self.report("output", {"node_id": event.node, "ui": dict(ui), "is_cached": False, "files": files})


class _Account:
    """The job's journal as the engine asks for it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def result(self, node: str, key: str) -> Saved | None:
        found = self.journal.found(node, key)
        return None if found is None else Saved(found[0], tuple(found[1]))

    def told(self, node: str, key: str, part: Path, target: Path) -> None:
        self.journal.told(node, key, part, target)

    def done(self, node: str, key: str, saved: Saved) -> None:
        self.journal.written(node, key, saved.ui, saved.files)


def make_engine(machine: MachineSettings, cache_folder: Path, cache_bytes: int) -> Engine:
    """It loads PyTorch."""
    from workflows.cache import Cache
    from workflows.run import Engine

    return Engine(machine, cache=Cache(cache_folder, disk_bytes=cache_bytes))


def outcome_of(run: Run, said: Sequence[str], folders: Folders) -> Outcome:
    """`said`: advice about the workflow."""
    files = [file for node, ui in run.outputs.items() for file in files_of(node, ui, run.files[node], folders)]
    return Outcome(
        outputs=run.outputs, warnings=[*said, *run.notes], stage_seconds=run.seconds, peak_bytes=run.peak_bytes,
        device=run.placement.get("device", ""), cached=list(run.cached), files=tuple(files), is_whole=run.is_whole,
    )  # fmt: skip


def files_of(node: str, ui: Mapping[str, Any], paths: Iterable[Path], folders: Folders) -> list[Output]:
    """Every file that a node has written: those that it shows under their kind, posters and sidecars as "beside"."""
    shown = {
        (entry["type"], entry["subfolder"], entry["filename"]): kind
        for kind, entries in ui.items()
        for entry in entries
        if isinstance(entry, Mapping) and "filename" in entry
    }
    found = []
    for path in paths:
        kind = next((kind for kind in ("output", "temp") if path.is_relative_to(folders.of(kind))), "")
        if kind and path.is_file():  # or somebody has taken it away meanwhile
            subfolder = path.parent.relative_to(folders.of(kind)).as_posix().removeprefix(".")
            place = kind, subfolder, path.name
            found.append(Output(node, shown.get(place, "beside"), path.name, subfolder, kind, path.stat().st_size))
    return found


def record(data_dir: Path, job: Job, outcome: Outcome) -> None:
    """The job as a file in `<data-dir>/library`, so that the library can be made again without the database."""
    path = record_of(data_dir, job.id)
    document = {
        "id": job.id, "owner": job.owner, "title": job.title, "tags": job.tags, "created": job.created, "workflow": job.workflow,
        "extra": job.extra, "work": job.work, "outputs": outcome.outputs, "stage_seconds": outcome.stage_seconds,
        "device": outcome.device, "files": [asdict(file) for file in outcome.files], "targets": job.targets,
        "warnings": outcome.warnings,
    }  # fmt: skip
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # the films are there, and the database knows them
        log.warning("The record of job %s could not be written: %s", job.id, error)
