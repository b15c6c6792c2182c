"""What the person at the command line asked for. The only reader of argv and of the environment; no torch here.

The options of a film are made from the declarations in `pipelines/parameters.py`: their names, help, defaults and types. Those of the
server are in `server_options.py`, those of `jobs`, `usage` and `user` in `job_options.py`, those of `models`
and `download` in `model_options.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import job_options
import model_options
import run_options
import server_options
from errors import InputError
from pipelines.parameters import Choice, FileSettings, MachineSettings, MotionSettings, StillSettings, Switch, check, declarations
from space_options import space_environment

VERSION = "0.1.0"
RANDOM_SEEDS = 2**32  # as many as every program can say without rounding

_OWNERS = {"still": StillSettings, "motion": MotionSettings, "file": FileSettings, "machine": MachineSettings}
_GROUPS = {"still": "still", "motion": "motion", "file": "files", "machine": "machine"}
_MOTION_NAMES = {"checkpoint", "steps", "guidance", "sampler", "schedule", "seed"}
_STILL_NAMES = {"width", "height"}
_EXAMPLES = """examples:
  python app.py                                     the server, at http://127.0.0.1:8000
  python app.py serve --listen --users users.json   for everybody in the network who has an account
  python app.py film "Rocket takes off from the ground, fire, sky, airplane"
  python app.py film "a red boat sails on the sea" --frames 25 --motion-bucket-id 180 --seed 7
  python app.py film --image still.png --json
  python app.py read data/output/Stillmotion_00001.mp4
  python app.py run workflow.json --set "6.text=a red boat" --set 3.seed=7
  python app.py run --template text_to_still --set "prompt=a red boat"
  python app.py doctor
  python app.py download svd_xt
  python app.py jobs submit --prompts films.csv --seeds 3
  python app.py work --until-empty
  python app.py backup /backups/monday --like /backups/sunday"""


@dataclass(frozen=True)
class FilmCommand:
    still: StillSettings
    motion: MotionSettings
    file: FileSettings
    machine: MachineSettings
    image: Path | None
    data_dir: Path
    is_json: bool
    is_quiet: bool


@dataclass(frozen=True)
class ReadCommand:
    path: Path


@dataclass(frozen=True)
class DoctorCommand:
    data_dir: Path
    is_json: bool


Command = (
    FilmCommand | ReadCommand | DoctorCommand | server_options.ServeCommand | server_options.WorkCommand
    | run_options.RunCommand | run_options.KeepCommand | run_options.ReindexCommand | run_options.BackupCommand | run_options.RestoreCommand
    | model_options.ModelsCommand | model_options.DownloadCommand
    | job_options.JobsCommand | job_options.SubmitCommand | job_options.UsageCommand | job_options.UserCommand
)  # fmt: skip


@dataclass(frozen=True)
class _Option:
    """One declared parameter on the command line."""

    owner: str
    name: str
    flag: str
    kind: type
    declaration: Any
    default: Any

    @property
    def dest(self) -> str:
        return f"{self.owner}.{self.name}"


class _Parser(argparse.ArgumentParser):
    """One clear line instead of the usage; `app.py` prints it and exits with 2."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message[0].upper() + message[1:].rstrip(".") + ".", f"See `python {self.prog} --help`.")


def _begins_with_option(argv: Sequence[str]) -> bool:
    """Where a command should stand, or nothing does."""
    return not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"))


def parse(argv: Sequence[str]) -> Command:
    """No command is `serve`, and `jobs` alone lists them. Raises InputError for what cannot be understood; exits for --help and --version,
    as people expect."""
    if _begins_with_option(argv):
        argv = ["serve", *argv]
    elif argv[0] == "jobs" and _begins_with_option(argv[1:]):
        argv = ["jobs", "list", *argv[1:]]
    options = _parser().parse_args(argv)
    match options.command:
        case "read":
            return ReadCommand(options.file)
        case "doctor":
            return DoctorCommand(_data_dir(options), options.is_json)
        case "film":
            return _film_command(options)
    make = {
        "serve": server_options.serve_command, "work": server_options.work_command, "jobs": job_options.jobs_command,
        "run": run_options.run_command, "keep": run_options.keep_command, "reindex": run_options.reindex_command,
        "backup": run_options.backup_command, "restore": run_options.restore_command,
        "models": model_options.models_command, "download": model_options.download_command,
        "usage": job_options.usage_command, "user": job_options.user_command,
    }[options.command]  # fmt: skip
    return make(options, os.environ, _data_dir(options))


