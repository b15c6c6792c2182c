"""The main job: a prompt, or a picture, becomes a film on disk."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import checkpoints, encode, memory, metadata, picture
from pipelines.filenames import NumberedName, check_room, next_name
from pipelines.image_to_video import generator_left_by, image_to_video
from pipelines.models import load_motion, load_still
from pipelines.parameters import AUTOMATIC, FileSettings, MachineSettings, MotionSettings, StillSettings, check
from pipelines.pieces import Plan, fewer_stay, uncut
from pipelines.progress import IsCanceled, Progress, Report, Steps, never, silent
from pipelines.shelf import Shelf, file_key
from pipelines.text_to_image import text_to_image
from workflows.comfy_graph import film_graph
from workflows.demand import relief_for


@dataclass(frozen=True)
class Film:
    """`still` says how to make the first picture; with `image` that picture is used instead and stage 1 is skipped."""

    still: StillSettings
    motion: MotionSettings
    file: FileSettings
    image: Path | None = None


@dataclass(frozen=True)
class FilmResult:
    """What came out: `files` by kind (png, webp, mp4, settings), `seconds` by stage. `notes`: what the person should know, a line each."""

    files: dict[str, str]
    seeds: dict[str, int]
    seconds: dict[str, float]
    checkpoints: dict[str, str]
    placement: dict[str, str]
    notes: list[str]

    def document(self) -> dict[str, Any]:
        """As one JSON object, the placement's entries beside the others."""
        return {name: value for name, value in vars(self).items() if name != "placement"} | self.placement


class StageClock:
    """Seconds of each stage, measured where the progress changes its stage. Stands between the pipelines and `report`."""

    def __init__(self, report: Report) -> None:
        self.seconds: dict[str, float] = {}
        self._report, self._stage, self._since = report, "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self.stop()
            self._stage = progress.stage
        self._report(progress)

    def stop(self) -> None:
        """What has passed since the last call belongs to the stage that was told last."""
        now = time.monotonic()
        if self._stage:
            self.seconds[self._stage] = round(self.seconds.get(self._stage, 0.0) + now - self._since, 3)
        self._stage, self._since = "", now


def make_film(
    film: Film,
    data_dir: Path,
    machine: MachineSettings = AUTOMATIC,
    *,
    report: Report = silent,
    is_canceled: IsCanceled = never,
    shelf: Shelf | None = None,
) -> FilmResult:
    """Make the film and write PNG, WEBP, MP4 and a JSON with its settings into `<data_dir>/output`. Models stay on the shelf, if there
    is one, for the next film.

    Everything is checked before any work starts. Raises InputError for a value, CheckpointError for a model, UnreadableFileError for
    the picture, StorageError for the directory, MemoryExhaustedError, EncodingError if a file would not read back, Canceled. Nothing
    half-written stays.
    """
    # 1. Check everything that can be checked.
    for settings in (film.motion, film.file, machine, *([] if film.image else [film.still])):
        check(settings)
    models_dir, output_dir = data_dir / "models", data_dir / "output"
    image = picture.read_picture(film.image) if film.image else None
    headers = {"motion": checkpoints.read_header(checkpoints.find_checkpoint(film.motion.checkpoint, models_dir), "motion")}
    if image is None:
        still_files = checkpoints.find_still_files(film.still, models_dir)
        headers["still"] = still_files.header
    names = _names(film, output_dir, image)
    check_room(names[0].folder, _most_bytes(film, image))

    # 2. What it runs on, and how it is cut to fit.
    placement = memory.choose_placement(machine.device, machine.attention, machine.dtype)
    memory.limit(placement.device, machine.vram_limit)
    shelf = Shelf() if shelf is None else shelf
    relief = relief_for(film, headers, placement, machine, shelf)
    clock = StageClock(report)

    def models(kind: str, load: Callable[..., Any], others: Sequence[tuple[Path, float]] = ()) -> Any:
        path = headers[kind].path

        def loaded(plan: Plan) -> Any:
            key = file_key(path, placement, plan.residence, *(file_key(*other) for other in others))
            relief.spare = lambda: shelf.drop_others(key)
            return shelf.take(key, lambda: load(path, placement, clock, is_canceled, plan.residence))

        return relief("loading", loaded, uncut if placement.device.type == "cpu" else fewer_stay)

    with ExitStack() as at_the_end, relief.guard():
        at_the_end.callback(lambda: relief.has_streamed and shelf.drop_others())  # the next film may have room for whole models
        # 3. Stage one: the still.
        after_still = None
        if image is None:
            load = partial(load_still, vae=still_files.vae, loras=still_files.loras)
            image = text_to_image(models("still", load, still_files.others()), film.still, clock, is_canceled, relief)
            after_still = generator_left_by(film.still)

        # 4. Stage two: the motion.
        frames = image_to_video(models("motion", load_motion), image, film.motion, clock, is_canceled, after_still, relief)

        # 5. The files.
        relief.spare = shelf.drop_others
        writing = partial(Steps, "encoding", 3, clock, is_canceled)
        files = relief("encoding", lambda _: _write(film, image, frames, names, placement.describe(), writing()))
    clock.stop()
    stages = {"motion": film.motion} if film.image else {"still": film.still, "motion": film.motion}
    return FilmResult(
        files={kind: str(path) for kind, path in files.items()},
        seeds={name: stage.seed for name, stage in stages.items()},
        seconds=clock.seconds,
        checkpoints={name: stage.checkpoint for name, stage in stages.items()},
        placement=placement.describe() | {"memory": relief.plan.reason},
        notes=relief.notes,
    )


