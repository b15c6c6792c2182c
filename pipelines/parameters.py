"""Every parameter of a film, declared once: default, bounds, choices and what it does.

The command line's options, their help and every check come from these declarations. No torch here. Bounds are ComfyUI's, but for
the size of a side, which WEBP limits, and the frame rate.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from errors import InputError, UnknownNameError
from pipelines.prompt_weights import check_weights

SAMPLERS = (
    "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddim", "uni_pc", "lcm",
)  # fmt: skip
SCHEDULES = ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta", "linear_quadratic", "kl_optimal")
GUIDANCE_SHAPES = ("linear", "triangle")
PIXEL_FORMATS = ("yuv420p", "yuv420p10le")
WEBP_METHODS = ("default", "fastest", "slowest")


@dataclass(frozen=True)
class VideoFormat:
    """How one kind of film is written. `codec` is what ffmpeg calls what comes out; `max_crf` the worst quality that its encoder knows,
    0 being the best; the first of the pixel formats is the usual one; `min_side` is in pixels."""

    suffix: str
    codec: str
    crf: int
    max_crf: int
    pixel_formats: tuple[str, ...]
    min_side: int = 1


VIDEO_FORMATS = {  # by the names that VideoHelperSuite gives them
    "video/h264-mp4": VideoFormat(".mp4", "h264", 19, 51, PIXEL_FORMATS),
    "video/h265-mp4": VideoFormat(".mp4", "hevc", 22, 51, ("yuv420p10le", "yuv420p"), min_side=16),
    "video/webm": VideoFormat(".webm", "vp9", 20, 63, ("yuv420p", "yuva420p")),
}
ATTENTIONS = ("auto", "sdpa", "xformers", "flash", "cudnn", "efficient")
DTYPES = ("auto", "float32", "float16", "bfloat16")
WEIGHTS = ("auto", "float8")
VRAM_LEVELS = ("auto", "high", "medium", "low")
MAX_SEED = 2**64 - 1
MAX_STRENGTH = 100  # of a LoRA
MODEL_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Number:
    """Bounds, both included, and the step between valid values (from 0). `wire`: what ComfyUI's forms are told besides."""

    low: float
    high: float
    help: str
    multiple_of: int = 0
    wire: Mapping[str, Any] = field(default_factory=dict)

    def check(self, name: str, value: Any, kind: type) -> None:
        is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not is_number or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{name} is {value!r}, which is not {'a whole' if kind is int else 'a'} number.", "Give it in digits.")
        nearest = min(max(value, self.low), self.high)
        if value != nearest:
            raise InputError(f"{name} is {value}, but must be {spaced(self.low)} to {spaced(self.high)}.", f"Use {nearest}.")
        if self.multiple_of and value % self.multiple_of:
            near = round(value / self.multiple_of) * self.multiple_of
            raise InputError(f"{name} is {value}, but must be a multiple of {self.multiple_of}.", f"Use {max(near, int(self.low))}.")


def spaced(number: float) -> str:
    """16384 as "16 384"; seeds stay in one piece, to be copied."""
    number = int(number) if float(number).is_integer() else number
    return f"{number:,}".replace(",", " ") if number < 10**9 else str(number)


@dataclass(frozen=True)
class Choice:
    names: tuple[str, ...]
    help: str
    wire: Mapping[str, Any] = field(default_factory=dict)

    def check(self, name: str, value: Any, kind: type) -> None:
        if value not in self.names:
            raise UnknownNameError(name.strip("-").replace("_", " ").replace("-", " "), value, self.names)


@dataclass(frozen=True)
class Text:
    help: str
    max_length: int = 20_000
    wire: Mapping[str, Any] = field(default_factory=dict)

    def check(self, name: str, value: Any, kind: type) -> None:
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}, which is no text.", "Give it as text.")
        if len(value) > self.max_length:
            raise InputError(f"{name} has {len(value)} characters; {self.max_length} are the most.", "Shorten it.")


@dataclass(frozen=True)
class Prompt(Text):
    """With weights, "(word:1.3)"; see pipelines/prompt_weights.py."""

    def check(self, name: str, value: Any, kind: type) -> None:
        super().check(name, value, kind)
        check_weights(value)


