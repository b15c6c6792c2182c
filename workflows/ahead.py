"""What the job after this one will need is prepared while this one is finished: models are loaded, prompts are read.

It begins when nothing is sampled any more, beside a card, whose host has little to do then. Not on a CPU, where it was measured to take
longer than one after the other, even where prompts alone are read while files are written; and not on Apple's devices, which take no work
from two threads.

It is a courtesy. It takes only memory that this job does not need, what goes wrong with it is left for the next job to find, and no
result depends on it: what was not prepared is done when it is needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from errors import Canceled, StillmotionError
from pipelines import memory
from pipelines.bench import Bench, Source
from pipelines.memory import STREAMED
from pipelines.pieces import Relief
from pipelines.progress import IsCanceled, Progress, Report
from pipelines.values import Conditioning, ModelSource, TextSource, VaeSource, VisionSource
from workflows.demand import checkpoints_of, relief_for
from workflows.folders import Folders
from workflows.graph import Link, Node, Workflow
from workflows.job_context import JobContext
from workflows.keys import keys_of
from workflows.workload import workload

if TYPE_CHECKING:
    from workflows.run import Engine

log = logging.getLogger(__name__)

T = TypeVar("T")
Following = Callable[[], tuple[Workflow, Folders] | None]  # the job after this one, as far as anybody knows by now
_LOOK_SECONDS = 0.05
_SPARED = 0.9  # of what is free
_PARTS = {ModelSource: ("unet",), TextSource: ("text_encoder", "text_encoder_2"), VaeSource: ("vae",), VisionSource: ("vision",)}


def begins_at(nodes: Sequence[Node]) -> int:
    """The place in a job, whose nodes are worked in this order, from which on nothing is sampled."""
    return max((k + 1 for k, node in enumerate(nodes) if node.node_class.samples), default=0)


class _NoRoom(Exception):
    """For these models beside those of this job."""


@dataclass
class _Preparation:
    """One thread's work. `keys`: of the nodes of the job that it is for, once that is known; `found`: results by key."""

    thread: threading.Thread | None = None
    keys: Mapping[str, str] | None = None
    found: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None  # of what is being loaded
    is_last: bool = False  # what is at work may come to its end, and nothing more is begun
    is_stopped: bool = False


