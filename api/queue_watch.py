"""Waiting for a queue: a socket into which entries are pushed, and a request that is answered when there is something."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.websockets import WebSocket, WebSocketDisconnect

from api.dataframes import as_json, frame
from errors import StillmotionError
from jobs.consumers import Consumer, QueueName
from jobs.queue_items import Item, Wanted
from jobs.queues import Queues

log = logging.getLogger(__name__)

_REPLACED = 4000  # closed, since another watcher came with the same name
_STALLED = 4001  # closed, since it did not read
_FAILED = 1011
_REPLACED_SECONDS = 1.0  # before it hears of it: clients come back at once, and two of one name would chase each other
_CLOSING_SECONDS = 1.0


@contextlib.contextmanager
def changes(queues: Queues, queue: QueueName) -> Iterator[asyncio.Event]:
    """An event that is set whenever something happens to the entries of this kind and owner, in whatever thread."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def ring(kind: str, owner: str) -> None:
        if (kind, owner) == (queue.kind, queue.owner):
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(changed.set)

    stop = queues.subscribe(ring)
    try:
        yield changed
    finally:
        stop()


async def read_when_there(
    request: Request, queues: Queues, queue: QueueName, wanted: Wanted, seconds: float, *, is_taken: bool
) -> list[Item]:
    """What `queues.read` gives: at once if all that is wanted is there, or after so many seconds whatever there is.

    Whoever hangs up meanwhile takes nothing away.
    """
    until = asyncio.get_running_loop().time() + seconds
    with changes(queues, queue) as changed:
        left = asyncio.ensure_future(_disconnected(request))
        try:
            while True:
                changed.clear()
                remaining = until - asyncio.get_running_loop().time()
                at_least = 1 if remaining <= 0 else wanted.length
                items = await run_in_threadpool(queues.read, queue, wanted, at_least=at_least, is_taken=is_taken)
                if items or remaining <= 0 or left.done():
                    return items
                await _first_of(left, changed, remaining)
                if left.done():
                    return []
        finally:
            left.cancel()


async def push(socket: WebSocket, queues: Queues, consumer: Consumer, *, is_bare: bool, is_json: bool, stall_seconds: float) -> None:
    """Entries go out until either side has enough. Then what was not committed is free for others."""
    gone = asyncio.ensure_future(_closed(socket))
    pushing = asyncio.ensure_future(_push(socket, queues, consumer, is_bare, is_json, stall_seconds))
    try:
        await asyncio.wait({gone, pushing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        pushing.cancel()
        with anyio.CancelScope(shield=True):
            ending, _ = await asyncio.gather(pushing, gone, return_exceptions=True)
            await run_in_threadpool(queues.detach, consumer)
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):  # it was closed already, or does not read even this
        async with asyncio.timeout(_CLOSING_SECONDS):
            await socket.close(_code(ending))


async def _push(socket: WebSocket, queues: Queues, consumer: Consumer, is_bare: bool, is_json: bool, stall_seconds: float) -> int:
    """Returns the code with which to close."""
    done: list[int] = []
    await run_in_threadpool(queues.attach, consumer)
    try:
        with changes(queues, consumer.queue) as changed:
            while True:
                changed.clear()
                items = await run_in_threadpool(queues.take, consumer, done)
                done = []
                if items is None:
                    await asyncio.sleep(_REPLACED_SECONDS)
                    return _REPLACED
                for item in items:
                    async with asyncio.timeout(stall_seconds):
                        await _send(socket, item, is_bare, is_json)
                    if consumer.is_auto_commit:
                        done.append(item.index)
                if not items:
                    await changed.wait()
    except TimeoutError:
        return _STALLED
    finally:
        if done:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(queues.commit, consumer.queue, consumer.group, done)


def _code(ending: int | BaseException) -> int:
    if isinstance(ending, int):
        return ending
    if isinstance(ending, StillmotionError):
        log.warning("A watcher was let go: %s", ending)
    elif not isinstance(ending, asyncio.CancelledError | WebSocketDisconnect):
        log.error("A watcher was let go after an error in the server.", exc_info=ending)
    return _FAILED


async def _send(socket: WebSocket, item: Item, is_bare: bool, is_json: bool) -> None:
    item = replace(item, data=b"") if is_bare else item
    if is_json:
        await socket.send_text(as_json([item]).decode()[1:-1])
    else:
        await socket.send_bytes(frame(item))


async def _closed(socket: WebSocket) -> None:
    """What a watcher says does not matter, only that it is there."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _first_of(left: asyncio.Future[None], changed: asyncio.Event, seconds: float) -> None:
    ringing = asyncio.ensure_future(changed.wait())
    try:
        await asyncio.wait({left, ringing}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ringing.cancel()
