"""The options of `jobs`, `usage` and `user`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import InputError
from jobs.job import JobStatus
from jobs.service_settings import StoreSettings
from server_options import add_database, add_webhook_private, allows_private_webhooks, store_settings, whole

USERS_FILE = "users.json"
_ONE_OR_MORE = {
    "cancel": "stop what runs, and take out of the line what waits",
    "retry": "do failed and canceled jobs again",
    "duplicate": "the same again as new jobs",
    "delete": "out of sight; for an hour they can be had back",
    "undo": "have deleted jobs back",
    "favourite": "never remove them to make room",
}


@dataclass(frozen=True)
class JobsCommand:
    """`action`: list, show, cancel, retry, duplicate, move, pause, resume, delete, undo or favourite; `options` are its own."""

    action: str
    store: StoreSettings
    is_json: bool
    ids: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SubmitCommand:
    """One of `file` (a workflow), `prompts` (a table) and `prompt`. `values`: fields of the template."""

    store: StoreSettings
    is_json: bool
    file: Path | None = None
    prompts: Path | None = None
    prompt: str | None = None
    seeds: int = 1
    template: str = "text_to_film"
    values: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    allows_private_webhooks: bool = False


@dataclass(frozen=True)
class UsageCommand:
    store: StoreSettings
    is_json: bool
    owner: str | None
    since: str | None
    is_csv: bool = False


@dataclass(frozen=True)
class UserCommand:
    """`action`: add or token."""

    action: str
    name: str
    file: Path
    is_admin: bool = False


def add_jobs(parser: argparse.ArgumentParser, add_data_dir: Callable[[argparse.ArgumentParser], None]) -> None:
    parser.description = (
        "Look at the jobs of a data directory and change them, while a server runs or not. An ID may be cut short to its first characters."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))

    def action(name: str, help: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=help, prog=f"app.py jobs {name}", allow_abbrev=False)
        add_data_dir(added)
        add_database(added)
        added.add_argument("--json", action="store_true", dest="is_json", help="JSON instead of a table")
        return added

    _add_list(action("list", "the newest first; so does no action"))
    action("show", "all that is known of one").add_argument("ids", nargs=1, metavar="ID")
    _add_submit(action("submit", "a workflow, a prompt, or a table of prompts"))
    for name, help in _ONE_OR_MORE.items():
        action(name, help).add_argument("ids", nargs="+", metavar="ID")
    actions.choices["duplicate"].add_argument("--new-seeds", action="store_true", help="other films of the same kind")
    actions.choices["favourite"].add_argument("--off", action="store_true", help="no longer")
    move = action("move", "to another place in the line")
    move.add_argument("ids", nargs=1, metavar="ID")
    move.add_argument("--to", default="back", metavar="PLACE", help="front, back or a number from 1 on, which is the front (default: back)")
    move.add_argument("--before", metavar="ID", help="before another waiting job")
    action("pause", "begin no job any more; what runs goes on")
    action("resume", "go on")


def add_usage(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Seconds of generation by user and day, of failed and canceled runs too. What loading models and starting takes is not counted."
    )
    add_database(parser)
    parser.add_argument("--owner", metavar="NAME", help="one user's")
    parser.add_argument("--since", metavar="DAY", help="from this day on (UTC), such as 2026-03-01")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", dest="is_json", help="JSON instead of a table")
    forms.add_argument("--csv", action="store_true", dest="is_csv", help="CSV instead of a table: owner, day, runs, seconds")


def add_user(parser: argparse.ArgumentParser, add_data_dir: Callable[[argparse.ArgumentParser], None]) -> None:
    parser.description = "Who may enter a server that runs with --users FILE. A password is asked for, or read from standard input."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))
    for name, help in (("add", "a new user with a password"), ("token", "a new token for a user; it is shown once")):
        added = actions.add_parser(name, help=help, prog=f"app.py user {name}", allow_abbrev=False)
        add_data_dir(added)
        added.add_argument("name", metavar="NAME")
        added.add_argument("--users", type=Path, metavar="FILE", help=f"(default: {USERS_FILE} in the data directory)")
    actions.choices["add"].add_argument("--admin", action="store_true", dest="is_admin", help="sees and may change everybody's jobs")


def jobs_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> JobsCommand | SubmitCommand:
    """Raises InputError."""
    store = store_settings(options, environment, data_dir)
    if options.action == "submit":
        return _submit_command(options, store, allows_private_webhooks(options, environment))
    names = {"list": _LIST, "duplicate": ("new_seeds",), "favourite": ("off",), "move": ("to", "before")}.get(options.action, ())
    own = {name: getattr(options, name) for name in names}
    return JobsCommand(options.action, store, options.is_json, tuple(getattr(options, "ids", ())), own)


def usage_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> UsageCommand:
    return UsageCommand(store_settings(options, environment, data_dir), options.is_json, options.owner, options.since, options.is_csv)


def user_command(options: argparse.Namespace, environment: Mapping[str, str], data_dir: Path) -> UserCommand:
    named = options.users or (Path(environment["STILLMOTION_USERS"]) if environment.get("STILLMOTION_USERS") else None)
    return UserCommand(options.action, options.name, named or data_dir / USERS_FILE, getattr(options, "is_admin", False))


_LIST = ("status", "owner", "tag", "text", "deleted", "limit")


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--status", action="append", choices=[status.value for status in JobStatus], help="may be given several times")
    parser.add_argument("--owner", metavar="NAME", help="one user's")
    parser.add_argument("--tag", metavar="TAG", help="with this tag")
    parser.add_argument("--text", default="", metavar="TEXT", help="in the title or the workflow")
    parser.add_argument("--deleted", action="store_true", help="those that are deleted and can be had back")
    parser.add_argument("--limit", type=whole, default=50, metavar="N", help="(default: 50)")


def _add_submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a workflow in ComfyUI's API format")
    parser.add_argument("--prompt", metavar="TEXT", help="a film of this")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE.csv", help="a job a row: a column `prompt`, others named as fields of the template"
    )
    parser.add_argument("--seeds", type=whole, default=1, metavar="N", help="so many of each, with other seeds (default: 1)")
    parser.add_argument("--template", default="text_to_film", metavar="NAME", help="(default: text_to_film)")
    parser.add_argument("--set", action="append", default=[], dest="values", metavar="FIELD=VALUE", help="may be given several times")
    add_webhook_private(parser)
    for flag, help in (
        ("--owner", "whose job it is"),
        ("--title", "what to call it"),
        ("--webhook", "an address to tell when it has ended"),
    ):
        parser.add_argument(flag, default="", metavar=flag.strip("-").upper(), help=help)
    parser.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG", help="may be given several times")
    parser.add_argument("--front", action="store_true", help="before the owner's other jobs")


def _submit_command(options: argparse.Namespace, store: StoreSettings, allows_private: bool) -> SubmitCommand:
    given = [name for name in ("file", "prompts", "prompt") if getattr(options, name) is not None]
    if len(given) != 1:
        hint = "Give one: jobs submit FILE, jobs submit --prompt TEXT, or jobs submit --prompts FILE.csv."
        raise InputError(f"{'Nothing' if not given else ' and '.join(given).capitalize()} is given to submit.", hint)
    if not 1 <= options.seeds <= 10_000:
        raise InputError(f"--seeds is {options.seeds}, but must be 1 to 10 000.", "Use 1.")
    values = dict(_pair(text) for text in options.values)
    if values and options.file:
        raise InputError("--set is for templates, and a workflow is given.", "Change the workflow itself.")
    more = {"owner": options.owner, "title": options.title, "tags": tuple(options.tags), "front": options.front, "webhook": options.webhook}
    taken = {name: getattr(options, name) for name in ("file", "prompts", "prompt", "seeds", "template")}
    return SubmitCommand(store, options.is_json, values=values, more=more, allows_private_webhooks=allows_private, **taken)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set has {text!r}, which is not FIELD=VALUE.", "Write it as --set frames=14.")
    return name, value
