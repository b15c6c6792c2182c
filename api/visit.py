"""One request or WebSocket as the browser meant it, whatever proxies are in between."""

from __future__ import annotations

from functools import cached_property
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import HTTPConnection
from starlette.types import Scope

from api.forwarded import TrustedProxies, apply_forwarded
from api.limits import check_headers
from api.refusals import BadRequest

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ONLY_ONCE = ("host", "origin", "authorization", "content-length")


class Visit:
    """Looks at `scope`, and mends it in place: the token leaves the query before anybody can write it down, and the client, Host,
    scheme and path are those that the browser knows."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        scope.setdefault("root_path", "")
        self.token: bytes | None = None
        self.asked_host = ""  # what the proxy was asked for
        self.host = ""  # what we were asked for

    def read(self, proxies: TrustedProxies, root_path: str, *, takes_token: bool) -> None:
        """Raises HeadersTooLarge, or BadRequest for a header that is there twice and must not be."""
        if takes_token and self.method in ("GET", "HEAD", "WEBSOCKET"):
            self.token, self.scope["query_string"] = take_token(self.scope["query_string"])
        check_headers(self.scope["headers"])
        names = [name for name, _ in self.scope["headers"]]
        for name in _ONLY_ONCE:
            if names.count(name.encode()) > 1:
                raise BadRequest(f"The header {name.title()} is there more than once.", "Send it once.")
        self.host = self.header("host")
        self.asked_host = apply_forwarded(self.scope, proxies, root_path)

    def replace_host(self) -> None:
        others = [(name, value) for name, value in self.scope["headers"] if name != b"host"]
        self.scope["headers"] = [(b"host", self.asked_host.encode("latin-1")), *others]

    def header(self, name: str) -> str:
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == name.encode()), "")

    @property
    def method(self) -> str:
        return "WEBSOCKET" if self.is_websocket else self.scope["method"]

    @property
    def is_websocket(self) -> bool:
        return self.scope["type"] == "websocket"

    @property
    def can_write(self) -> bool:
        return self.is_websocket or self.method in _WRITES

    @property
    def wants_page(self) -> bool:
        return not self.is_websocket and "text/html" in self.header("accept")

    @property
    def client(self) -> str:
        return self.scope["client"][0] if self.scope.get("client") else ""

    @property
    def root(self) -> str:
        return self.scope["root_path"]

    @property
    def path(self) -> str:
        """Without the root path."""
        return self.scope["path"].removeprefix(self.root) or "/"

    @property
    def target(self) -> str:
        """Path and query, as an address has them, without the root path."""
        query = self.scope["query_string"].decode("latin-1")
        return quote(self.path, safe="/:@!$&'()*+,;=~") + (f"?{query}" if query else "")

    @property
    def scheme(self) -> str:
        return {"ws": "http", "wss": "https"}.get(self.scope.get("scheme", "http"), self.scope.get("scheme", "http"))

    @cached_property
    def cookies(self) -> dict[str, str]:
        return HTTPConnection(self.scope).cookies


def take_token(query: bytes) -> tuple[bytes | None, bytes]:
    """The value of `token` in a query string, and the query string without it; all else stays as it was, byte for byte."""
    token, others = None, []
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if unquote_to_bytes(key) == b"token":
            token = unquote_to_bytes(value.replace(b"+", b" "))
        else:
            others.append(part)
    return token, b"&".join(others)
