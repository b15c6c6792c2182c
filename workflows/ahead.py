"""What the job after this one will need is prepared while this one is finished: models are loaded, prompts are read.

It begins when nothing is sampled any more, beside a card, whose host has little to do then. Not on a CPU, where the job that runs was
measured to lose about what the next one gains, and often more, even if prompts alone are read while files are written; and not on Apple's
devices, which take no work from two threads.

It is a courtesy. It takes only memory that this job does not need, what goes wrong with it is left for the next job to find, and no
result depends on it: what was not prepared is done when it is needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from errors import Canceled, StillmotionError
from pipelines import memory
from pipelines.bench import Bench, Source
from pipelines.memory import STREAMED
from pipelines.pieces import Plan, Relief
from pipelines.progress import IsCanceled, Progress, Report
from pipelines.values import ModelSource, TextSource, VaeSource, VisionSource
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
        engine.shelf.before_drop = self.stop  # memory is wanted back

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
                with memory.beside(self.engine.placement.device):
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
        # 1. What the job will need that is not there, and how it will be cut.
        engine, order = self.engine, self.workflow.order()
        keys = keys_of(order, self.folders, engine.placement)
        needed = self.workflow.needed(self.workflow.targets, lambda node: not node.node_class.is_changing and keys[node.id] in engine.cache)
        self.values |= {i: kept for i in self.workflow.nodes if i not in needed and (kept := engine.cache.glance(keys[i])) is not None}
        bench = self._bench([node for node in order if node.id in needed or node.id in self.values])
        self.one.keys = keys

        # 2. What only names models, so that nothing that is there gives way for something else of this job.
        nodes = [node for node in order if node.id in needed]
        for node in nodes:
            if self._is_early(node) and "CONDITIONING" not in node.node_class.outputs:
                self._work(bench, node)
        engine.shelf.want(bench.key(source) for node in nodes for source in self._sources(node))

        # 3. Models and prompts, in the order in which the job will want them.
        for node in nodes:
            if self.one.is_last or self.one.is_stopped:
                return
            if self._is_early(node) and node.id not in self.values:
                self.one.found[keys[node.id]] = self._work(bench, node)
            elif node.id not in self.values:
                for source in self._sources(node):
                    bench.load(source)

    def _is_early(self, node: Node) -> bool:
        return node.node_class.is_early and all(link.node in self.values for link in node.links().values())

    def _sources(self, node: Node) -> list[Source]:
        """Of models that this node works with, if it is no node that passes them on."""
        return [] if node.id in self.values else [one for one in map(self._known, node.links().values()) if isinstance(one, Source)]

    def _work(self, bench: Bench, node: Node) -> Any:
        inputs = {name: self._known(value) if isinstance(value, Link) else value for name, value in node.inputs.items()}
        if node.node_class.wants_job:
            inputs["job"] = JobContext(self.folders, self.workflow.graph)
        values = node.node_class.function(bench, **inputs)
        self.values[node.id] = values if isinstance(values, tuple) else (values,)
        return values

    def _known(self, link: Link) -> Any:
        return self.values[link.node][link.slot] if link.node in self.values else None

    def _bench(self, nodes: list[Node]) -> Bench:
        """As the job itself will have it: with the plan that it will have once all that this job holds is free."""
        engine = self.engine
        models = checkpoints_of(nodes, self.folders, engine.examined)
        work = workload(self.workflow, self.folders)
        memory.release(engine.placement.device)  # so that nothing is both free and taken
        held = memory.taken_bytes(engine.placement.device)
        plan = relief_for(work, models, engine.placement, engine.machine, engine.shelf, held=held).plan
        if plan.residence == STREAMED:
            raise _NoRoom
        relief, shelf = Relief(plan, engine.placement.device), _NextShelf(engine, self.now, plan)
        return Bench(engine.placement, relief, shelf, self._told, lambda: self.one.is_stopped, None, engine.examined)

    def _told(self, progress: Progress) -> None:
        self.one.progress = progress


class _NextShelf:
    """The engine's, as who prepares may use it. Taking raises _NoRoom."""

    def __init__(self, engine: Engine, now: Relief, plan: Plan) -> None:
        self.engine, self.now, self.plan = engine, now, plan

    def take(self, key: tuple[Source, Hashable, memory.Placement, str], load: Callable[[], T]) -> T:
        source, _, placement, residence = key
        shelf, size, home = self.engine.shelf, self._bytes(source), placement.home(residence)
        comes_to = set() if key in shelf else {home}
        if isinstance(source, TextSource) and home != placement.device:
            comes_to.add(placement.device)  # a prompt is read at once
        if residence != self.plan.residence or not all(self._has_room(device, size) for device in comes_to):
            raise _NoRoom
        models = shelf.prepare(key, size, partial(self._loaded, load))
        if models is None:
            raise _NoRoom
        return models

    def _loaded(self, load: Callable[[], T]) -> T:
        models = load()
        memory.ready(self.engine.placement.device)  # the job's thread has a stream of its own
        return models

    def drop_others(self, key: Hashable = None) -> bool:
        """Nothing here is this job's to give."""
        return False

    def _bytes(self, source: Source) -> int:
        kind = getattr(source, "kind", "still" if isinstance(source, TextSource) else "motion")
        _, numbers = self.engine.examined(source.path, kind)
        return sum(numbers.get(part, 0) * self.engine.placement.item_bytes(part) for part in _PARTS[type(source)])

    def _has_room(self, device: Any, size: int) -> bool:
        """That this job will not need there."""
        needed = self.now.finishing() if device.type == self.engine.placement.device.type else 0
        return size + needed <= _SPARED * memory.spare_bytes(device, self.engine.machine.vram_limit)
