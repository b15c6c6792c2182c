"""The page that Gradio serves first, before its script runs, has Gradio's name, pictures and manifest in it, at addresses that belong
to others where a proxy shows us under a path. Here it is ours."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.door import path_below

_FOREIGN = re.compile(r'\s*<(?:meta\s+(?:property|name)="(?:og|twitter):|link rel="manifest")[^>]*>')
_OWN = """<link rel="icon" href="page/icon.svg"><meta name="description" content="Stillmotion: type a sentence, get a film.">
"""


class OwnHead:
    """Wraps an app whose pages Gradio makes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_first = scope["type"] == "http" and scope["method"] == "GET" and path_below(scope) == "/"
        await self.app(scope, receive, _Rewriting(send) if is_first else send)


class _Rewriting:
    """Holds the beginning of an answer back until its body is whole, if it is HTML."""

    def __init__(self, send: Send) -> None:
        self.send, self.start, self.body = send, None, b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_html(message):
            self.start = message
        elif self.start is None:
            await self.send(message)
        else:
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_whole()

    async def _send_whole(self) -> None:
        body = own_head(self.body.decode()).encode()
        headers = [(name, value) for name, value in self.start["headers"] if name.lower() != b"content-length"]
        await self.send(self.start | {"headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self.send({"type": "http.response.body", "body": body})


def _is_html(message: Message) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in message["headers"])


def own_head(page: str) -> str:
    """The same page without what names Gradio and its addresses, and with our icon."""
    return _FOREIGN.sub("", page).replace("</head>", f"{_OWN}</head>", 1)
