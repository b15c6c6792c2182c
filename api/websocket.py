"""`/ws`: who listens, and that one who does not read delays nobody else.

What happens is translated once, in the thread in which it happens, and handed to the loop of each socket. A socket that falls behind
loses what is out of date anyway: old progress, old previews.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import uuid
from collections import deque

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from api.comfy_context import ComfyContext, user_of
from api.comfy_events import Events, Message
from jobs.job import JobStatus
from jobs.progress import JobEvent

log = logging.getLogger(__name__)

_BEHIND = 200  # messages that wait; from here on old progress is dropped
_LOST = 5000  # from here on the socket is
_STALLED = 1008
_CLOSING_SECONDS = 1.0


class Sockets:
    """All of one server. Safe to be told of events in any thread."""

    def __init__(self, context: ComfyContext) -> None:
        self.context = context
        self._lock = threading.Lock()
        self._sockets: set[_Socket] = set()
        self._events = Events(_open_jobs(context), context.board.clock)
        context.board.subscribe(self._pass_on)

    async def serve(self, websocket: WebSocket) -> None:
        """One socket, until either side has enough."""
        client = websocket.query_params.get("clientId") or uuid.uuid4().hex
        await websocket.accept()
        socket = _Socket(websocket, user_of(websocket).name, client, self.context)
        with self._lock:  # so that it misses nothing and hears nothing twice
            node = self._events.current(socket.owner, client)
            socket.append(self._events.status(sid=client))
            if node is not None:
                socket.append(Message("executing", {"node": node}))
            self._sockets.add(socket)
        try:
            await socket.run()
        finally:
            with self._lock:
                self._sockets.discard(socket)

    def _pass_on(self, event: JobEvent) -> None:
        with self._lock:
            for message in self._events.messages(event):
                for socket in self._sockets:
                    if message.is_for(socket.owner, socket.client):
                        socket.put(message)


class _Socket:
    def __init__(self, websocket: WebSocket, owner: str, client: str, context: ComfyContext) -> None:
        self.websocket, self.owner, self.client, self.context = websocket, owner, client, context
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        self._waiting: deque[Message] = deque()
        self._wants_metadata = False

    def put(self, message: Message) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self.append, message)

    def append(self, message: Message) -> None:
        """In the thread of the loop."""
        if len(self._waiting) >= _BEHIND:
            self._waiting = deque(one for one in self._waiting if not one.is_untimely)
        self._waiting.append(message)
        self._changed.set()

    async def run(self) -> None:
        reading, sending = asyncio.ensure_future(self._read()), asyncio.ensure_future(self._send())
        try:
            await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            sending.cancel()
            with anyio.CancelScope(shield=True):
                for ending in await asyncio.gather(reading, sending, return_exceptions=True):
                    if isinstance(ending, Exception) and not isinstance(ending, WebSocketDisconnect | TimeoutError):
                        log.error("A socket was let go after an error in the server.", exc_info=ending)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):  # it is closed already, or does not read even this
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self.websocket.close(_STALLED)

    async def _read(self) -> None:
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._take(message.get("text") or "")

    def _take(self, text: str) -> None:
        """Clients say which features they know. Whatever else they say is ignored."""
        try:
            said = json.loads(text)
            flags = said["data"] if said["type"] == "feature_flags" else None
            self._wants_metadata = bool(flags["supports_preview_metadata"]) if "supports_preview_metadata" in flags else False
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            return
        self.append(Message("feature_flags", self.context.features))

    async def _send(self) -> None:
        """Ends with TimeoutError if nobody reads, or when far too much waits."""
        while len(self._waiting) < _LOST:
            self._changed.clear()
            while self._waiting and len(self._waiting) < _LOST:
                async with asyncio.timeout(self.context.stall_seconds):
                    await self._send_one(self._waiting.popleft())
            if not self._waiting:
                await self._changed.wait()

    async def _send_one(self, message: Message) -> None:
        if message.image:
            await self.websocket.send_bytes(message.described if self._wants_metadata else message.plain)
        else:
            await self.websocket.send_text(message.text)


def _open_jobs(context: ComfyContext) -> list[str]:
    found, cursor = [], None
    while True:
        page = context.store.list_jobs(status=(JobStatus.QUEUED, JobStatus.RUNNING), cursor=cursor, limit=1000)
        found += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return found
