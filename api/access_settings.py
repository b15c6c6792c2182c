"""What the door is told at the start, and that nobody opens it to everybody by accident."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from api.origins import is_loopback
from errors import InputError

log = logging.getLogger("stillmotion.access")

# for uvicorn: its own log would show paths with their queries, and its own reading of X-Forwarded-For would hide the proxy from us
SERVER_OPTIONS = MappingProxyType({"proxy_headers": False, "access_log": False, "server_header": False})


@dataclass(frozen=True)
class AccessSettings:
    """key_path: where the key of the cookies is kept; without it everybody has to sign in again after a restart.
    allowed_hosts: names, ".example.com" with all below it, or "*". allowed_origins: such as https://example.com, "null", or "*".
    trusted_proxies: addresses and networks whose X-Forwarded-* is believed, or "*". root_path: the path under which a proxy shows us.
    body_limits: beginnings of paths, and how much may be sent there instead of body_limit_bytes.
    may_be_framed: pages of other sites may show ours inside. everybody_is_admin: without token and users, whoever comes may also do what
    concerns all, such as fetch models. everybody_is_apart: without token and users, each browser is a user of its own."""

    listen_host: str = "127.0.0.1"
    token: str = ""
    users_path: Path | None = None
    no_auth: bool = False
    key_path: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1")
    root_path: str = ""
    body_limit_bytes: int = 64 * 2**20
    body_limits: Mapping[str, int] = field(default_factory=dict)
    may_be_framed: bool = False
    everybody_is_admin: bool = True
    everybody_is_apart: bool = False

    @property
    def has_credentials(self) -> bool:
        return bool(self.token) or self.users_path is not None

    def check(self) -> None:
        """Raises InputError for settings that contradict each other or would let in everybody."""
        if startup_credentials(self.listen_host, self.token, self.users_path, self.no_auth, are_apart=self.everybody_is_apart).is_made:
            hint = "Give a token or a file of users, or say no_auth."
            raise InputError(f"Whoever can reach {self.listen_host!r} could use this server.", hint)

    def body_limit(self, path: str) -> int:
        """The longest beginning that fits counts."""
        fitting = [start for start in self.body_limits if path.startswith(start)]
        return self.body_limits[max(fitting, key=len)] if fitting else self.body_limit_bytes


@dataclass(frozen=True)
class Credentials:
    """What a server starts with. `is_made`: the token was made here, and whoever started the server has to be told."""

    token: str = ""
    users_path: Path | None = None
    is_made: bool = False


def startup_credentials(
    listen_host: str, token: str = "", users_path: Path | None = None, no_auth: bool = False, *, are_apart: bool = False
) -> Credentials:
    """Nobody beyond this machine is served without credentials, unless `no_auth` says so; raises InputError for contradictions."""
    given = [name for name, value in (("--token", token), ("--users", users_path), ("--no-auth", no_auth)) if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} contradict each other.", "Give one of them.")
    if token and (token != token.strip() or not token.isprintable()):
        raise InputError("The token has spaces around it, or invisible characters.", "Use letters and digits.")
    if token or users_path or is_loopback(listen_host):
        return Credentials(token, users_path)
    if no_auth:
        where = f"can reach {listen_host}" if listen_host else "can reach this machine"
        what = "use this server, each browser for itself" if are_apart else "use this server, see all films and stop all jobs"
        log.warning("everybody who %s may %s (--no-auth)", where, what)
        return Credentials()
    return Credentials(secrets.token_urlsafe(24), is_made=True)


def entry_address(address: str, token: str) -> str:
    """The address to print: it signs a browser in."""
    return f"{address.rstrip('/')}/?token={quote(token, safe='')}"
