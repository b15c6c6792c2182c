"""Which names this server answers to, and which pages may write to it.

A page of another site can make a browser on this machine ask us for anything: over a name of its own that it points at 127.0.0.1 (DNS
rebinding: then the Host is foreign), or from afar (then the Origin is foreign). Listening on loopback alone stops neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from api.forwarded import plain_address
from api.refusals import ForbiddenHost, ForbiddenOrigin
from errors import InputError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s/?#@\\\[\]:,]+)(?::(\d{1,5}))?")
_USUAL_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class HostRule:
    """Names in full, or with their beginning left open: ".example.com", which is example.com too."""

    names: frozenset[str]
    endings: tuple[str, ...] = ()
    takes_addresses: bool = False
    takes_all: bool = False

    @classmethod
    def of(cls, listen_host: str, allowed: Iterable[str], *, has_credentials: bool) -> HostRule:
        """Without credentials only the names that are known; beyond loopback also bare addresses, which cannot be rebound.

        With credentials and no list all are taken: a cookie belongs to one name, so a foreign one gets nothing. Raises InputError.
        """
        allowed = list(allowed)
        names = {_name(host) for host in allowed if host != "*" and not host.startswith(".")} | {"localhost", "::1"}
        endings = tuple(f".{_name(host[1:])}" for host in allowed if host.startswith("."))
        if not is_everywhere(listen_host):
            names.add(_name(listen_host))
        is_free = "*" in allowed or (has_credentials and not allowed)
        return cls(frozenset(names), endings, not allowed and not is_loopback(listen_host), is_free)

    def check(self, host: str) -> None:
        """Raises ForbiddenHost. The port does not matter."""
        if self.takes_all:
            return
        try:
            name, _ = split_host(host)
        except ValueError:
            raise ForbiddenHost(f"The Host {host[:100]!r} is no name.") from None
        is_known = name in self.names or is_loopback(name) or f".{name}".endswith(self.endings)
        if not is_known and not (self.takes_addresses and _is_address(name)):
            hint = f"If it should, start it with --allowed-hosts {name[:100]}."
            raise ForbiddenHost(f"This server does not answer to the name {name[:100]!r}.", hint)


@dataclass(frozen=True)
class OriginRule:
    """`allowed`: origins such as https://films.example.com, "null", or "*"."""

    allowed: frozenset[str]

    @classmethod
    def of(cls, allowed: Iterable[str]) -> OriginRule:
        """Raises InputError for what is no origin."""
        return cls(frozenset(origin if origin in ("*", "null") else _origin(origin) for origin in allowed))

    def allows(self, origin: str) -> bool:
        try:
            return "*" in self.allowed or (origin if origin == "null" else _origin(origin)) in self.allowed
        except InputError:
            return False

    def check(self, origin: str, host: str, scheme: str) -> None:
        """Raises ForbiddenOrigin for a page of another host or port. "null" is not judged here: see `check_null`."""
        if origin == "null" or self.allows(origin):
            return
        hint = f"If that page may, start the server with --allowed-origins {origin[:100]}; a proxy in between must pass on the Host."
        try:
            is_same = same_place(origin, host, scheme)
        except (ValueError, InputError):
            is_same = False
        if not is_same:
            raise ForbiddenOrigin(f"A page of {origin[:100]!r} may not do that here.", hint)

    def check_null(self) -> None:
        """A page that hides where it is from may write only with credentials that it names itself."""
        if not self.allows("null"):
            raise ForbiddenOrigin("A page without an origin may not do that here.", "Send the token in the Authorization header.")


def same_place(origin: str, host: str, scheme: str) -> bool:
    """Whether the page was loaded from here. The Host's usual port is that of the origin: a proxy may not say that it speaks https."""
    page = urlsplit(_origin(origin))
    name, port = split_host(host)
    usual = _USUAL_PORTS[page.scheme]
    is_downgrade = scheme == "https" and page.scheme == "http"
    return (_name(page.netloc), page.port or usual) == (name, port or usual) and not is_downgrade


def split_host(text: str) -> tuple[str, int | None]:
    """`name[:port]` in small letters, an address without brackets; raises ValueError."""
    match = _HOST.fullmatch(text.strip())
    if not match or int(match[2] or 0) > 65535 or not match[1].strip("."):
        raise ValueError(text)
    name = match[1].lower().rstrip(".")
    return str(plain_address(name)) if name.startswith("[") else name, int(match[2]) if match[2] else None


def is_loopback(host: str) -> bool:
    try:
        return plain_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def is_everywhere(host: str) -> bool:
    try:
        return plain_address(host).is_unspecified
    except ValueError:
        return host == ""


def _is_address(name: str) -> bool:
    try:
        plain_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    text = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
    try:
        name, _ = split_host(text)
        return name if name.isascii() else name.encode("idna").decode()
    except ValueError as error:  # UnicodeError is one
        raise InputError(f"{host!r} is no host name.", "Use one such as films.example.com.") from error


def _origin(text: str) -> str:
    """In one spelling: small letters, without the usual port. Raises InputError."""
    try:
        parts = urlsplit(text)
        name, port = _name(parts.netloc), parts.port
        if parts.scheme not in _USUAL_PORTS or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("more than an origin, or less")
    except (ValueError, InputError) as error:
        raise InputError(f"{text[:100]!r} is no origin.", "Use one such as https://films.example.com.") from error
    shown = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{shown}" + (f":{port}" if port and port != _USUAL_PORTS[parts.scheme] else "")
