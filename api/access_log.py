"""One line of JSON for each request, and the headers that every answer has.

The line holds no query (a prompt or a token may stand there), no headers and no body.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from starlette.types import Message, Scope, Send

log = logging.getLogger("stillmotion.access")

_PATH_LENGTH = 300


class Record:
    """Sends what is sent through it, remembers how it went, and writes that down in the end."""

    def __init__(self, scope: Scope, send: Send, headers: dict[bytes, bytes]) -> None:
        self._scope, self._send, self._headers = scope, send, headers
        self._began = time.perf_counter()
        self._line = {"method": scope.get("method", "WEBSOCKET"), "path": scope["path"][:_PATH_LENGTH]}
        self.status: int | None = None
        self.error_id = ""

    @property
    def is_started(self) -> bool:
        return self.status is not None

    def add_headers(self, headers: dict[bytes, bytes]) -> None:
        """For this answer only."""
        self._headers = self._headers | headers

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self.status = message["status"]
                message["headers"] = self._with_ours(message.get("headers", []))
            case "websocket.accept":
                self.status = 101
            case "websocket.close" if not self.is_started:
                self.status = 403
        await self._send(message)

    def write(self) -> None:
        """A status of null: the client went away before there was an answer. A user of null: nobody was let in."""
        user, state = self._scope.get("user"), self._scope.get("state") or {}
        ms = round((time.perf_counter() - self._began) * 1000, 1)
        is_somebody = user is not None and (user.name or user.is_admin)
        line: dict[str, Any] = self._line | {"status": self.status, "ms": ms, "user": user.name if is_somebody else None}
        line["client"] = self._scope["client"][0] if self._scope.get("client") else None
        if job_id := state.get("job_id"):
            line["job_id"] = str(job_id)
        if self.error_id:
            line["error_id"] = self.error_id
        log.info("%s", json.dumps(line))

    def _with_ours(self, headers: Any) -> list[tuple[bytes, bytes]]:
        theirs = [one for one in headers if b"set-cookie" not in self._headers or one[0].lower() != b"cache-control"]
        names = {name.lower() for name, _ in theirs} - {b"vary", b"set-cookie"}
        return theirs + [(name, value) for name, value in self._headers.items() if name not in names]


def security_headers(*, may_be_framed: bool) -> dict[bytes, bytes]:
    """What an app sets itself stays. `may_be_framed`: pages of other sites may show ours inside, as Hugging Face Spaces do."""
    always = {b"x-content-type-options": b"nosniff", b"referrer-policy": b"same-origin"}
    return always if may_be_framed else always | {b"x-frame-options": b"SAMEORIGIN"}
