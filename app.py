"""Stillmotion's command line and composition root: settings -> server, worker or film. `python app.py --help` says what it can do."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NoReturn

import settings
from errors import Canceled, InputError, StillmotionError, StorageError, UnreadableFileError
from job_options import JobsCommand, SubmitCommand, UsageCommand
from model_options import DownloadCommand, ModelsCommand
from run_options import BackupCommand, KeepCommand, ReindexCommand, RestoreCommand, RunCommand, set_inputs
from server_options import ServeCommand, WorkCommand

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import APIRouter, FastAPI

    from api.access_settings import AccessSettings, Credentials
    from api.job_context import JobApi
    from jobs.service import Service
    from pipelines.progress import Progress
    from workflows.declare import Catalog
    from workflows.film import FilmResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. One line on standard error tells what went wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    command = None
    try:
        command = settings.parse(sys.argv[1:] if argv is None else argv)
        for name in ("SIGTERM", "SIGHUP"):  # a polite kill or a closed terminal ends like Ctrl-C: nothing half-written stays
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, signal.default_int_handler)
        match command:
            case settings.ReadCommand():
                return read(command)
            case settings.DoctorCommand():
                return doctor(command)
            case settings.FilmCommand():
                return film(command)
            case RunCommand():
                return run(command)
            case ServeCommand():
                return serve(command)
            case WorkCommand():
                return work(command)
            case _:
                return manage(command)
    except StillmotionError as error:
        print(f"error: {error}", file=sys.stderr)
        if "--json" in (sys.argv[1:] if argv is None else argv):
            say(json.dumps({"error": {"code": error.code, "message": error.message, "hint": error.hint}}))
        return error.exit_code
    except KeyboardInterrupt:
        if isinstance(command, ServeCommand | WorkCommand):
            return 0  # asked to end before it has begun: it ends as it does later
        print("Canceled.", file=sys.stderr)
        return Canceled.exit_code


def say(text: str) -> None:
    """Print to standard output, whatever its encoding. Whoever reads it may have seen enough, as `| head` does."""
    try:
        print(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8"), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise StorageError(f"The output could not be written: {error.strerror}.", "Everything else was done.") from error


def read(command: settings.ReadCommand) -> int:
    from pipelines.metadata import read_settings

    found = read_settings(command.path)
    settings_first = dict(sorted(found.items(), key=lambda item: item[0] != "stillmotion"))  # the workflow after what people look for
    say(json.dumps(settings_first, indent=2, ensure_ascii=not is_utf8()))
    return 0


def is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def doctor(command: settings.DoctorCommand) -> int:
    settings.quiet_environment()
    from pipelines.doctor import examine

    findings = []
    for finding in examine(command.data_dir):
        findings.append(finding)
        mark = {"ok": "ok", "note": "--", "bad": "BAD"}[finding.level]
        say(f"{mark:<4} {finding.subject}: {finding.found}" + (f"\n     {finding.advice}" if finding.advice else ""))
    if command.is_json:
        say(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    return InputError.exit_code if any(finding.level == "bad" for finding in findings) else 0


def film(command: settings.FilmCommand) -> int:
    began = time.monotonic()
    settings.quiet_environment()
    from workflows.cache import Cache
    from workflows.film import Film, make_film

    made = Film(command.still, command.motion, command.file, command.image)
    with ProgressBar(is_shown=not command.is_quiet and sys.stderr is not None) as bar:
        cache = Cache(command.data_dir / "cache", memory_bytes=0)
        result = make_film(made, command.data_dir, command.machine, report=bar.report, cache=cache)
    if command.is_json:
        say(json.dumps(result.document()))
    else:
        say(summary(result, time.monotonic() - began))
    return 0


def summary(result: FilmResult, total_seconds: float) -> str:
    """What a person wants to know: where the files are, the seeds, the time each stage took."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    lines = [f"{kind.upper() if kind != 'settings' else 'JSON':<5} {path}" for kind, path in result.files.items()]
    lines += [f"seed  {', '.join(f'{stage} {seed}' for stage, seed in result.seeds.items())}"]
    lines += [f"note  {note}" for note in result.notes]
    lines += [f"time  {stages}; with the start {total_seconds:.1f} s, on {result.placement['device']}"]
    return "\n".join(lines)


