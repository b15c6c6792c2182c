"""What a proxy in front says about the client: believed only if the proxy is trusted, and taken away if it is not.

A trusted proxy may say X-Forwarded-For, -Proto, -Host and -Prefix. Behind it, `scope` looks as if there were none: client, scheme, Host and
root_path are those of the browser. uvicorn must leave this to us: `proxy_headers=False`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from errors import InputError

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class TrustedProxies:
    """Addresses and networks, or "*" for everybody."""

    def __init__(self, names: Iterable[str]) -> None:
        """Raises InputError for what is no address."""
        names = list(names)
        self.is_everybody = "*" in names
        self._networks = [_network(name) for name in names if name != "*"]

    def __contains__(self, address: str) -> bool:
        try:
            found = plain_address(address)
        except ValueError:
            return self.is_everybody
        return self.is_everybody or any(found in network for network in self._networks)

    def client(self, peer: str, forwarded_for: str) -> str:
        """Each proxy puts at the end whom it saw. So read from the end, until one who is not trusted."""
        found = peer
        for text in reversed(forwarded_for.split(",")):
            try:
                found = str(plain_address(text.strip()))
            except ValueError:
                break
            if found not in self:
                break
        return found


def apply_forwarded(scope: dict[str, Any], proxies: TrustedProxies, root_path: str = "") -> str:
    """Rewrites `scope`, and returns the Host that the proxy itself was asked with ("" if it does not say).

    `root_path`, where it is given, counts more than X-Forwarded-Prefix.
    """
    peer = scope["client"][0] if scope.get("client") else "127.0.0.1"  # a Unix socket has no address
    said = {"for": "", "proto": "", "host": "", "prefix": ""}
    if peer in proxies:
        for key in said:
            said[key] = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-" + key.encode()).decode("latin-1")
    else:
        scope["headers"] = [(name, value) for name, value in scope["headers"] if not name.startswith((b"x-forwarded-", b"forwarded"))]
    _set_client(scope, peer, proxies, said["for"])
    _set_scheme(scope, _first(said["proto"]).lower())
    _set_root(scope, root_path or _valid_prefix(_first(said["prefix"])))
    return _first(said["host"])


def plain_address(text: str) -> Any:
    """An address, perhaps in brackets or with a port; raises ValueError."""
    if match := re.fullmatch(r"\[([^\]]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+", text):
        text = match[1] or match[2]
    found = ip_address(text.partition("%")[0])
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def checked_root_path(text: str) -> str:
    """Without the slash at the end; raises InputError for what is no path."""
    text = text.rstrip("/")
    if text and not _valid_prefix(text):
        raise InputError(f"{text!r} is no path to be reached under.", "Use one such as /films.")
    return text


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name.strip("[]"), strict=False)
    except ValueError as error:
        raise InputError(f"{name!r} is no address of a proxy.", "Use one such as 10.0.0.7 or 10.0.0.0/8.") from error


def _set_client(scope: dict[str, Any], peer: str, proxies: TrustedProxies, forwarded_for: str) -> None:
    client = proxies.client(peer, forwarded_for) if forwarded_for else peer
    port = scope["client"][1] if scope.get("client") and client == peer else 0
    scope["client"] = (client, port)


def _set_scheme(scope: dict[str, Any], proto: str) -> None:
    if proto in _SCHEMES:
        scheme = _SCHEMES[proto]
        scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme


def _set_root(scope: dict[str, Any], root: str) -> None:
    """Whether or not the proxy took the prefix away: from here on `path` has it, as ASGI says."""
    if not root:
        return
    scope["root_path"] = root
    if scope["path"] != root and not scope["path"].startswith(root + "/"):
        scope["path"] = root + scope["path"]
        if scope.get("raw_path"):
            scope["raw_path"] = root.encode() + scope["raw_path"]


def _valid_prefix(text: str) -> str:
    text = text.rstrip("/")
    return text if _PREFIX.fullmatch(text) and "/../" not in f"{text}/" and "/./" not in f"{text}/" else ""


def _first(text: str) -> str:
    return text.partition(",")[0].strip()
