"""A little server that speaks the hub's protocol, and breaks off, refuses or lies when it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@dataclass
class HubServer:
    """`files`: "owner/name/path" to bytes. The bytes come from another origin, as they do at the real one."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers
    break_after: list[int] = field(default_factory=list)  # each answer with bytes takes one, and ends after so many
    gated: set[str] = field(default_factory=set)
    token: str = "hf_right"
    status: int = 0  # instead of everything
    told_sha256: str = ""
    takes_ranges: bool = True
    go: threading.Event = field(default_factory=threading.Event)  # clear it, and bytes wait after the first part
    url: str = ""
    cdn_url: str = ""

    def __post_init__(self) -> None:
        self.go.set()

    def served(self) -> list[str]:
        """Where each answer with bytes began, as the client asked."""
        return [headers.get("Range", "") for method, path, headers in self.asked if method == "GET" and path.startswith("/cdn/")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        hub.asked.append((self.command, self.path, dict(self.headers)))
        self.close_connection = True
        if hub.status:
            return self._say(hub.status)
        if self.path.startswith("/cdn/"):
            return self._bytes(hub.files[self.path.removeprefix("/cdn/")])
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        name = f"{repo}/{rest.partition('/')[2]}"
        if repo in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._say(401 if "Authorization" not in self.headers else 403, {"X-Error-Code": "GatedRepo"})
        if not any(one.startswith(f"{repo}/") for one in hub.files):
            return self._say(401, {"X-Error-Code": "RepoNotFound"})
        if name not in hub.files:
            return self._say(404, {"X-Error-Code": "EntryNotFound"})
        data = hub.files[name]
        sha256 = hub.told_sha256 or hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": COMMIT}
        return self._say(302, linked | {"ETag": '"other"', "Location": f"{hub.cdn_url}/cdn/{name}"})

    def _say(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _bytes(self, data: bytes) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")) if self.hub.takes_ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = start + self.hub.break_after.pop(0) if self.hub.break_after else len(data)
        middle = start + (end - start) // 2
        with contextlib.suppress(OSError):
            self.wfile.write(data[start:middle])
            self.hub.go.wait(10)
            self.wfile.write(data[middle:end])


@contextlib.contextmanager
def hub_server(**given: object) -> Iterator[HubServer]:
    hub = HubServer(**given)
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        for server in servers:
            server.shutdown()
            server.server_close()