def run(command: RunCommand) -> int:
    began = time.monotonic()
    settings.quiet_environment()
    from pipelines.progress import Progress
    from workflows.advice import advice
    from workflows.cache import Cache
    from workflows.folders import Folders
    from workflows.graph import Workflow
    from workflows.run import Engine

    folders = Folders(command.data_dir)
    workflow = Workflow.parse(graph_of(command), nodes(command.data_dir, command.has_custom_nodes), folders)
    for entry in workflow.node_errors.values():
        for error in entry["errors"]:
            print(f"left out: {entry['class_type']}: {error['message']}: {error['details']}", file=sys.stderr)
    for line in advice(workflow, folders):
        print(f"note: {line}", file=sys.stderr)
    engine = Engine(command.machine, cache=Cache(command.data_dir / "cache", memory_bytes=0))
    with ProgressBar(is_shown=not command.is_quiet and sys.stderr is not None) as bar:
        tell = lambda event: bar.report(event) if isinstance(event, Progress) else None  # noqa: E731
        done = engine.execute(workflow, folders, tell=tell, keeps_metadata=keeps_metadata(command))
    files = {node: [str(path) for path in paths] for node, paths in done.files.items()}
    if command.is_json:
        told = {"outputs": done.outputs, "files": files, "cached": done.cached, "seconds": done.seconds, "notes": done.notes}
        say(json.dumps(told | done.placement))
    else:
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in done.seconds.items())
        lines = [f"{workflow.nodes[node].node_class.name} {path}" for node, paths in files.items() for path in paths]
        lines += [f"note  {note}" for note in done.notes]
        lines += [f"known {', '.join(done.cached)}"] if done.cached else []
        say("\n".join([*lines, f"time  {stages}; with the start {time.monotonic() - began:.1f} s"]))
    return 0


def keeps_metadata(command: RunCommand) -> bool:
    from workflows.templates import extra_of, find_template

    return not command.template or not extra_of(find_template(command.template, command.data_dir), command.values)


def graph_of(command: RunCommand) -> dict[str, object]:
    """The workflow that is asked for, with its values set."""
    from workflows.graph import bare_graph, read_json
    from workflows.templates import check_said, fill, find_template

    if command.template:
        template = find_template(command.template, command.data_dir)
        graph = fill(template, command.values, is_draft=command.is_draft)
        check_said(template, graph)
        return graph
    try:
        text = command.workflow.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{command.workflow} cannot be read: {error.strerror or error}.", "Check the path.") from error
    return set_inputs(bare_graph(read_json(text, str(command.workflow))), command.values)


def serve(command: ServeCommand) -> int:
    settings.quiet_environment()
    log_for_servers()
    from api.access_settings import entry_address, startup_credentials
    from api.comfy import comfy_routes
    from api.downloads import Downloads
    from api.metrics import Metrics
    from api.queue_jobs import QueueJobs
    from api.server import ServerParts, comfy_context, job_api, make_server_app
    from api.serving import Server, address_of, listen
    from jobs.service import Service

    # 1. Everything is made before anything is begun, so that what is wrong is said at once.
    apart = command.everybody_is_apart
    credentials = startup_credentials(command.host, command.token, command.users, command.no_auth, are_apart=apart)
    with (
        closing(listen(command.host, command.port)) as bound,
        closing(Service(command.store, command.work, nodes(command.store.data_dir, command.has_custom_nodes))) as service,
        closing(QueueJobs(service)) as queue_jobs,
        closing(Downloads(command.store.data_dir / "models", command.hub)) as downloads,
    ):
        access = access_settings(command, credentials)
        jobs = job_api(service)
        protocols = [comfy_routes(comfy_context(service, settings.VERSION)), *(mcp(jobs) if command.has_mcp else ())]
        add_page = page_of(jobs) if command.has_page else None
        parts = ServerParts(
            service, queue_jobs, Metrics(service), access, settings.VERSION, downloads, protocols, add_page, command.notices
        )  # fmt: skip
        app = make_server_app(parts)

        # 2. Answer first, then work.
        def begin() -> None:
            service.start()
            queue_jobs.start()
            downloads.start()
            address = address_of(bound, command.root_path)
            say(f"Stillmotion is at {entry_address(address, credentials.token) if credentials.is_made else address}")

        Server(app, service, command.drain_seconds, begin).run(sockets=[bound])
    return 1 if service.failure else 0


def page_of(jobs: JobApi) -> Callable[[FastAPI], None]:
    def add_page(app: FastAPI) -> None:
        from ui import page  # takes seconds, while the server answers already

        page.add_page(app, jobs)

    return add_page


def mcp(jobs: JobApi) -> list[APIRouter]:
    """Raises InputError where its library is not installed."""
    try:
        from api.mcp_tools import mcp_routes
    except ModuleNotFoundError as error:
        if error.name != "mcp":
            raise
        raise InputError("MCP needs a library that is not here.", "Install it: pip install -r requirements-mcp.txt.") from error
    return [mcp_routes(jobs, settings.VERSION)]