@dataclass(frozen=True)
class Switch:
    help: str
    wire: Mapping[str, Any] = field(default_factory=dict)

    def check(self, name: str, value: Any, kind: type) -> None:
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}; it is either on or off.", "Use true or false.")


@dataclass(frozen=True)
class LoraNames:
    help: str

    def check(self, name: str, value: Any, kind: type) -> None:
        Text(self.help).check(name, value, kind)
        parse_loras(value, name)


def parse_loras(text: str, label: str = "loras") -> tuple[tuple[str, float], ...]:
    """ "anime/soft, sharp:0.6" as (file name, strength) pairs: ("anime/soft.safetensors", 1.0), ("sharp.safetensors", 0.6).

    Raises InputError, with the parameter's label, for a name that is missing and a strength that is no number in ComfyUI's bounds."""
    if not isinstance(text, str):
        raise InputError(f"{label} is {str(text)[:100]!r}, but must be a text.", "Write it as anime/soft, sharp:0.6.")
    found = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, _, number = item.rpartition(":") if ":" in item else (item, "", "1")
        try:
            strength = float(number)
        except ValueError:
            strength = math.nan
        if not name.strip():
            raise InputError(f"{label} has {item!r} without a name.", "Give it as name:strength, for example soft:0.8.")
        if not -MAX_STRENGTH <= strength <= MAX_STRENGTH:  # neither is nan
            bounds = f"{-MAX_STRENGTH} to {MAX_STRENGTH}"
            raise InputError(f"{label} has {item!r}, whose strength is no number from {bounds}.", "Use about 0.5 to 1.")
        name = name.strip()
        found.append((name if name.endswith(MODEL_ENDINGS) else f"{name}.safetensors", strength))
    return tuple(found)


Side = Number(16, 16376, "pixels, a multiple of 8", multiple_of=8)
Seed = Number(0, MAX_SEED, "the same seed and settings give the same result; drawn at random if not given")
Steps = Number(1, 10_000, "denoising steps: more take longer and are finer")


@dataclass(frozen=True)
class StillSettings:
    """Stage 1. `guidance` is classifier-free guidance (ComfyUI's cfg); 1 switches it off."""

    prompt: Annotated[str, Prompt("what the film shows")]
    negative_prompt: Annotated[str, Prompt("what it should not show")] = ""
    checkpoint: Annotated[str, Text("model of the still: a file name in models/checkpoints")] = "stillmotion_demo_still.safetensors"
    vae: Annotated[str, Text("another autoencoder for the still: a file name in models/vae")] = ""
    loras: Annotated[str, LoraNames("LoRAs for the still: file names in models/loras, with strength as name:0.8, other:0.5")] = ""
    width: Annotated[int, Side] = 192
    height: Annotated[int, Side] = 192
    steps: Annotated[int, Steps] = 20
    guidance: Annotated[float, Number(0.0, 100.0, "how closely the still follows the prompt")] = 3.0
    sampler: Annotated[str, Choice(SAMPLERS, "method of sampling the still")] = "dpmpp_2m"
    schedule: Annotated[str, Choice(SCHEDULES, "noise levels that sampling visits")] = "karras"
    seed: Annotated[int, Seed] = 0


@dataclass(frozen=True)
class MotionSettings:
    """Stage 2. Guidance goes from `min_guidance` at the first frame to `guidance`, in the shape of `guidance_shape`."""

    checkpoint: Annotated[str, Text("model of the motion: a file name in models/checkpoints")] = "stillmotion_demo_motion.safetensors"
    width: Annotated[int, Side] = 192
    height: Annotated[int, Side] = 192
    frames: Annotated[int, Number(1, 4096, "length of the film in frames")] = 14
    motion_bucket_id: Annotated[int, Number(1, 1023, "how much moves: 40 is gentle, 90 lively, 200 wild")] = 90
    fps: Annotated[int, Number(1, 1024, "frames a second that the motion is made for")] = 7
    augmentation_level: Annotated[float, Number(0.0, 10.0, "noise on the still: more moves more, and drifts from it")] = 0.0
    steps: Annotated[int, Steps] = 16
    guidance: Annotated[float, Number(0.0, 100.0, "how closely the last frames follow the still")] = 2.0
    min_guidance: Annotated[float, Number(0.0, 100.0, "the same for the first frame")] = 1.0
    guidance_shape: Annotated[str, Choice(GUIDANCE_SHAPES, "how guidance grows over the frames")] = "linear"
    sampler: Annotated[str, Choice(SAMPLERS, "method of sampling the frames")] = "euler"
    schedule: Annotated[str, Choice(SCHEDULES, "noise levels that sampling visits")] = "karras"
    seed: Annotated[int, Seed] = 0


