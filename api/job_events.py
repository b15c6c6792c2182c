"""What happens to one job, for clients that wait: as server-sent events, or until it has ended.

A client that reads slowly misses steps of the progress, never anything else, and delays nobody.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.job_context import JobApi
from errors import UnknownJobError
from jobs.job import Job
from jobs.progress import Board, JobEvent

HEARTBEAT_SECONDS = 15.0
_LOOK_SECONDS = 1.0  # whether the server ends, or the client has gone
_OF_PROGRESS = ("stage", "node_id", "step", "total")


class Watch:
    """Hears of one job from the moment it is entered."""

    def __init__(self, board: Board, job_id: str) -> None:
        self._board, self._job_id = board, job_id
        self._events: deque[JobEvent] = deque()
        self._news = asyncio.Event()

    def __enter__(self) -> Watch:
        self._loop = asyncio.get_running_loop()
        self._unsubscribe = self._board.subscribe(self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._unsubscribe()

    async def next(self, seconds: float) -> JobEvent | None:
        """The next event; None if there is none in this time."""
        if not self._events:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()
        return self._events.popleft() if self._events else None

    def _hear(self, event: JobEvent) -> None:
        """In the thread that publishes."""
        if event.job_id == self._job_id and event.kind != "preview":
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: JobEvent) -> None:
        if event.kind == "progress" and self._events and self._events[-1].kind == "progress":
            self._events.pop()
        self._events.append(event)
        self._news.set()


async def events(api: JobApi, job: Job, root: str) -> AsyncIterator[str]:
    """`job` first, the whole document; then what happens to it; `job` again as a sign of life; at last its ending with the document."""
    with Watch(api.board, job.id) as watch:
        job = await run_in_threadpool(api.store.get, job.id)  # from here on nothing is missed
        yield _frame("job", await run_in_threadpool(api.document, job, root))
        quiet = 0.0
        while not job.status.is_ended:
            event = await watch.next(_LOOK_SECONDS)
            if api.is_ending():
                return
            quiet = 0.0 if event else quiet + _LOOK_SECONDS
            if event and event.kind not in ("succeeded", "failed", "canceled"):
                yield _frame(event.kind, _data(event))
            elif event or quiet >= HEARTBEAT_SECONDS:
                quiet = 0.0
                found = await run_in_threadpool(_look, api, job.id)
                if found is None:
                    return
                job = found
                if not job.status.is_ended:
                    yield _frame("job", await run_in_threadpool(api.document, job, root))
        yield _frame(job.status.value, await run_in_threadpool(api.document, job, root))


async def ended(api: JobApi, job: Job, seconds: float, request: Request) -> Job:
    """The job once it has ended; as it is then if that takes longer than so many seconds, or if the client goes away."""
    loop = asyncio.get_running_loop()
    until, next_look = loop.time() + seconds, loop.time() + HEARTBEAT_SECONDS
    with Watch(api.board, job.id) as watch:
        job = await run_in_threadpool(api.store.get, job.id)  # from here on nothing is missed
        while not job.status.is_ended and not api.is_ending() and not await request.is_disconnected():
            left = until - loop.time()
            event = await watch.next(max(0.0, min(_LOOK_SECONDS, left)))
            if left <= 0 or event or loop.time() >= next_look:
                job, next_look = await run_in_threadpool(api.store.get, job.id), loop.time() + HEARTBEAT_SECONDS
            if left <= 0:
                break
    return job


def _look(api: JobApi, job_id: str) -> Job | None:
    try:
        return api.store.get(job_id)
    except UnknownJobError:  # purged meanwhile
        return None


def _data(event: JobEvent) -> dict[str, Any]:
    match event.kind:
        case "cached":
            return {"nodes": list(event.data["nodes"])}
        case "node":
            return {"node": event.data["node_id"]}
        case "output":
            return {"node": event.data["node_id"], "output": event.data["ui"]}
        case "progress":
            told = {name: event.data[name] for name in _OF_PROGRESS if name in event.data}
            return {("node" if name == "node_id" else name): value for name, value in told.items()}
        case _:
            return {"status": event.data["job"].status.value} if "job" in event.data else {}


def _frame(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
