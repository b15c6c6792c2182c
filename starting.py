"""The server and the worker: all their parts, put together, begun and ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NoReturn

import settings
from errors import Canceled, InputError, StorageError
from server_options import ServeCommand, WorkCommand
from terminal import log_for_servers, say

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

    from api.access_settings import AccessSettings, Credentials
    from api.job_context import JobApi
    from jobs.afar import Afar
    from jobs.lent import Lent
    from jobs.service import Service
    from workflows.declare import Catalog


def serve(command: ServeCommand) -> int:
    settings.quiet_environment(command.store.data_dir)
    log_for_servers()
    from api.access_settings import entry_address, startup_credentials
    from api.comfy import comfy_routes
    from api.downloads import Downloads
    from api.metrics import Metrics
    from api.queue_jobs import QueueJobs
    from api.server import ServerParts, comfy_context, job_api, make_server_app
    from api.serving import Server, address_of, listen
    from jobs.service import Service
    from workflows.plugins import all_nodes

    # 1. Everything is made before anything is begun, so that what is wrong is said at once.
    catalog = all_nodes(command.store.data_dir, command.has_custom_nodes)
    apart = command.everybody_is_apart
    credentials = startup_credentials(command.host, command.token, command.users, command.no_auth, are_apart=apart)
    with (
        closing(listen(command.host, command.port)) as bound,
        closing(Service(command.store, command.work, catalog, executor=executor(command, catalog))) as service,
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


def executor(command: ServeCommand | WorkCommand, catalog: Catalog) -> Afar | Lent | None:
    """Who does the jobs, if not this process. Raises InputError where the library for it is not installed."""
    data_dir, work = command.store.data_dir.absolute(), command.work
    if work.cluster is None:
        return lent(command, catalog) if work.has_lent_gpu else None
    settings.ray_environment(data_dir / "ray.token", is_local=not work.cluster.address)
    try:
        from jobs.afar import Afar
        from jobs.replica import ReplicaSettings
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError("Replicas need a library that is not here.", "Install it: pip install -r requirements-ray.txt.") from error
    return Afar(ReplicaSettings(data_dir, work.machine, work.cache_bytes, command.has_custom_nodes), work.cluster)


def lent(command: ServeCommand | WorkCommand, catalog: Catalog) -> Lent:
    """On a Space with ZeroGPU. Raises InputError where its library is not installed, or too late."""
    try:
        import spaces  # before PyTorch: it patches it
        from spaces import zero
    except ModuleNotFoundError as error:
        if error.name != "spaces":
            raise
        raise InputError("This Space has ZeroGPU, whose library is not here.", "Add `spaces` to requirements.txt.") from error
    from jobs.lent import Lent
    from jobs.runner import Runner, make_engine

    data_dir, work = command.store.data_dir, command.work
    machine = work.machine
    if machine.attention == "auto":  # measured anew in each process, and there is one for each film
        machine = dataclasses.replace(machine, attention="sdpa")
    runner = Runner(data_dir, catalog, lambda: make_engine(machine, data_dir / "cache", work.cache_bytes))
    return Lent(runner, lambda function, seconds: spaces.GPU(duration=seconds)(function), zero.startup)


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


def work(command: WorkCommand) -> int:
    settings.quiet_environment(command.store.data_dir)
    log_for_servers()
    from jobs.service import Service
    from workflows.plugins import all_nodes

    catalog = all_nodes(command.store.data_dir, command.has_custom_nodes)
    settled = {"executor": executor(command, catalog), "ends_when_empty": command.until_empty}
    with closing(Service(command.store, command.work, catalog, **settled)) as service:
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
