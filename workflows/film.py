"""The main job: a prompt, or a picture, becomes a film on disk. Its settings are made into a workflow, and that is run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import InputError
from pipelines.filenames import publish, storage_error
from pipelines.parameters import AUTOMATIC, FileSettings, MachineSettings, MotionSettings, StillSettings, check, parse_loras
from pipelines.picture import read_picture
from pipelines.progress import IsCanceled, Progress, Report, never, silent
from pipelines.shelf import Shelf
from pipelines.values import Saved
from workflows.cache import Cache
from workflows.comfy_graph import film_graph
from workflows.folders import Folders
from workflows.graph import Workflow, WorkflowError
from workflows.nodes import catalog
from workflows.run import Engine, Run


@dataclass(frozen=True)
class Film:
    """`still` says how to make the first picture; with `image` that picture is used instead and stage 1 is skipped."""

    still: StillSettings
    motion: MotionSettings
    file: FileSettings
    image: Path | None = None


@dataclass(frozen=True)
class FilmResult:
    """What came out: `files` by kind (png, webp, mp4, poster, settings), `seconds` by stage. `notes`: what the person should know."""

    files: dict[str, str]
    seeds: dict[str, int]
    seconds: dict[str, float]
    checkpoints: dict[str, str]
    placement: dict[str, str]
    notes: list[str]

    def document(self) -> dict[str, Any]:
        """As one JSON object, the placement's entries beside the others."""
        return {name: value for name, value in vars(self).items() if name != "placement"} | self.placement


def make_film(
    film: Film,
    data_dir: Path,
    machine: MachineSettings = AUTOMATIC,
    *,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    shelf: Shelf | None = None,
    cache: Cache | None = None,
) -> FilmResult:
    """Make the film and write PNG, WEBP, MP4 and a JSON with its settings into `<data_dir>/output`. Models stay on the shelf, if there
    is one, for the next film, and what was sampled in the cache.

    Everything is checked before any work starts. Raises InputError for a value, CheckpointError for a model, UnreadableFileError for
    the picture, StorageError for the directory, MemoryExhaustedError, EncodingError if a file would not read back, Canceled. Then no file
    of the film stays.
    """
    # 1. Check everything that can be checked.
    for settings in (film.motion, film.file, machine, *([] if film.image else [film.still])):
        check(settings)
    folders = Folders(data_dir)
    _check_models(film, folders)
    source = _given(film.image, folders) if film.image else film.still
    workflow = Workflow.parse(film_graph(source, film.motion, film.file), catalog(), folders)
    if workflow.node_errors:  # a film is whole or none
        raise WorkflowError("prompt_outputs_failed_validation", "The film cannot be made", node_errors=workflow.node_errors)

    # 2. Make it.
    engine, files = Engine(machine, shelf, cache), _Files()
    extra = {"stillmotion": settings_document(film, engine.placement.describe())}
    try:
        run = engine.execute(
            workflow, folders, extra=extra if film.file.metadata else None, keeps_metadata=film.file.metadata,
            tell=lambda event: report(event) if isinstance(event, Progress) else None, is_canceled=is_canceled, journal=files,
        )  # fmt: skip
    except BaseException:
        files.take_back()
        raise
    return _result(film, run)


class _Files:
    """A journal for one try: what was written is taken back if the film does not come to its end."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def result(self, node: str, key: str) -> Saved | None:
        return None

    def told(self, node: str, key: str, part: Path, target: Path) -> None: ...

    def done(self, node: str, key: str, saved: Saved) -> None:
        self.paths += saved.files

    def take_back(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)


def _check_models(film: Film, folders: Folders) -> None:
    """Whether every name names a file; with more words than a workflow's errors have."""
    folders.model("checkpoints", film.motion.checkpoint)
    if film.image is None:
        folders.model("checkpoints", film.still.checkpoint)
        names = {"vae": [film.still.vae] if film.still.vae else [], "loras": [name for name, _ in parse_loras(film.still.loras)]}
        for kind, wanted in names.items():
            for name in wanted:
                folders.model(kind, name)


def _given(image: Path, folders: Folders) -> str:
    """The name of a picture in the input folder: it is copied there, so that the workflow can be run again."""
    read_picture(image)
    data, folder = image.read_bytes(), folders.of("input")
    for name in (image.name, f"{image.stem}-{hashlib.sha256(data).hexdigest()[:12]}{image.suffix}"):
        path = folder / name
        if not path.exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise storage_error(folder, error) from error
            publish(path, path.suffix, lambda part: part.write_bytes(data))
            return name
        if path.read_bytes() == data:
            return name
    raise InputError(f"{path} is another picture of that name.", "Rename one of them.")


def settings_document(film: Film, placement: Mapping[str, str]) -> dict[str, Any]:
    """All settings of a film, as they are kept in its files."""
    document = {"motion": dataclasses.asdict(film.motion), "file": dataclasses.asdict(film.file), "placement": dict(placement)}
    if film.image:
        return {"image": film.image.name} | document
    return {"still": dataclasses.asdict(film.still)} | document


def _result(film: Film, run: Run) -> FilmResult:
    files = {"png": run.files["9"][0]} if "9" in run.files else {}
    files |= {"webp": run.files["15"][0]} | dict(zip(("mp4", "poster", "settings"), run.files["19"], strict=False))
    stages = {"motion": film.motion} if film.image else {"still": film.still, "motion": film.motion}
    return FilmResult(
        files={kind: str(path) for kind, path in files.items()},
        seeds={name: stage.seed for name, stage in stages.items()},
        seconds=run.seconds,
        checkpoints={name: stage.checkpoint for name, stage in stages.items()},
        placement=run.placement,
        notes=run.notes,
    )
