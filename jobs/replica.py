"""What runs on the other machines: a replica of Ray Serve with one GPU, which does one job at a time as `Runner` does it here.

All that a job tells goes back in one stream. What the front answers lies on the desk, where the replica fetches it: whether it should stop,
and what the journal says. The desk lives and dies with the front, and a run that is closed there is answered nothing any more, so a replica
that was given up can neither publish a file nor go on for long.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve

from jobs.dialog import AskingJournal, Closed, work_there
from jobs.job import Job
from jobs.runner import Runner, make_engine
from pipelines.parameters import MachineSettings
from workflows.plugins import all_nodes

STOP = 0  # the number under which lies whether a run should stop; questions count from 1 on
_MODELS_REMEMBERED = 2  # sets of models of which others are told that this replica has them


@dataclass(frozen=True)
class ReplicaSettings:
    """`data_dir` is the same folder under the same name on every machine."""

    data_dir: Path
    machine: MachineSettings
    cache_bytes: int
    has_custom_nodes: bool


class Desk:
    """Where answers lie until they are fetched; an actor. A run is known by its token, from `open` to `close`."""

    def __init__(self) -> None:
        self._open: dict[str, dict[int, asyncio.Future[Any]]] = {}

    async def open(self, token: str) -> None:
        self._open[token] = {}

    async def leave(self, token: str, number: int, answer: Any) -> None:
        if token in self._open and not (letter := self._letter(token, number)).done():
            letter.set_result(answer)

    async def fetch(self, token: str, number: int) -> Any:
        """Waits for it. Raises Closed."""
        if token not in self._open:
            raise Closed
        return await asyncio.shield(self._letter(token, number))

    async def close(self, token: str) -> None:
        for letter in self._open.pop(token, {}).values():
            if not letter.done():
                letter.set_exception(Closed())
                letter.exception()  # whether anybody waits or not

    def _letter(self, token: str, number: int) -> asyncio.Future[Any]:
        return self._open[token].setdefault(number, asyncio.get_running_loop().create_future())


class Replica:
    """A deployment. `run` gives ("begun", where), and then what `jobs.dialog` names."""

    def __init__(self, settings: ReplicaSettings) -> None:
        logging.getLogger("stillmotion").setLevel(logging.INFO)
        catalog, cache = all_nodes(settings.data_dir, settings.has_custom_nodes), settings.data_dir / "cache"
        self._runner = Runner(settings.data_dir, catalog, lambda: make_engine(settings.machine, cache, settings.cache_bytes))
        self._place = threading.Lock()
        self._name = f"{ray.get_runtime_context().get_node_id()[:8]}/{os.getpid()}"

    @serve.multiplexed(max_num_models_per_replica=_MODELS_REMEMBERED)
    async def note_models(self, models: str) -> str:
        """So that jobs with these models come here rather than elsewhere. They are loaded by the run itself."""
        return models

    async def run(self, job: Job, token: str, desk: Any) -> AsyncIterator[tuple[Any, ...]]:
        said: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        say, stop = _threadsafe(said.put_nowait), threading.Event()
        yield "begun", self._name
        await self.note_models(serve.get_multiplexed_model_id())
        watching = asyncio.ensure_future(_watch(desk, token, stop))
        working = asyncio.get_running_loop().run_in_executor(None, self._work, job, say, stop, far_journal(say, desk, token))
        try:
            while (item := await said.get())[0] in ("told", "asked"):
                yield item
            yield item
        finally:  # the end, or nobody listens any more: the place is free when the work has ended
            stop.set()
            watching.cancel()
            await asyncio.wait({working})

    def _work(self, job: Job, say: Callable[..., None], stop: threading.Event, journal: AskingJournal) -> None:
        with self._place:
            work_there(self._runner, job, say, stop.is_set, journal, gone=(ray.exceptions.RayError,))


def far_journal(say: Callable[..., None], desk: Any, token: str) -> AskingJournal:
    """Raises Closed or RayError if the front waits for us no more."""
    numbers = itertools.count(STOP + 1)

    def ask(name: str, values: tuple[Any, ...]) -> Any:
        number = next(numbers)
        say("asked", number, name, values)
        try:
            return ray.get(desk.fetch.remote(token, number))
        except ray.exceptions.RayTaskError as error:
            raise Closed from error

    return AskingJournal(ask)


def _threadsafe(put: Callable[[tuple[Any, ...]], None]) -> Callable[..., None]:
    loop = asyncio.get_running_loop()
    return lambda *item: loop.call_soon_threadsafe(put, item)


async def _watch(desk: Any, token: str, stop: threading.Event) -> None:
    """Until somebody wants the run to stop, or the front is gone."""
    try:
        await desk.fetch.remote(token, STOP)
    finally:
        stop.set()