class Ahead:
    """Of one engine, whose jobs begin it and settle with it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self._at_work, self._found = engine, _Preparation(), {}

    def begin(self, following: Following, relief: Relief) -> None:
        """In a thread of its own, which ends by itself. `relief`: of the job that is done now, and nearly over."""
        self.stop()
        self._at_work = one = _Preparation()
        one.thread = threading.Thread(target=self._prepare, args=(one, following, relief), name="preparing", daemon=True)
        one.thread.start()

    def settle(self, keys: Mapping[str, str], report: Report, is_canceled: IsCanceled) -> None:
        """A job begins. What is being loaded for it is waited for, and told of; what is for another job is left. Raises Canceled."""
        one, self._found = self._at_work, {}
        one.is_last, told = True, None
        one.is_stopped |= one.keys != keys
        while one.thread and one.thread.is_alive():
            if is_canceled():
                self.stop()
                raise Canceled
            if one.progress not in (told, None):
                report(told := one.progress)
            one.thread.join(_LOOK_SECONDS)
        if one.keys == keys:
            self._found = one.found
        self._at_work = _Preparation()

    def result(self, key: str) -> Any:
        """Of the job that has begun: what was found out before for the node with this key, once, or None."""
        return self._found.pop(key, None)

    def stop(self) -> None:
        """Nothing is prepared any more."""
        self._at_work.is_stopped = True
        if self._at_work.thread:
            self._at_work.thread.join()
        self._at_work, self._found = _Preparation(), {}

    def _prepare(self, one: _Preparation, following: Following, now: Relief) -> None:
        try:
            if found := following():
                _Next(self.engine, one, now, *found).prepare()
        except (_NoRoom, Canceled, StillmotionError, OSError) as error:  # the job that it is for will say it, if it is true then
            log.debug("the next job is not prepared further: %s %s", type(error).__name__, error)
        except Exception:
            log.exception("The next job could not be prepared; it will be done without that.")


class _Next:
    """The job after this one. `now`: the relief of this one."""

    def __init__(self, engine: Engine, one: _Preparation, now: Relief, workflow: Workflow, folders: Folders) -> None:
        self.engine, self.one, self.now, self.workflow, self.folders = engine, one, now, workflow, folders
        self.values: dict[str, tuple[Any, ...]] = {}

    def prepare(self) -> None:
        """Raises as a job; _NoRoom."""
        engine, order = self.engine, self.workflow.order()
        keys = keys_of(order, self.folders, engine.placement)
        needed = self.workflow.needed(self.workflow.targets, lambda node: not node.node_class.is_changing and keys[node.id] in engine.cache)
        nodes = [node for node in order if node.id in needed]
        bench = self._bench(nodes)
        self.one.keys = keys
        self.values |= {i: kept for i in self.workflow.nodes if i not in needed and (kept := engine.cache.glance(keys[i])) is not None}
        for node in nodes:
            if self.one.is_last or self.one.is_stopped:
                return
            if node.node_class.is_early and all(link.node in self.values for link in node.links().values()):
                self._work(bench, node, keys[node.id])
            else:
                for source in filter(_is_source, map(self._known, node.links().values())):
                    bench.load(source)

    def _work(self, bench: Bench, node: Node, key: str) -> None:
        inputs = {name: self._known(value) if isinstance(value, Link) else value for name, value in node.inputs.items()}
        if node.node_class.wants_job:
            inputs["job"] = JobContext(self.folders, self.workflow.graph)
        values = node.node_class.function(bench, **inputs)
        self.values[node.id] = values if isinstance(values, tuple) else (values,)
        if isinstance(values, Conditioning):
            self.one.found[key] = values

    def _known(self, link: Link) -> Any:
        return self.values[link.node][link.slot] if link.node in self.values else None

    def _bench(self, nodes: list[Node]) -> Bench:
        """As the job itself will have it: with the plan that it will have once all that this job holds is free."""
        engine = self.engine
        models = checkpoints_of(nodes, self.folders, engine.examined)
        work = workload(self.workflow, self.folders)
        held = memory.taken_bytes(engine.placement.device)
        plan = relief_for(work, models, engine.placement, engine.machine, engine.shelf, held=held).plan
        if plan.residence == STREAMED:
            raise _NoRoom
        drops = engine.shelf.drops
        is_stopped = lambda: self.one.is_stopped or engine.shelf.drops != drops  # noqa: E731
        relief, shelf = Relief(plan, engine.placement.device), _NextShelf(engine, self.now)
        return Bench(engine.placement, relief, shelf, self._told, is_stopped, None, engine.examined)

    def _told(self, progress: Progress) -> None:
        self.one.progress = progress


class _NextShelf:
    """The engine's, as who prepares may use it. Taking raises _NoRoom."""

    def __init__(self, engine: Engine, now: Relief) -> None:
        self.engine, self.now = engine, now

    def take(self, key: tuple[Source, Hashable, memory.Placement, str], load: Callable[[], T]) -> T:
        source, _, placement, residence = key
        shelf, size, home = self.engine.shelf, self._bytes(source), placement.home(residence)
        works_on = {home, placement.device} if isinstance(source, TextSource) else {home}  # a prompt is read at once
        if key not in shelf and any(size > self._room(device) for device in works_on):
            raise _NoRoom
        models = shelf.prepare(key, size, load)
        if models is None:
            raise _NoRoom
        return models

    def drop_others(self, key: Hashable = None) -> bool:
        """Nothing here is this job's to give."""
        return False

    def _bytes(self, source: Source) -> int:
        kind = getattr(source, "kind", "still" if isinstance(source, TextSource) else "motion")
        _, numbers = self.engine.examined(source.path, kind)
        return sum(numbers.get(part, 0) * self.engine.placement.item_bytes(part) for part in _PARTS[type(source)])

    def _room(self, device: torch.device) -> float:
        """Bytes that this job will not need there."""
        free = memory.free_bytes(device)
        if free is None:
            return 0
        if device.type == "cuda" and (limit := self.engine.machine.vram_limit):
            free = min(free, limit * memory.GIB - memory.taken_bytes(device))
        decodes_there = device.type == self.engine.placement.device.type != "cpu"
        return _SPARED * free - (self.now.needs("decoding") if decodes_there else 0)


def _is_source(value: Any) -> bool:
    return isinstance(value, tuple(_PARTS))
