"""What the person at the command line asked for. The only reader of argv and of the environment; no torch here.

The options of a film are made from the declarations in `pipelines/parameters.py`: their names, help, defaults and types.
"""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from errors import InputError
from pipelines.parameters import Choice, FileSettings, MotionSettings, StillSettings, Switch, check, declarations

VERSION = "0.1.0"
RANDOM_SEEDS = 2**32  # as many as every program can say without rounding

# Options of both stages that would have the same name: the still's come plain, the motion's with "motion-".
_MOTION_NAMES = {"checkpoint", "steps", "guidance", "sampler", "schedule", "seed"}
_EXAMPLES = """examples:
  python app.py film "Rocket takes off from the ground, fire, sky, airplane"
  python app.py film "a red boat sails on the sea" --frames 25 --motion-bucket-id 180 --seed 7
  python app.py film --image still.png --json
  python app.py read data/output/Stillmotion_00001.mp4"""


@dataclass(frozen=True)
class FilmCommand:
    still: StillSettings
    motion: MotionSettings
    file: FileSettings
    image: Path | None
    data_dir: Path
    device: str
    attention: str
    is_json: bool
    is_quiet: bool


@dataclass(frozen=True)
class ReadCommand:
    path: Path


class _Parser(argparse.ArgumentParser):
    """One clear line instead of the usage; `app.py` prints it and exits with 2."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message[0].upper() + message[1:].rstrip(".") + ".", f"See `python {self.prog} --help`.")


def parse(argv: Sequence[str]) -> FilmCommand | ReadCommand:
    """Raises InputError for what cannot be understood; exits for --help and --version, as people expect."""
    options = _parser().parse_args(argv)
    if options.command == "read":
        return ReadCommand(options.file)
    return _film_command(options)


def _parser() -> argparse.ArgumentParser:
    description, form = "Stillmotion: type a sentence, get a film.", argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="app.py", description=description, epilog=_EXAMPLES, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"Stillmotion {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_film(commands.add_parser("film", help="make a film from a prompt or from a picture", prog="app.py film"))
    read = commands.add_parser("read", help="print the settings that a PNG, WEBP or MP4 carries", prog="app.py read")
    read.add_argument("file", type=Path, metavar="FILE", help="a file of ours or of ComfyUI")
    return parser


def _add_film(film: argparse.ArgumentParser) -> None:
    film.description = "Make a film: PNG, WEBP and MP4 in DATA_DIR/output, with the settings inside."
    film.add_argument("prompt", nargs="?", metavar="PROMPT", help="what the film shows; weights as (word:1.3)")
    film.add_argument("--image", type=Path, metavar="FILE", help="begin with this picture instead of making a still")
    film.add_argument("--data-dir", type=Path, metavar="DIR", help="models and output live here (default: data, or STILLMOTION_DATA_DIR)")
    film.add_argument("--json", action="store_true", dest="is_json", help="end with one line of JSON: files, seeds, seconds and more")
    film.add_argument("--quiet", action="store_true", dest="is_quiet", help="no progress bar")
    film.add_argument("--device", default="auto", metavar="NAME", help="auto, cuda, mps or cpu (default: auto)")
    film.add_argument("--attention", default="auto", metavar="NAME", help="auto, sdpa or xformers (default: auto)")
    both = film.add_argument_group("size and seeds")
    both.add_argument("--width", type=_whole, metavar="N", help="pixels, a multiple of 8 (default: 256)")
    both.add_argument("--height", type=_whole, metavar="N", help="pixels, a multiple of 8 (default: 256)")
    both.add_argument("--still-width", type=_whole, metavar="N", help="if the still is to have another size than the film")
    both.add_argument("--still-height", type=_whole, metavar="N", help="the same")
    _add_declared(film.add_argument_group("still"), "still", StillSettings, skip={"prompt", "width", "height"})
    _add_declared(film.add_argument_group("motion"), "motion", MotionSettings, skip={"width", "height"})
    _add_declared(film.add_argument_group("files"), "file", FileSettings, skip=set())


def _add_declared(group: argparse._ArgumentGroup, owner: str, settings_class: type, skip: set[str]) -> None:
    for name, (kind, declaration, default) in declarations(settings_class).items():
        if name in skip:
            continue
        option = f"--{'motion-' if owner == 'motion' and name in _MOTION_NAMES else ''}{name.replace('_', '-')}"
        shown = "random" if name == "seed" else default if default != "" else "none"
        words = f"{declaration.help} (default: {shown})"
        if isinstance(declaration, Switch):
            group.add_argument(option, dest=f"{owner}.{name}", action=argparse.BooleanOptionalAction, help=words)
        else:
            reader = {int: _whole, float: _number, str: str}[kind]
            metavar = "N" if kind is int else "X" if kind is float else "NAME" if isinstance(declaration, Choice) else "TEXT"
            if isinstance(declaration, Choice):
                words = f"{declaration.help}: {', '.join(declaration.names)} (default: {shown})"
            group.add_argument(option, dest=f"{owner}.{name}", type=reader, metavar=metavar, help=words)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _film_command(options: argparse.Namespace) -> FilmCommand:
    if (options.prompt is None) == (options.image is None):
        both = "A prompt and a picture are both given." if options.image else "There is neither a prompt nor a picture."
        raise InputError(both, 'Give one of them: app.py film "PROMPT", or app.py film --image FILE.')
    given = {key: value for key, value in vars(options).items() if value is not None}
    still_size = _size(given.get("still_width", given.get("width")), given.get("still_height", given.get("height")))
    still = StillSettings(**({"prompt": options.prompt or ""} | still_size | _given("still", given)))
    motion = MotionSettings(**(_size(given.get("width"), given.get("height")) | _given("motion", given)))
    file = FileSettings(**_given("file", given))
    for values in (still, motion, file):
        check(values)
    return FilmCommand(
        still,
        motion,
        file,
        image=options.image,
        data_dir=options.data_dir or Path(os.environ.get("STILLMOTION_DATA_DIR") or "data"),
        **{key: getattr(options, key) for key in ("device", "attention", "is_json", "is_quiet")},
    )


def _given(owner: str, given: dict[str, Any]) -> dict[str, Any]:
    """What was given for one of the three settings; seeds that were not are drawn here, so that what is stored can be repeated."""
    values = {key.removeprefix(f"{owner}."): value for key, value in given.items() if key.startswith(f"{owner}.")}
    return values if owner == "file" else {"seed": secrets.randbelow(RANDOM_SEEDS)} | values


def _size(width: int | None, height: int | None) -> dict[str, int]:
    return {key: value for key, value in {"width": width, "height": height}.items() if value is not None}


def quiet_environment() -> None:
    """Settings that third-party libraries read from the environment when they are imported: no hub, no telemetry, no advice."""
    no_network = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    for name, value in (no_network | {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}).items():
        os.environ.setdefault(name, value)