def _parser() -> argparse.ArgumentParser:
    description, form = "Stillmotion: type a sentence, get a film.", argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="app.py", allow_abbrev=False, description=description, epilog=_EXAMPLES, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"Stillmotion {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the page and the API; the same without a command", prog="app.py", allow_abbrev=False)
    _add_data_dir(serve)
    server_options.add_serve(serve)
    _add_film(commands.add_parser("film", help="make a film from a prompt or from a picture", prog="app.py film", allow_abbrev=False))
    read = commands.add_parser("read", help="print the settings that a PNG, WEBP or MP4 carries", prog="app.py read")
    read.add_argument("file", type=Path, metavar="FILE", help="a file of ours or of ComfyUI")
    doctor = commands.add_parser("doctor", help="look over this machine and the checkpoints", prog="app.py doctor", allow_abbrev=False)
    doctor.description = "Say what works here and what does not. The exit code is 0 if all is well, and 2 if anything is bad."
    _add_data_dir(doctor)
    doctor.add_argument("--json", action="store_true", dest="is_json", help="end with one line of JSON")
    models = commands.add_parser("models", help="list the model files and what they serve", prog="app.py models", allow_abbrev=False)
    _add_data_dir(models)
    model_options.add_models(models)
    download = commands.add_parser("download", help="fetch a model from the hub", prog="app.py download", allow_abbrev=False)
    _add_data_dir(download)
    model_options.add_download(download)
    run = commands.add_parser("run", help="run a workflow or a template", prog="app.py run", allow_abbrev=False)
    _add_data_dir(run)
    run_options.add_run(run)
    work = commands.add_parser("work", help="do the jobs that wait, without a server", prog="app.py work", allow_abbrev=False)
    _add_data_dir(work)
    server_options.add_work(work)
    job_options.add_jobs(commands.add_parser("jobs", help="list, submit and change jobs", prog="app.py jobs"), _add_data_dir)
    usage = commands.add_parser("usage", help="who used how much", prog="app.py usage", allow_abbrev=False)
    _add_data_dir(usage)
    job_options.add_usage(usage)
    keep = commands.add_parser("keep", help="remove what is too old or too much", prog="app.py keep", allow_abbrev=False)
    _add_data_dir(keep)
    run_options.add_keep(keep)
    reindex = commands.add_parser("reindex", help="make the library again from the files", prog="app.py reindex", allow_abbrev=False)
    _add_data_dir(reindex)
    run_options.add_reindex(reindex)
    backup = commands.add_parser("backup", help="copy jobs, films and keys, while a server runs", prog="app.py backup", allow_abbrev=False)
    _add_data_dir(backup)
    run_options.add_backup(backup)
    restore = commands.add_parser("restore", help="put a backup into an empty data directory", prog="app.py restore", allow_abbrev=False)
    _add_data_dir(restore)
    run_options.add_restore(restore)
    job_options.add_user(commands.add_parser("user", help="who may enter", prog="app.py user"), _add_data_dir)
    return parser


def _add_film(film: argparse.ArgumentParser) -> None:
    film.description = "Make a film: PNG, WEBP and MP4 in DATA_DIR/output, with the settings inside."
    film.add_argument("prompt", nargs="?", metavar="PROMPT", help="what the film shows; weights as (word:1.3)")
    film.add_argument("--image", type=Path, metavar="FILE", help="begin with this picture instead of making a still")
    _add_data_dir(film)
    film.add_argument("--json", action="store_true", dest="is_json", help="end with one line of JSON: files, seeds, seconds and more")
    film.add_argument("--quiet", action="store_true", dest="is_quiet", help="no progress bar")
    groups = {owner: film.add_argument_group(title) for owner, title in _GROUPS.items()}
    for option in _film_options():
        _add_declared(groups[option.owner], option)


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="models and output live here (default: data, or STILLMOTION_DATA_DIR)")


def _data_dir(options: argparse.Namespace) -> Path:
    return options.data_dir or Path(space_environment(os.environ).get("STILLMOTION_DATA_DIR") or "data")


def _film_options() -> Iterator[_Option]:
    """Every declared parameter as an option. Those that both stages have are the still's, and the motion's with "motion-" before them; but
    width and height are the film's, and the still's with "still-"."""
    for owner, settings_class in _OWNERS.items():
        for name, declared in declarations(settings_class).items():
            prefix = {("motion", name in _MOTION_NAMES): "motion-", ("still", name in _STILL_NAMES): "still-"}.get((owner, True), "")
            if name != "prompt":
                yield _Option(owner, name, f"--{prefix}{name.replace('_', '-')}", *declared)