@dataclass(frozen=True)
class FileSettings:
    """How the film is written."""

    prefix: Annotated[str, Text("start of the file names; may hold folders and %width%, %year% and so on", 300)] = "Stillmotion"
    frame_rate: Annotated[float, Number(0.1, 120.0, "frames a second that the film plays at")] = 7.0
    crf: Annotated[int, Number(0, 51, "quality of the MP4: 0 is lossless, 51 worst")] = 20
    pix_fmt: Annotated[str, Choice(PIXEL_FORMATS, "pixel format of the MP4; yuv420p plays everywhere")] = "yuv420p"
    pingpong: Annotated[bool, Switch("play the MP4 forwards, then backwards")] = False
    loop_count: Annotated[int, Number(0, 100, "how often the MP4 repeats the film")] = 0
    webp_quality: Annotated[int, Number(0, 100, "quality of the WEBP")] = 85
    webp_method: Annotated[str, Choice(WEBP_METHODS, "effort of compressing the WEBP")] = "default"
    webp_lossless: Annotated[bool, Switch("write the WEBP without loss")] = False
    metadata: Annotated[bool, Switch("keep prompt, seeds and settings inside the files")] = True


@dataclass(frozen=True)
class MachineSettings:
    """What it is made with. None of it changes what the film shows, but for rounding; float8 rounds so much that it may be seen."""

    device: Annotated[str, Text("auto, cuda, cuda:1, mps or cpu", 20)] = "auto"
    attention: Annotated[str, Choice(ATTENTIONS, "how attention is computed")] = "auto"
    dtype: Annotated[str, Choice(DTYPES, "precision of the networks")] = "auto"
    weights: Annotated[str, Choice(WEIGHTS, "how the UNets' weights are kept; float8 halves them and is lossy")] = "auto"
    vram: Annotated[str, Choice(VRAM_LEVELS, "how much of the card's memory to use: less is slower")] = "auto"
    vram_limit: Annotated[float, Number(0.0, 4096.0, "GiB of it at most; 0 is all there is")] = 0.0
    compile: Annotated[bool, Switch("compile the networks: minutes for each size, then perhaps faster")] = False


AUTOMATIC = MachineSettings()


@dataclass(frozen=True)
class Sampling:
    """One run of a sampler. Of its steps those from `first_step` to before `last_step` are run. Without `adds_noise` it goes on from
    noisy latents; with `leaves_noise` it stops there, instead of going down to none at `last_step`."""

    seed: int
    steps: int
    guidance: float
    sampler: str
    schedule: str
    denoise: float = 1.0
    first_step: int = 0
    last_step: int = 10_000
    adds_noise: bool = True
    leaves_noise: bool = False

    @classmethod
    def of(cls, settings: StillSettings | MotionSettings) -> Sampling:
        return cls(settings.seed, settings.steps, settings.guidance, settings.sampler, settings.schedule)


def declarations(settings_class: type) -> dict[str, tuple[type, Any, Any]]:
    """Name to (type, declaration, default) of each parameter; the default is `dataclasses.MISSING` where one must be given."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    fields = {field.name: field.default for field in dataclasses.fields(settings_class)}
    return {name: (*typing.get_args(hints[name])[:2], default) for name, default in fields.items()}


def check(settings: StillSettings | MotionSettings | FileSettings | MachineSettings, labels: Mapping[str, str] | None = None) -> None:
    """Raises InputError for the first value that cannot be used, saying which, the bounds and what to use.

    `labels` says what the person knows a parameter by, where that is not its name."""
    for name, (kind, declaration, _) in declarations(type(settings)).items():
        declaration.check((labels or {}).get(name, name), getattr(settings, name), kind)
