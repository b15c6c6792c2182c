"""One POST to an address that somebody else has named: never to this machine or its network, never further than that address.

The name is looked up once and the addresses found are checked; one of these very addresses is connected to, so a name that means something
else a moment later changes nothing. Redirects are not followed, proxies of the environment not used, the answer's body not read.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from errors import InputError

_PORTS = {"http": 80, "https": 443}
_MOST_CHARACTERS = 2000
_NAT64 = IPv6Network("64:ff9b::/96")
_PUBLIC_HINT = "Use a public one; `--webhook-private` allows others."


def check_url(url: object, *, allows_private: bool = False) -> SplitResult:
    """Its parts. A name is not looked up here. Raises InputError for what is no http address, or one of this machine or its network."""
    hint = "Use one such as https://films.example.com/done."
    is_plain = isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url and len(url) <= _MOST_CHARACTERS
    if not is_plain:
        raise InputError(f"The webhook {str(url)[:100]!r} is no address.", hint)
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in _PORTS and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
    if not is_whole:
        raise InputError(f"The webhook {url[:100]!r} is no http or https address.", hint)
    if "@" in parts.netloc:
        raise InputError("The webhook has a name or password in its address.", "It would be stored and shown; leave it out.")
    with suppress(ValueError):  # a name
        if not allows_private and not is_public(parts.hostname):
            raise InputError(f"The webhook {parts.hostname} is an address of this machine or its network.", _PUBLIC_HINT)
    return parts


def post(url: str, body: bytes, headers: Mapping[str, str], *, allows_private: bool = False, seconds: float = 10.0) -> int:
    """The status of the answer. All of it takes a few times `seconds` at most.

    Raises InputError for an address that is not allowed; OSError or HTTPException if nobody answers, or nothing that is HTTP."""
    parts = check_url(url, allows_private=allows_private)
    port = parts.port or _PORTS[parts.scheme]
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=seconds)
    connection.sock = _connect(parts.hostname, port, seconds, allows_private=allows_private)
    deadline = threading.Timer(seconds, _break_off, [connection])
    deadline.daemon = True
    deadline.start()
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname, do_handshake_on_connect=False)
            connection.sock.do_handshake()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {**headers, "Host": parts.netloc, "Connection": "close"})
        response = connection.getresponse()
        response.close()
        return response.status
    finally:
        deadline.cancel()
        connection.close()


def is_public(text: str) -> bool:
    """Whether anybody in the world can have this address. Raises ValueError for what is none."""
    address = ip_address(text.partition("%")[0])
    inner = list(_carried(address)) if isinstance(address, IPv6Address) else []
    if inner:
        return all(is_public(str(one)) for one in inner)
    return address.is_global and not address.is_multicast


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses to which an IPv6 address leads in truth."""
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _connect(host: str, port: int, seconds: float, *, allows_private: bool) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    allowed = [one for one in found if allows_private or is_public(one[4][0])]
    if not allowed:
        raise InputError(f"The webhook {host} leads to an address of this machine or its network.", _PUBLIC_HINT)
    problem: OSError | None = None
    for family, kind, protocol, _, address in allowed[:4]:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(seconds)
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            problem = error
    raise problem or OSError(f"{host} has no address")


def _break_off(connection: http.client.HTTPConnection) -> None:
    """An answer that comes letter by letter would take for ever."""
    with suppress(OSError, AttributeError):  # it is over already
        socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
