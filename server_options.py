"""The options of `serve` and `work`, on the command line or in the environment: `--max-queued 50` is STILLMOTION_MAX_QUEUED=50.

The environment is passed in by `settings.py`, which alone reads it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cluster_options
from errors import InputError
from jobs.service_settings import GIB, ClusterSettings, StoreSettings, WorkSettings
from model_options import hub_settings
from pipelines.hub import HubSettings
from pipelines.parameters import Choice, MachineSettings, check, declarations
from space_options import is_space, is_zero, space_environment, space_notices

PREFIX = "STILLMOTION_"
DATABASE = "jobs.sqlite"
_MILLION = 10**6
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class ServeCommand:
    """`has_custom_nodes`: Python files of people's own in the data directory are loaded. `has_mcp`: for MCP clients too. `notices`: what
    the page says at the top. `may_be_framed`: pages of other sites may show ours inside. `everybody_is_admin`: where nobody
    signs in; not on a Space that is open only because nobody said anything."""

    store: StoreSettings
    work: WorkSettings
    host: str
    port: int
    token: str
    users: Path | None
    no_auth: bool
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    root_path: str
    drain_seconds: float
    has_custom_nodes: bool
    has_page: bool
    hub: HubSettings
    has_mcp: bool = False
    notices: tuple[str, ...] = ()
    may_be_framed: bool = False
    everybody_is_admin: bool = True
    everybody_is_apart: bool = False


@dataclass(frozen=True)
class WorkCommand:
    """A worker without a server."""

    store: StoreSettings
    work: WorkSettings
    drain_seconds: float
    has_custom_nodes: bool
    until_empty: bool


@dataclass(frozen=True)
class Option:
    """`read` makes the value of a text. A switch takes no value on the command line."""

    flag: str
    read: Callable[[str], Any]
    metavar: str
    default: Any
    help: str
    alone: Any = None  # what the flag means without a value

    @property
    def name(self) -> str:
        return self.flag.strip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _positive(text: str) -> float:
    value = number(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than nothing, or no number")
    return value


def _count(text: str) -> int:
    value = whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 0")
    return value


def _port(text: str) -> int:
    value = whole(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to 65535")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _switch(text: str) -> bool:
    if text.strip().lower() not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.strip().lower() in _TRUE


_STORE = (
    Option("--database", Path, "FILE", None, "the table of jobs, on a local disk (default: jobs.sqlite in the data directory)"),
    Option("--max-queued", _count, "N", 1000, "so many jobs may wait; 0: any number"),
    Option("--max-work", _positive, "N", 20_000.0, "one job may be so many million pixels times frames times steps; 0: any"),
    Option("--min-free", _positive, "GIB", 1.0, "below so much room on the disk no job is taken"),
)
_WORK = (
    Option(
        "--drain", _positive, "SECONDS", 5.0, "when it is told to end, the running job may take so long; else it goes back into the line"
    ),
    Option("--idle-unload", _positive, "SECONDS", 900.0, "after so long without a job the memory of models is given back; 0: never"),
    Option("--cache-gib", _positive, "GIB", 8.0, "disk for results that need not be made again"),
    Option("--keep-days", _positive, "DAYS", None, "results that are older go, but for favourites (default: all stay)"),
    Option("--keep-gib", _positive, "GIB", None, "the oldest results go when all take more, but for favourites (default: all stay)"),
    Option("--webhook-private", _switch, "", False, "webhooks may go to this machine and its network", alone=True),
    Option(
        "--enable-custom-nodes",
        _switch,
        "",
        False,
        "load Python files from custom_nodes in the data directory; they may do anything",
        alone=True,
    ),
)
_CLUSTER = (
    Option(
        "--executor",
        cluster_options.executor,
        "NAME",
        "local",
        "who does the jobs: local, this process; or ray, replicas on one or more machines",
    ),
    Option(
        "--ray-address",
        cluster_options.ray_address,
        "HOST:PORT",
        "",
        "Ray's head, to join its cluster (default: one is started on this machine)",
    ),
    Option("--min-replicas", _count, "N", 0, "so many replicas are there even if no job waits"),
    Option("--max-replicas", cluster_options.replicas, "N", 2, "and so many at most, one GPU each"),
    Option("--replica-idle", _positive, "SECONDS", 300.0, "after so long without a job a replica goes"),
)
_PRIVATE = tuple(option for option in _WORK if option.flag == "--webhook-private")
_SERVER = (
    Option("--listen", str, "HOST", "127.0.0.1", "where to listen; without HOST everywhere", alone="0.0.0.0"),
    Option("--port", _port, "N", 8000, "0 takes a free one"),
    Option("--token", str, "TOKEN", "", "whoever knows it may enter (better in the environment: others can see a command line)"),
    Option("--users", Path, "FILE", None, "several users; `app.py user add` makes the file"),
    Option("--no-auth", _switch, "", False, "whoever can reach it may do everything", alone=True),
    Option("--allowed-hosts", _names, "A,B", (), "names under which it is reached, such as films.example.com or .example.com"),
    Option("--allowed-origins", _names, "A,B", (), "other pages that may use it, such as https://example.com"),
    Option("--trusted-proxies", _names, "A,B", ("127.0.0.0/8", "::1"), "whose X-Forwarded-* is believed"),
    Option("--no-ui", _switch, "", False, "only the protocols for programs; Gradio is not loaded", alone=True),
    Option("--mcp", _switch, "", False, "for MCP clients too, at /mcp (wants requirements-mcp.txt)", alone=True),
    Option("--root-path", str, "PATH", "", "the path under which a proxy shows it, such as /films"),
)  # fmt: skip


def _machine() -> Iterator[Option]:
    kinds = {str: str, float: number, int: whole, bool: _switch}
    for name, (kind, declaration, default) in declarations(MachineSettings).items():
        names = f": {', '.join(declaration.names)}" if isinstance(declaration, Choice) else ""
        is_switch = kind is bool
        metavar = "" if is_switch else kind.__name__.upper()
        yield Option(
            f"--{name.replace('_', '-')}", kinds[kind], metavar, default, declaration.help + names, alone=True if is_switch else None
        )


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve the page and the API. Every option may be in the environment: --port 80 is STILLMOTION_PORT=80."
    _add(parser.add_argument_group("who may enter"), _SERVER)
    _add_common(parser)


def add_work(parser: argparse.ArgumentParser) -> None:
    parser.description = "Do the jobs of a data directory, without a server."
    parser.add_argument("--until-empty", action="store_true", help="end when no job waits")
    _add_common(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """What it is made with."""
    _add(parser.add_argument_group("machine"), _machine())


def add_database(parser: argparse.ArgumentParser) -> None:
    """For commands that look at jobs."""
    _add(parser, _STORE[:1])


def add_webhook_private(parser: argparse.ArgumentParser) -> None:
    """For commands that submit jobs."""
    _add(parser, _PRIVATE)


def allows_private_webhooks(options: argparse.Namespace, environment: Mapping[str, str]) -> bool:
    """Raises InputError."""
    return _settled(options, environment, _PRIVATE)["webhook_private"]


def serve_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> ServeCommand:
    """Raises InputError."""
    is_said = options.no_auth is not None or "STILLMOTION_NO_AUTH" in environment
    environment = space_environment(environment, has_credentials=bool(options.token or options.users))
    given = _settled(options, environment, (*_SERVER, *_STORE, *_WORK, *_CLUSTER))
    same = ("port", "token", "users", "no_auth", "allowed_hosts", "allowed_origins", "trusted_proxies", "root_path")
    work = _work_settings(options, environment, given)
    are_apart = is_space(environment) and given["no_auth"] and not is_said
    return ServeCommand(
        _store_settings(given, data_dir, work.cluster), work, host=given["listen"], drain_seconds=given["drain"],
        has_custom_nodes=given["enable_custom_nodes"], has_page=not given["no_ui"], hub=hub_settings(environment), has_mcp=given["mcp"],
        notices=space_notices(environment, data_dir, no_auth=given["no_auth"], are_apart=are_apart), may_be_framed=is_space(environment),
        everybody_is_admin=is_said or not is_space(environment), everybody_is_apart=are_apart,
        **{name: given[name] for name in same},
    )  # fmt: skip


def work_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> WorkCommand:
    """Raises InputError."""
    given = _settled(options, environment, (*_STORE, *_WORK, *_CLUSTER))
    work = _work_settings(options, environment, given)
    store = _store_settings(given, data_dir, work.cluster)
    return WorkCommand(store, work, given["drain"], given["enable_custom_nodes"], options.until_empty)


def store_settings(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> StoreSettings:
    """For commands that look at jobs, with the bounds that the environment gives. Raises InputError."""
    return _store_settings(_settled(options, environment, _STORE), data_dir)


def machine_settings(options: argparse.Namespace, environment: Mapping[str, str]) -> MachineSettings:
    """Raises InputError."""
    machine = MachineSettings(**_settled(options, environment, _machine()))
    check(machine, {option.name: option.flag for option in _machine()})
    return machine


def _store_settings(given: Mapping[str, Any], data_dir: Path, cluster: ClusterSettings | None = None) -> StoreSettings:
    database = given["database"] or data_dir / DATABASE
    pixel_steps, free = int(given["max_work"] * _MILLION), int(given["min_free"] * GIB)
    more = {"max_attempts": cluster_options.LOST_AFAR} if cluster else {}
    return StoreSettings(data_dir, database, given["max_queued"], pixel_steps, free, **more)


def _work_settings(options: argparse.Namespace, environment: Mapping[str, str], given: Mapping[str, Any]) -> WorkSettings:
    machine = machine_settings(options, environment)
    keep_bytes = None if given["keep_gib"] is None else int(given["keep_gib"] * GIB)
    return WorkSettings(
        machine, int(given["cache_gib"] * GIB), given["idle_unload"], given["keep_days"], keep_bytes, given["webhook_private"],
        cluster_options.cluster_settings(given, machine), is_zero(environment),
    )  # fmt: skip


def _settled(options: argparse.Namespace, environment: Mapping[str, str], known: Any) -> dict[str, Any]:
    """The command line, else the environment, else the default. Raises InputError for a variable that cannot be read."""
    found = {}
    for option in known:
        value = getattr(options, option.name, None)
        if value is None and option.variable in environment:
            value = _read_variable(option, environment[option.variable])
        found[option.name] = option.default if value is None else value
    return found


def _read_variable(option: Option, text: str) -> Any:
    try:
        return option.read(text)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{option.variable}: {error}.", f"It is the same as {option.flag}.") from error


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add(parser.add_argument_group("jobs"), (*_STORE, *_WORK))
    _add(parser.add_argument_group("several machines"), _CLUSTER)
    add_machine(parser)


def _add(group: Any, options: Any) -> None:
    for option in options:
        usual = ", ".join(option.default) if isinstance(option.default, tuple) else option.default
        words = option.help.replace("%", "%%")
        words += f" (default: {usual:g})" if isinstance(usual, float) else f" (default: {usual})" if usual not in (None, "", False) else ""
        if option.read is _switch:
            group.add_argument(option.flag, dest=option.name, action="store_true", default=None, help=words)
        elif option.alone is not None:
            group.add_argument(option.flag, dest=option.name, nargs="?", const=option.alone, metavar=option.metavar, help=words)
        else:
            group.add_argument(option.flag, dest=option.name, type=option.read, metavar=option.metavar, help=words)
