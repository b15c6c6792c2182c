"""What the worker does with a job: run its workflow on the engine, tell the board how far it is, keep account of its files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.job import Job, Outcome, Output
from jobs.keeping import record_of
from jobs.publications import Journal
from pipelines.progress import IsCanceled, Progress
from pipelines.values import Saved
from workflows.declare import Catalog
from workflows.folders import Folders
from workflows.graph import Workflow

if TYPE_CHECKING:
    from workflows.run import Engine, Event, Run

log = logging.getLogger(__name__)

Report = Callable[[str, dict[str, Any]], None]


class Runner:
    """`make_engine` is called at the first job, since it loads PyTorch. A `Run` for `Worker`."""

    def __init__(self, data_dir: Path, catalog: Catalog, make_engine: Callable[[], Engine]) -> None:
        self.data_dir, self.catalog, self._make_engine = data_dir, catalog, make_engine

    @cached_property
    def engine(self) -> Engine:
        return self._make_engine()

    def release(self) -> None:
        """Give the memory back that loaded models and kept results take."""
        if "engine" in self.__dict__:
            self.engine.idle()

    def __call__(self, job: Job, report: Report, is_canceled: IsCanceled, journal: Journal) -> Outcome:
        """Raises StillmotionError, with the node in `node`; Canceled."""
        folders = Folders(self.data_dir, job.owner)
        workflow = Workflow.parse(job.workflow, self.catalog, folders, job.targets)
        extra = job.extra.get("extra_pnginfo")
        run = self.engine.execute(
            workflow, folders, extra=extra if isinstance(extra, Mapping) else {}, tell=_Teller(report), is_canceled=is_canceled,
            journal=_Account(journal), keeps_metadata=not job.extra.get("without_metadata"),
        )  # fmt: skip
        outcome = outcome_of(run, job, folders)
        record(self.data_dir, job, outcome)
        return outcome


class _Teller:
    """The engine's events as the board takes them."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __call__(self, event: Event) -> None:
        from workflows.run import Cached, NodeDone, NodeStarted

        match event:
            case Progress():
                told = {"stage": event.stage, "step": event.step, "total": event.total, "node_id": event.node}
                self.report("progress", told)
            case Cached():
                self.report("cached", {"nodes": list(event.nodes)})
            case NodeStarted():
                self.report("node", {"node_id": event.node})
            case NodeDone(ui=ui) if ui is not None:
                self.report("output", {"node_id": event.node, "ui": dict(ui), "is_cached": False})


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


def outcome_of(run: Run, job: Job, folders: Folders) -> Outcome:
    files = [Output(node, *entry) for node, ui in run.outputs.items() for entry in _entries(ui, folders)]
    shown = {(file.type, file.subfolder, file.filename) for file in files}
    files += [file for file in _beside(run, folders) if (file.type, file.subfolder, file.filename) not in shown]
    return Outcome(
        outputs=run.outputs, warnings=[*job.warnings, *run.notes], stage_seconds=run.seconds, peak_bytes=run.peak_bytes,
        device=run.placement.get("device", ""), cached=list(run.cached), files=tuple(files), is_whole=run.is_whole,
    )  # fmt: skip


def _entries(ui: Mapping[str, Any], folders: Folders) -> list[tuple[str, str, str, str, int]]:
    """(kind, file name, folder, type, bytes) of every file that a node shows."""
    found = []
    for kind, shown in ui.items():
        for entry in shown:
            if isinstance(entry, Mapping) and "filename" in entry:
                path = folders.of(entry["type"]) / entry["subfolder"] / entry["filename"]
                found.append((kind, entry["filename"], entry["subfolder"], entry["type"], path.stat().st_size if path.exists() else 0))
    return found


def _beside(run: Run, folders: Folders) -> list[Output]:
    """Files that no node shows: posters and sidecars. They go where the job goes."""
    found = []
    for node, paths in run.files.items():
        for path in paths:
            kind = next(kind for kind in ("output", "temp") if path.is_relative_to(folders.of(kind)))
            subfolder = path.parent.relative_to(folders.of(kind)).as_posix()
            found.append(Output(node, "beside", path.name, "" if subfolder == "." else subfolder, kind, path.stat().st_size))
    return found


def record(data_dir: Path, job: Job, outcome: Outcome) -> None:
    """The job as a file in `<data-dir>/library`, so that the library can be made again without the database."""
    path = record_of(data_dir, job.id)
    document = {
        "id": job.id, "owner": job.owner, "title": job.title, "tags": job.tags, "created": job.created, "workflow": job.workflow,
        "extra": job.extra, "work": job.work, "outputs": outcome.outputs, "stage_seconds": outcome.stage_seconds,
        "device": outcome.device, "files": [asdict(file) for file in outcome.files],
    }  # fmt: skip
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(document), "utf-8")
        part.replace(path)
    except OSError as error:  # the films are there, and the database knows them
        log.warning("The record of job %s could not be written: %s", job.id, error)
