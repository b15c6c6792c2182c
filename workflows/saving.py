"""Results become files. Each kind is told as ComfyUI and VideoHelperSuite tell it; settings travel inside and beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import InputError, UnknownNameError
from pipelines import encode, metadata
from pipelines.filenames import identity
from pipelines.parameters import VIDEO_FORMATS
from pipelines.progress import Steps
from pipelines.values import Filenames, Film, Pictures, Saved
from workflows.job_context import JobContext

if TYPE_CHECKING:
    from pipelines.bench import Bench


@dataclass(frozen=True)
class Codec:
    """How a film is written. `crf` and `pix_fmt` may be left to the format; `lossless` is of image/webp."""

    format: str
    fps: float
    crf: int | None = None
    pix_fmt: str = ""
    pingpong: bool = False
    loop_count: int = 0
    lossless: bool = True


def save_pictures(bench: Bench, job: JobContext, pictures: Pictures, prefix: str, *, kind: str = "output") -> Saved:
    """Every picture as PNG."""
    name, steps = _name(job, pictures, prefix, "image", kind), Steps("encoding", len(pictures.pixels), bench.report, bench.is_canceled)
    paths: dict[Path, str] = {}
    try:
        for picture in pictures.pixels:
            steps()
            _made(paths, bench.writing(lambda picture=picture: encode.save_png(picture, name, job.metadata())))
        steps.done()
    except BaseException:
        _take_back(paths)
        raise
    return Saved({"images": [job.entry(path, kind) for path in paths]}, tuple(paths))


def save_webp(bench: Bench, job: JobContext, pictures: Pictures, prefix: str, **options: Any) -> Saved:
    """Frames as an animated WEBP."""
    name = _name(job, pictures, prefix, "image")
    path = _one(bench, lambda: encode.save_webp(pictures.pixels, name, metadata=job.metadata(), **options))
    return _animated(job, path)


def save_apng(bench: Bench, job: JobContext, pictures: Pictures, prefix: str, **options: Any) -> Saved:
    """Frames as an animated PNG."""
    name = _name(job, pictures, prefix, "image")
    path = _one(bench, lambda: encode.save_apng(pictures.pixels, name, metadata=job.metadata(), **options))
    return _animated(job, path)


def save_film(bench: Bench, job: JobContext, film: Film, prefix: str) -> Saved:
    """A film as MP4."""
    name = _name(job, film.pictures, prefix, "image")
    written = {"format": "video/h264-mp4", "fps": film.fps, "metadata": job.metadata()}
    return _animated(job, _one(bench, lambda: encode.save_video(film.pictures.pixels, name, **written)))


def save_combined(
    bench: Bench, job: JobContext, pictures: Pictures, prefix: str, codec: Codec, *, kind: str = "output", keep: bool = True
) -> Filenames:
    """A film, its first frame as PNG under the same number, and a sidecar with the settings. Without `keep` nothing is kept of them."""
    name, kept = _name(job, pictures, prefix, "video", kind), job.metadata(keep=keep)
    steps, paths = Steps("encoding", 2, bench.report, bench.is_canceled), {}
    try:
        steps()
        film = _made(paths, bench.writing(lambda: _write(pictures, name, codec, kept)))
        steps()
        poster = job.beside(film.with_suffix(".png"))
        _made(paths, bench.writing(lambda: encode.save_png(pictures.pixels[0], poster, kept)))
        if kept:
            _made(paths, metadata.write_sidecar(film, kept, job.told))
        steps.done()
    except BaseException:
        _take_back(paths)
        raise
    told = {"format": codec.format, "frame_rate": codec.fps, "workflow": poster.path.name, "fullpath": str(film)}
    return Filenames({"gifs": [job.entry(film, kind) | told]}, tuple(paths))


def _write(pictures: Pictures, name: Any, codec: Codec, kept: Any) -> Path:
    frames, again = pictures.pixels, {"pingpong": codec.pingpong, "loop_count": codec.loop_count}
    match codec.format:
        case "image/webp":
            return encode.save_webp(encode.played(frames, **again), name, fps=codec.fps, lossless=codec.lossless, quality=80, metadata=kept)
        case "image/gif":
            return encode.save_gif(frames, name, fps=codec.fps, metadata=kept, **again)
        case _:
            choices = {"crf": codec.crf, "pix_fmt": codec.pix_fmt or None}
            return encode.save_video(frames, name, format=codec.format, fps=codec.fps, metadata=kept, **choices, **again)


def check_codec_of(inputs: Mapping[str, Any], width: int = 0, height: int = 0) -> None:
    """Of a node that writes a film, from those of its inputs that are no links. Raises as `check_codec`."""
    if "format" in inputs and "frame_rate" in inputs:
        check_codec(Codec(inputs["format"], inputs["frame_rate"], inputs.get("crf"), inputs.get("pix_fmt", "")), width, height)


def check_codec(codec: Codec, width: int = 0, height: int = 0) -> None:
    """Before any work: whether the format takes this speed, quality, size (0: not known) and these pixels. Raises InputError,
    UnknownNameError."""
    if codec.format == "image/gif" and codec.fps > encode.GIF_FPS_RANGE[1]:
        raise InputError(f"A GIF cannot play {codec.fps:g} frames a second.", f"{encode.GIF_FPS_RANGE[1]:g} are the most.")
    allowed = VIDEO_FORMATS.get(codec.format)
    if allowed is None:
        return
    if codec.pix_fmt and codec.pix_fmt not in allowed.pixel_formats:
        raise UnknownNameError(f"pixel format of {codec.format}", codec.pix_fmt, allowed.pixel_formats)
    if codec.crf is not None and not 0 <= codec.crf <= allowed.max_crf:
        raise InputError(f"crf is {codec.crf}, but {codec.format} takes 0 to {allowed.max_crf}.", f"Use {allowed.crf}.")
    if width and min(width, height) < allowed.min_side:
        raise InputError(f"{codec.format} cannot be {width}x{height} pixels.", f"A side must have {allowed.min_side}.")


def _name(job: JobContext, pictures: Pictures, prefix: str, style: Any, kind: str = "output") -> Any:
    height, width = pictures.pixels.shape[1:3]
    return job.name(prefix, style, width, height, kind)


def _one(bench: Bench, write: Any) -> Path:
    steps = Steps("encoding", 1, bench.report, bench.is_canceled)
    steps()
    path = bench.writing(write)
    steps.done()
    return path


def _animated(job: JobContext, path: Path) -> Saved:
    return Saved({"images": [job.entry(path)], "animated": [True]}, (path,))


def _made(paths: dict[Path, str], path: Path) -> Path:
    paths[path] = identity(path)
    return path


def _take_back(paths: dict[Path, str]) -> None:
    """What we have made; not what stands under its name by now, if somebody took it back before us."""
    for path, file in paths.items():
        if file and identity(path) == file:
            path.unlink(missing_ok=True)
