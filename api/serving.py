"""The port, and the process that answers there until it is asked to end.

Asked once, by SIGTERM, SIGINT or SIGHUP, no job is begun any more and the one that runs may finish in the time it is given; meanwhile all
is answered as before, only `/readyz` says that the end is near. Asked twice, it does not wait.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from api.access_settings import SERVER_OPTIONS
from api.origins import is_everywhere
from errors import InputError
from jobs.service import Service

_GRACE_SECONDS = 3  # for answers that are on their way


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises InputError for a host or port that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise InputError(f"{host!r} is no address of this machine.", "Use --listen 127.0.0.1, or --listen for all.") from error
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise InputError(f"Cannot listen at {host} port {port}: {error.strerror}.", "Give another --port; 0 takes a free one.") from error
    return bound


def address_of(bound: socket.socket, root_path: str = "") -> str:
    """Where a browser on this machine finds it."""
    host, port = bound.getsockname()[:2]
    if is_everywhere(host):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{root_path.rstrip('/')}/"


class Server(uvicorn.Server):
    """`on_started` is called once the port answers; what it raises ends the server and comes out of `run`."""

    def __init__(self, app: ASGIApp, service: Service, drain_seconds: float, on_started: Callable[[], None]) -> None:
        options = {"log_config": None, "timeout_graceful_shutdown": _GRACE_SECONDS, **SERVER_OPTIONS}
        super().__init__(uvicorn.Config(app, **options))
        self.service, self.drain_seconds, self.on_started, self._is_asked = service, drain_seconds, on_started, False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        try:
            self.on_started()
        except BaseException:
            await self.lifespan.shutdown()  # or it would be broken off, and say so
            raise

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or (self._is_asked and self.service.is_over)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.service.drain(0 if self._is_asked else self.drain_seconds)
        self._is_asked = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, self.handle_exit)
        super().run(sockets)
