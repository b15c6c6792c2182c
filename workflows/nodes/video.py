"""Films: written as WEBP, PNG, MP4, WEBM or GIF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pipelines.parameters import VIDEO_FORMATS, WEBP_METHODS, Choice, Number, Switch
from pipelines.values import Audio, Filenames, Film, Pictures, Saved
from workflows.declare import Extra, FileChoice, FilePrefix, node
from workflows.job_context import JobContext
from workflows.saving import Codec, save_apng, save_combined, save_film, save_webp

if TYPE_CHECKING:
    from pipelines.bench import Bench

Prefix = FilePrefix("start of the file names; may hold folders and %width%, %year% and so on")
Fps = Number(0.01, 1000.0, "frames a second", wire={"step": 0.01})
Given = FileChoice("input", 'a film in the input folder; "name [output]" is one that was made')
VHS = "Video Helper Suite \U0001f3a5\U0001f165\U0001f157\U0001f162"
FORMATS = ("image/gif", "image/webp", *VIDEO_FORMATS)
ALL_PIXEL_FORMATS = tuple(dict.fromkeys(name for one in VIDEO_FORMATS.values() for name in sorted(one.pixel_formats)))


@node("SaveAnimatedWEBP", title="SaveAnimatedWEBP", category="image/animation", is_output=True, module="comfy_extras.nodes_images")
def webp(
    bench: Bench,
    job: JobContext,
    images: Pictures,
    filename_prefix: Annotated[str, Prefix] = "ComfyUI",
    fps: Annotated[float, Fps] = 6.0,
    lossless: Annotated[bool, Switch("write without loss")] = True,
    quality: Annotated[int, Number(0, 100, "of the pictures; with lossless, effort")] = 80,
    method: Annotated[str, Choice(WEBP_METHODS, "effort of compressing")] = "default",
) -> Saved:
    """Writes frames as an animated WEBP."""
    return save_webp(bench, job, images, filename_prefix, fps=fps, lossless=lossless, quality=quality, method=method)


@node("SaveAnimatedPNG", title="SaveAnimatedPNG", category="image/animation", is_output=True, module="comfy_extras.nodes_images")
def apng(
    bench: Bench,
    job: JobContext,
    images: Pictures,
    filename_prefix: Annotated[str, Prefix] = "ComfyUI",
    fps: Annotated[float, Fps] = 6.0,
    compress_level: Annotated[int, Number(0, 9, "effort of compressing")] = 4,
) -> Saved:
    """Writes frames as an animated PNG, without loss."""
    return save_apng(bench, job, images, filename_prefix, fps=fps, compress_level=compress_level)


@node(
    "VHS_VideoCombine", title="Video Combine \U0001f3a5\U0001f165\U0001f157\U0001f162", category=VHS, is_output=True,
    output_names=("Filenames",), module="custom_nodes.ComfyUI-VideoHelperSuite",
)  # fmt: skip
def combine(
    bench: Bench,
    job: JobContext,
    images: Pictures,
    frame_rate: Annotated[float, Number(0.01, 1000.0, "frames a second", wire={"min": 1, "step": 1})] = 8.0,
    loop_count: Annotated[int, Number(0, 100, "how often the film is repeated within the file", wire={"step": 1})] = 0,
    filename_prefix: Annotated[str, Prefix] = "AnimateDiff",
    format: Annotated[str, Choice(FORMATS, "kind of file")] = "video/h264-mp4",
    pingpong: Annotated[bool, Switch("forwards, then backwards")] = False,
    save_output: Annotated[bool, Switch("keep it in the output folder")] = True,
    *,
    audio: Audio | None = None,
    pix_fmt: Annotated[str, Extra(Choice(ALL_PIXEL_FORMATS, "pixel format"))] = "",
    crf: Annotated[int | None, Extra(Number(0, 100, "quality: 0 is best"))] = None,
    save_metadata: Annotated[bool, Extra(Switch("keep prompt and settings inside the file"))] = True,
    lossless: Annotated[bool, Extra(Switch("of image/webp: without loss"))] = True,
) -> Filenames:
    """Writes frames as a film, and its first frame as PNG beside it."""
    codec = Codec(format, frame_rate, crf, pix_fmt, pingpong, loop_count, lossless)
    return save_combined(bench, job, images, filename_prefix, codec, kind="output" if save_output else "temp", keep=save_metadata)


@node("CreateVideo", title="Create Video", category="image/video", module="comfy_extras.nodes_video")
def create(
    bench: Bench,
    images: Pictures,
    fps: Annotated[float, Number(1.0, 120.0, "frames a second", wire={"step": 1.0})] = 30.0,
    *,
    audio: Audio | None = None,
) -> Film:
    """Frames, and how fast they play."""
    return Film(images, fps)


@node("LoadVideo", title="Load Video", category="image/video", module="comfy_extras.nodes_video")
def load(bench: Bench, job: JobContext, file: Annotated[str, Given]) -> Film:
    """A film that was given, or one that was made."""
    return bench.read_video(job.folders.picture(file))


@node(
    "GetVideoComponents", title="Get Video Components", category="image/video", output_names=("images", "audio", "fps"),
    module="comfy_extras.nodes_video",
)  # fmt: skip
def take_apart(bench: Bench, video: Film) -> tuple[Pictures, Audio, float]:
    """The frames of a film, its sound (there is none), and how fast they play."""
    return video.pictures, Audio(), video.fps


@node("SaveVideo", title="Save Video", category="image/video", is_output=True, module="comfy_extras.nodes_video")
def save(
    bench: Bench,
    job: JobContext,
    video: Film,
    filename_prefix: Annotated[str, Prefix] = "video/ComfyUI",
    format: Annotated[str, Choice(("auto", "mp4"), "kind of file")] = "auto",
    codec: Annotated[str, Choice(("auto", "h264"), "how it is compressed")] = "auto",
) -> Saved:
    """Writes a film as MP4."""
    return save_film(bench, job, video, filename_prefix)


NODES = (webp, apng, combine, create, load, take_apart, save)