def _names(film: Film, output_dir: Path, image: np.ndarray | None) -> tuple[NumberedName, NumberedName]:
    """The pictures' name and the film's, of one moment. %width% and %height% are the still's and the film's, as in ComfyUI."""
    now, prefix = datetime.now(), film.file.prefix
    height, width = (film.still.height, film.still.width) if image is None else image.shape[:2]
    pictures = next_name(output_dir, prefix, style="image", width=width, height=height, now=now)
    return pictures, next_name(output_dir, prefix, style="video", width=film.motion.width, height=film.motion.height, now=now)


def _most_bytes(film: Film, image: np.ndarray | None) -> int:
    """Room that the files should find: the still and the film's pixels uncompressed, and again for the MP4, of which repeats are small."""
    still = film.still.width * film.still.height if image is None else image.shape[0] * image.shape[1]
    pixels = still + 2 * film.motion.width * film.motion.height * film.motion.frames
    return 3 * pixels + 16 * 2**20


def settings_document(film: Film, placement: dict[str, str]) -> dict[str, Any]:
    """All settings of a film, as they are kept in its files."""
    document = {"motion": dataclasses.asdict(film.motion), "file": dataclasses.asdict(film.file), "placement": placement}
    if film.image:
        return {"image": film.image.name} | document
    return {"still": dataclasses.asdict(film.still)} | document


def _write(
    film: Film,
    image: np.ndarray,
    frames: np.ndarray,
    names: tuple[NumberedName, NumberedName],
    placement: dict[str, str],
    steps: Steps,
) -> dict[str, Path]:
    """PNG, WEBP, MP4, settings; what was written before an error or a cancel is taken back."""
    image_name, video_name = names
    source = film.image.name if film.image else film.still
    settings = {"prompt": film_graph(source, film.motion, film.file), "stillmotion": settings_document(film, placement)}
    kept = settings if film.file.metadata else None
    file = film.file
    written: dict[str, Path] = {}
    try:
        steps()
        written["png"] = encode.save_png(image, image_name, kept)
        steps()
        webp = {"lossless": file.webp_lossless, "quality": file.webp_quality, "method": file.webp_method}
        written["webp"] = encode.save_webp(frames, image_name, fps=file.frame_rate, **webp, metadata=kept)
        steps()
        mp4 = {"crf": file.crf, "pix_fmt": file.pix_fmt, "pingpong": file.pingpong, "loop_count": file.loop_count}
        written["mp4"] = encode.save_video(frames, video_name, format="video/h264-mp4", fps=file.frame_rate, **mp4, metadata=kept)
        if kept:
            written["settings"] = metadata.write_sidecar(written["mp4"], kept)
        steps.done()
    except BaseException:
        for path in written.values():
            path.unlink(missing_ok=True)
        raise
    return written