def _add_declared(group: argparse._ArgumentGroup, option: _Option) -> None:
    declaration, default = option.declaration, option.default
    names = f": {', '.join(declaration.names)}" if isinstance(declaration, Choice) else ""
    special = {"width": "the film's", "height": "the film's"} if option.owner == "still" else {}
    usual = {"seed": "random", "negative_prompt": "none", "vae": "the checkpoint's own", "loras": "none"}
    shown = (usual | special).get(option.name, default)
    words = f"{declaration.help}{names} (default: {shown})".replace("%", "%%")
    if isinstance(declaration, Switch):
        group.add_argument(option.flag, dest=option.dest, action=argparse.BooleanOptionalAction, help=words)
        return
    metavar = "NAME" if names else {int: "N", float: "X", str: "TEXT"}[option.kind]
    group.add_argument(option.flag, dest=option.dest, type=_READERS[option.kind], metavar=metavar, help=words)


_READERS = {int: server_options.whole, float: server_options.number, str: str}


def _film_command(options: argparse.Namespace) -> FilmCommand:
    if (options.prompt is None) == (options.image is None):
        both = "A prompt and a picture are both given." if options.image else "There is neither a prompt nor a picture."
        raise InputError(both, 'Give one of them: app.py film "PROMPT", or app.py film --image FILE.')
    if options.prompt is not None and not options.prompt.strip():
        raise InputError("The prompt is empty.", "Say what the film shows.")
    given: dict[str, dict[str, Any]] = {owner: {} for owner in _OWNERS}
    labels: dict[str, dict[str, str]] = {owner: {} for owner in _OWNERS}
    for option in _film_options():
        labels[option.owner][option.name] = option.flag
        is_the_films = option.owner == "still" and option.name in _STILL_NAMES and getattr(options, option.dest) is None
        if is_the_films:  # the still takes it over, mistakes included
            labels[option.owner][option.name] = f"--{option.name}"
        value = getattr(options, option.dest)
        if value is not None:
            given[option.owner][option.name] = value
    if options.image:
        _check_no_still(given["still"], labels["still"])
    settled = _settled(options, given)
    film = {owner: settings_class(**settled[owner]) for owner, settings_class in _OWNERS.items()}
    for owner in film:
        check(film[owner], labels[owner])
    general = {key: getattr(options, key) for key in ("image", "is_json", "is_quiet")}
    return FilmCommand(**film, data_dir=_data_dir(options), **general)


def _check_no_still(given: dict[str, Any], labels: dict[str, str]) -> None:
    for name in given:
        if name != "seed":
            hint = "Leave it out" + (f", or use --motion-{name}." if name in _MOTION_NAMES else ".")
            raise InputError(f"{labels[name]} belongs to the still, which --image replaces.", hint)


def _settled(options: argparse.Namespace, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What was given, with what follows from it: the still has the film's size, and one --seed settles both stages. Seeds that were not
    given are drawn here, so that what is stored can be repeated."""
    still, motion = given["still"], given["motion"]
    size = {name: motion[name] for name in ("width", "height") if name in motion}
    seed = still.get("seed")
    still_seed, motion_seed = (secrets.randbelow(RANDOM_SEEDS) if seed is None else seed for _ in range(2))
    first = {"prompt": options.prompt or "", "seed": still_seed} | size
    return given | {"still": first | still, "motion": {"seed": motion_seed} | motion}


def ray_environment(token: Path, *, is_local: bool) -> None:
    """What Ray reads from the environment when it is imported: it tells nobody of its use, and lets nobody in without a token. Of a cluster
    on this machine it is in the file `token`; that of another is given by hand, as RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."""
    usual = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"} | (
        {"RAY_AUTH_TOKEN_PATH": str(token.absolute())} if is_local else {}
    )
    for name, value in usual.items():
        os.environ.setdefault(name, value)


def quiet_environment(data_dir: Path) -> None:
    """Settings that third-party libraries read from the environment when they are imported: no hub, no telemetry, no advice; and where
    PyTorch keeps what it has compiled, if it can be kept there: without that folder PyTorch cannot be imported."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    compiled = data_dir.absolute() / "cache" / "compiled"
    with contextlib.suppress(OSError):
        compiled.mkdir(parents=True, exist_ok=True)
        quiet["TORCHINDUCTOR_CACHE_DIR"] = str(compiled)
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
