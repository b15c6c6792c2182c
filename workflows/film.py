"""The main job: a prompt, or a picture, becomes a film on disk."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import checkpoints, encode, memory, metadata, picture
from pipelines.filenames import NumberedName, next_name
from pipelines.image_to_video import image_to_video
from pipelines.parameters import FileSettings, MotionSettings, StillSettings, check
from pipelines.progress import IsCanceled, Progress, Report, Steps, never, silent
from pipelines.text_to_image import text_to_image
from workflows.comfy_graph import film_graph

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Film:
    """`still` says how to make the first picture; with `image` that picture is used instead and stage 1 is skipped."""

    still: StillSettings
    motion: MotionSettings
    file: FileSettings
    image: Path | None = None


@dataclass
class FilmResult:
    """What came out: `files` by kind (png, webp, mp4, settings), `seconds` by stage."""

    files: dict[str, str]
    seeds: dict[str, int]
    seconds: dict[str, float]
    checkpoints: dict[str, str]
    placement: dict[str, str]

    def document(self) -> dict[str, Any]:
        return {"files": self.files, "seeds": self.seeds, "seconds": self.seconds, "checkpoints": self.checkpoints, **self.placement}


@dataclass
class StageClock:
    """Seconds of each stage, measured where the progress changes its stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)


def make_film(
    film: Film,
    data_dir: Path,
    *,
    device: str = "auto",
    attention: str = "auto",
    report: Report = silent,
    is_canceled: IsCanceled = never,
) -> FilmResult:
    """Make the film and write PNG, WEBP, MP4 and a JSON with its settings into `<data_dir>/output`.

    Everything is checked before any work starts. Raises InputError for a value, CheckpointError for a model, UnreadableFileError for
    the picture, StorageError for the directory, EncodingError if a file would not read back, Canceled. Nothing half-written stays.
    """
    # 1. Check everything that can be checked.
    for settings in (film.motion, film.file, *([] if film.image else [film.still])):
        check(settings)
    models_dir, output_dir = data_dir / "models", data_dir / "output"
    image = picture.read_picture(film.image) if film.image else None
    motion_path = checkpoints.find_checkpoint(film.motion.checkpoint, models_dir)
    checkpoints.read_header(motion_path, "motion")
    if image is None:
        still_path = checkpoints.find_checkpoint(film.still.checkpoint, models_dir)
        checkpoints.read_header(still_path, "still")
    size = {"width": film.motion.width, "height": film.motion.height}
    names = next_name(output_dir, film.file.prefix, style="image", **size), next_name(output_dir, film.file.prefix, style="video", **size)
    placement = memory.choose_placement(device, attention)
    clock = StageClock()
    loading = Steps("loading", 1 if film.image else 2, report, is_canceled)

    # 2. Stage one: the still.
    if image is None:
        with clock.stage("loading"):
            loading()
            still_models = checkpoints.load_still(still_path, placement)
        with clock.stage("still"):
            image = text_to_image(still_models, film.still, report, is_canceled)
        del still_models

    # 3. Stage two: the motion.
    with clock.stage("loading"):
        loading()
        motion_models = checkpoints.load_motion(motion_path, placement)
    frames = _timed_motion(clock, motion_models, image, film.motion, report, is_canceled)
    del motion_models

    # 4. The files.
    with clock.stage("encoding"):
        files = _write(film, image, frames, names, placement.describe(), Steps("encoding", 3, report, is_canceled))
    seeds = {"motion": film.motion.seed} if film.image else {"still": film.still.seed, "motion": film.motion.seed}
    used = {"motion": film.motion.checkpoint} if film.image else {"still": film.still.checkpoint, "motion": film.motion.checkpoint}
    return FilmResult({kind: str(path) for kind, path in files.items()}, seeds, clock.seconds, used, placement.describe())


def _timed_motion(
    clock: StageClock,
    models: checkpoints.MotionModels,
    image: np.ndarray,
    settings: MotionSettings,
    report: Report,
    is_canceled: IsCanceled,
) -> np.ndarray:
    """image_to_video, with sampling and decoding timed apart."""
    began = time.monotonic()
    marks = {}

    def marking(progress: Progress) -> None:
        marks.setdefault(progress.stage, time.monotonic())
        report(progress)

    frames = image_to_video(models, image, settings, marking, is_canceled)
    ended = time.monotonic()
    clock.seconds["motion"] = round(marks["decoding"] - began, 3)
    clock.seconds["decoding"] = round(ended - marks["decoding"], 3)
    return frames


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
        written["mp4"] = encode.save_mp4(frames, video_name, fps=file.frame_rate, **mp4, metadata=kept)
        if kept:
            written["settings"] = metadata.write_sidecar(written["mp4"], kept)
        steps.done()
    except BaseException:
        for path in written.values():
            path.unlink(missing_ok=True)
        raise
    return written