def access_settings(command: ServeCommand, credentials: Credentials) -> AccessSettings:
    from api.access_settings import AccessSettings
    from api.server import BODY_LIMITS

    same = ("no_auth", "allowed_hosts", "allowed_origins", "trusted_proxies", "root_path", "may_be_framed")
    everybody = ("everybody_is_admin", "everybody_is_apart")
    return AccessSettings(
        command.host, credentials.token, credentials.users_path, key_path=command.store.data_dir / "session.key", body_limits=BODY_LIMITS,
        **{name: getattr(command, name) for name in (*same, *everybody)},
    )  # fmt: skip


def nodes(data_dir: Path, has_custom_nodes: bool) -> Catalog:
    """Ours, and people's own if they are asked for."""
    from workflows.nodes import catalog
    from workflows.plugins import with_plugins

    if not has_custom_nodes:
        return catalog()
    found, problems = with_plugins(catalog(), data_dir / "custom_nodes")
    for problem in problems:
        logging.getLogger("stillmotion").warning("custom node %s", problem)
    return found


def work(command: WorkCommand) -> int:
    settings.quiet_environment()
    log_for_servers()
    from jobs.service import Service

    catalog = nodes(command.store.data_dir, command.has_custom_nodes)
    with closing(Service(command.store, command.work, catalog, ends_when_empty=command.until_empty)) as service:
        asked = []

        def end(*_: object) -> None:
            if asked:
                give_up(service, Canceled.exit_code)
            asked.append(True)
            service.drain(command.drain_seconds)
            if service.worker.running:
                print(f"Ending within {command.drain_seconds:g} seconds; once more ends at once.", file=sys.stderr)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, end)
        service.start()
        while not service.wait(1.0):
            if service.is_stuck:
                give_up(service, 0)
        if command.until_empty and service.store.is_paused:
            print("note: the queue is paused, so jobs may still wait; `app.py jobs resume` goes on.", file=sys.stderr)
    return 1 if service.failure else 0


def give_up(service: Service, code: int) -> NoReturn:
    """End at once; what runs waits again. If that cannot be written, the next start finds it, as after a crash."""
    with suppress(StorageError):
        service.give_up()
    sys.stderr.flush()
    os._exit(code)  # no thread that is busy with PyTorch can hold us


def manage(command: settings.Command) -> int:
    """Jobs, usage, users and models: done and said at once, or with a bar."""
    import commands

    match command:
        case JobsCommand():
            say(commands.jobs(command))
        case SubmitCommand():
            say(commands.submit(command))
        case UsageCommand():
            say(commands.usage(command))
        case KeepCommand():
            say(commands.keep(command))
        case ReindexCommand():
            say(commands.reindex(command))
        case BackupCommand():
            say(commands.backup(command))
        case RestoreCommand():
            say(commands.restored(command))
        case ModelsCommand():
            say(commands.models(command))
        case DownloadCommand():
            say(commands.download(command))
        case _:
            say(commands.user(command, password))
    return 0


def password() -> str:
    """Asked for twice at a terminal; otherwise the first line of standard input. Raises InputError."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    import getpass

    first = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != first:
        raise InputError("The two passwords differ.", "Try again.")
    return first


def log_for_servers() -> None:
    """What happens, with the time; the access log's lines, which are JSON, as they are."""
    logging.getLogger("stillmotion").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(ServerFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


class ServerFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if text.startswith('{"method"') else super().format(record)


class ProgressBar:
    """One bar a stage, on standard error: stage, k/n and the time left."""

    def __init__(self, *, is_shown: bool) -> None:
        self.is_shown, self.stage, self.bar = is_shown, "", None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._finish()
        elif self.bar is not None:
            self.bar.close()

    def report(self, progress: Progress) -> None:
        if not self.is_shown:
            return
        from tqdm import tqdm

        if progress.stage != self.stage:
            self._finish()
            form = "{desc:<9}{bar:24} {n_fmt}/{total_fmt}  {elapsed} gone, {remaining} left"
            self.bar = tqdm(total=progress.total, desc=progress.stage, bar_format=form, file=sys.stderr)
            self.stage = progress.stage
        self.bar.update(progress.step - self.bar.n)

    def _finish(self) -> None:
        """The next stage has begun: what this one was doing is done."""
        if self.bar is not None:
            self.bar.update(min(1, self.bar.total - self.bar.n))
            self.bar.close()


if __name__ == "__main__":
    sys.exit(main())
