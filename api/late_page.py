"""The page takes seconds to make, since Gradio is large: the server answers before, and says so where the page will be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

log = logging.getLogger("stillmotion.page")

_WAIT_SECONDS = 120.0
_STARTING = """<!doctype html><html lang="en"><meta charset="utf-8"><noscript><meta http-equiv="refresh" content="1"></noscript>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<meta name="color-scheme" content="light dark"><title>Stillmotion</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0 }</style>
<body><p>Starting… 正在启动…</p><script>const again = () => location.reload();
fetch(location, { headers: { Accept: "*/*" }, cache: "no-store" }).then(again, () => setTimeout(again, 1000))</script></body></html>"""


class LatePage:
    """An ASGI app: what `make` makes, in a thread, as soon as the server runs. Until then a browser is shown that, and waits
    behind it as programs do."""

    def __init__(self, make: Callable[[], FastAPI]) -> None:
        self._make = make
        self._page: FastAPI | None = None
        self._is_made, self._is_over = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Of the app that it belongs to."""
        task = asyncio.create_task(self._live())
        try:
            yield
        finally:
            self._is_over.set()
            await task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_made.is_set():
            if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and "text/html" in Request(scope).headers.get("accept", ""):
                await HTMLResponse(_STARTING, 503, {"Retry-After": "1", "Cache-Control": "no-store"})(scope, receive, send)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_made.wait(), _WAIT_SECONDS)
        if self._page is not None:
            await self._page(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse("The page could not be made; the log of the server says why.", 503)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1011})

    async def _made(self) -> FastAPI:
        """In a loop of its own: without one, Gradio makes several and leaves them open."""
        return self._make()

    async def _live(self) -> None:
        """Made, and kept alive until the server ends."""
        try:
            page = await asyncio.to_thread(asyncio.run, self._made())
            async with page.router.lifespan_context(page):
                self._page = page
                self._is_made.set()
                await self._is_over.wait()
        except Exception:
            log.critical("The page could not be made.", exc_info=True)
            self._is_made.set()
