"""A workflow is run: what is known already is taken, the rest is worked, one node after another.

The `Engine` is what outlives a job: loaded models, kept results. `execute` is one job.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from errors import Canceled, blamed_on
from pipelines import memory
from pipelines.bench import Bench
from pipelines.checkpoints import examine
from pipelines.filenames import check_room, next_name
from pipelines.memory import Placement
from pipelines.metadata import to_texts
from pipelines.model_files import file_key
from pipelines.parameters import AUTOMATIC, MachineSettings
from pipelines.pieces import Relief
from pipelines.preview import Colours, Window
from pipelines.progress import IsCanceled, Progress, Report, never
from pipelines.shelf import Shelf
from pipelines.values import Saved
from workflows.ahead import Ahead, Following, begins_at
from workflows.cache import Cache
from workflows.demand import Examined, checkpoints_of, relief_for
from workflows.folders import Folders
from workflows.graph import Link, Node, Workflow
from workflows.job_context import JobContext
from workflows.keys import keys_of
from workflows.saving import check_codec_of
from workflows.workload import Work, size_of, workload


@dataclass(frozen=True)
class Cached:
    """The job has begun; the results of these nodes were there already."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class NodeStarted:
    node: str


@dataclass(frozen=True)
class NodeDone:
    """`ui`: what a node that writes has written, as ComfyUI tells it."""

    node: str
    ui: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Glimpse:
    """How what a node samples looks by now, as JPEG."""

    node: str
    image: bytes


Event = Progress | Cached | NodeStarted | NodeDone | Glimpse
Tell = Callable[[Event], None]


class Journal(Protocol):
    """Keeps account of a job's files, so that a job that is run again after a crash has written each exactly once."""

    def result(self, node: str, key: str) -> Saved | None:
        """What this job's node has written, all of it, in a run before. What such a run has left half done is taken back."""

    def told(self, node: str, key: str, part: Path, target: Path) -> None:
        """A finished file is about to get its name."""

    def done(self, node: str, key: str, saved: Saved) -> None:
        """All files of the node are there."""


class NoJournal:
    """Of jobs that are not run again."""

    def result(self, node: str, key: str) -> Saved | None:
        return None

    def told(self, node: str, key: str, part: Path, target: Path) -> None: ...

    def done(self, node: str, key: str, saved: Saved) -> None: ...


@dataclass
class Run:
    """What came of a job. `notes`: what the person should know of how it went, a line each. `is_whole`: nothing that takes long was there
    already."""

    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    is_whole: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    placement: dict[str, str] = field(default_factory=dict)
    peak_bytes: int = 0


class StageClock:
    """Seconds of each stage, measured where the progress changes its stage. Stands between the pipelines and `report`."""

    def __init__(self, report: Report) -> None:
        self.seconds: dict[str, float] = {}
        self._report, self._stage, self._since = report, "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self.stop()
            self._stage = progress.stage
        self._report(progress)

    def stop(self) -> None:
        """What has passed since the last call belongs to the stage that was told last."""
        now = time.monotonic()
        if self._stage:
            self.seconds[self._stage] = round(self.seconds.get(self._stage, 0.0) + now - self._since, 3)
        self._stage, self._since = "", now


class Engine:
    """What jobs share. Models stay on the shelf and results in the cache for the next one; one job at a time. Without a shelf there is one
    for as much as the machine can spare. `prepares_next`: whether the job after one is prepared beside it (workflows/ahead.py); None is as
    the device is."""

    def __init__(
        self,
        machine: MachineSettings = AUTOMATIC,
        shelf: Shelf | None = None,
        cache: Cache | None = None,
        *,
        prepares_next: bool | None = None,
    ) -> None:
        self.machine, self.shelf, self._sizes_shelf = machine, Shelf() if shelf is None else shelf, shelf is None
        self.cache = Cache(memory_bytes=0) if cache is None else cache
        self._prepares_next = prepares_next
        self._examined: dict[Any, Examined] = {}
        self.ahead = Ahead(self)
        self.colours: dict[Any, Colours | None] = {}  # of autoencoders, for previews

    @cached_property
    def placement(self) -> Placement:
        """What it runs on. Raises InputError, UnknownNameError for what is not there."""
        machine = self.machine
        placement = memory.choose_placement(
            machine.device, machine.attention, machine.dtype, is_compiled=machine.compile, weights=machine.weights,
            remembered=self.cache.folder and self.cache.folder / "attention.json",
        )  # fmt: skip
        memory.limit(placement.device, machine.vram_limit)
        if self._sizes_shelf:
            self.shelf.budget_bytes = memory.budget_bytes(placement.device, machine.vram_limit)
        return placement

    @property
    def prepares_next(self) -> bool:
        """Whether the job after one is prepared beside it."""
        return self.placement.device.type == "cuda" if self._prepares_next is None else self._prepares_next

    def examined(self, path: Path, kind: str) -> Examined:
        """A model file's header, and how many weights each part has; looked at again only when the file is another. Raises
        CheckpointError."""
        key = path, kind, file_key(path)
        if key not in self._examined:
            self._examined[key] = examine(path, kind)
        return self._examined[key]

    def idle(self) -> None:
        """Give all memory back."""
        self.ahead.stop()
        self.shelf.drop_others()
        self.cache.forget()
        memory.release(self.placement.device)

    def execute(
        self,
        workflow: Workflow,
        folders: Folders,
        *,
        extra: Mapping[str, Any] | None = None,
        tell: Tell = lambda event: None,
        is_canceled: IsCanceled = never,
        journal: Journal | None = None,
        keeps_metadata: bool = True,
        is_fresh: bool = False,
        shows_previews: bool = False,
        following: Following | None = None,
    ) -> Run:
        """Run the workflow; `extra` is kept in its files, or with `keeps_metadata` off nothing is. `is_fresh`: no kept result is taken.
        `shows_previews`: glimpses are told. `following` is asked, in another thread, for the job after this one, so that its models and
        prompts can be prepared while this one is finished.

        Raises InputError, CheckpointError, StorageError and UnreadableFileError before any work where it can be known;
        MemoryExhaustedError, EncodingError, Canceled. An error has the node in `node`."""
        context = JobContext(folders, workflow.graph, extra or {}, keeps_metadata=keeps_metadata)
        wishes = {"is_fresh": is_fresh, "shows_previews": shows_previews}
        return _Job(self, workflow, context, tell, is_canceled, journal or NoJournal(), following, **wishes).run()


class _Job:
    def __init__(
        self,
        engine: Engine,
        workflow: Workflow,
        context: JobContext,
        tell: Tell,
        is_canceled: IsCanceled,
        journal: Journal,
        following: Following | None = None,
        *,
        is_fresh: bool = False,
        shows_previews: bool = False,
    ) -> None:
        self.engine, self.workflow, self.tell, self.is_canceled, self.is_fresh = engine, workflow, tell, is_canceled, is_fresh
        self.journal, self.context, self.folders, self.following = journal, context, context.folders, following
        self.order, self.node = workflow.order(), ""
        self.clock = StageClock(lambda progress: tell(dataclasses.replace(progress, node=self.node)))
        self.window = Window(lambda image: tell(Glimpse(self.node, image)), engine.colours) if shows_previews else None
        self.values: dict[str, tuple[Any, ...]] = {}
        self.seams: set[str] = set()
        self.result = Run()

    def run(self) -> Run:
        # 1. What it runs on, what is known already, and whether all that can be checked is right.
        engine = self.engine
        placement, work = engine.placement, workload(self.workflow, self.folders)
        self._check_outputs()
        self.keys = keys_of(self.order, self.folders, placement)
        engine.ahead.settle(self.keys, self.clock, self.is_canceled)
        engine.shelf.begin_job()
        needed = self._needed()
        relief = self._relief(work, needed)
        bench = Bench(placement, relief, engine.shelf, self.clock, self.is_canceled, self.window, engine.examined)
        memory.reset_peak(placement.device)

        # 2. Node after node.
        with ExitStack() as at_the_end, relief.guard():
            at_the_end.callback(lambda: relief.has_streamed and engine.shelf.drop_others())  # the next job may have room for whole models
            self.result.cached = tuple(node.id for node in self.order if node.id not in needed)
            self.result.is_whole = not any(self.workflow.nodes[i].node_class.keeps for i in self.result.cached)
            self.tell(Cached(self.result.cached))
            for i, ui in self.result.outputs.items():  # by a run that did not come to its end
                self.tell(NodeDone(i, ui, self.result.files[i]))
            to_do = [node for node in self.order if node.id in needed]
            last_use = {link.node: node.id for node in to_do for link in node.links().values()}
            spare_from = begins_at(to_do)
            for k, node in enumerate(to_do):
                if k == spare_from > 0 and self.following and engine.prepares_next:
                    self.result.peak_bytes = memory.peak_bytes(placement.device)  # what comes for another job does not count
                    engine.ahead.begin(self.following, relief)
                self._work(bench, node)
                self._let_go(node.id, last_use)

        # 3. What is to be said of it.
        self.clock.stop()
        self.result.seconds, self.result.notes = self.clock.seconds, relief.notes
        self.result.placement = placement.describe() | {"memory": relief.plan.reason}
        self.result.peak_bytes = self.result.peak_bytes or memory.peak_bytes(placement.device)
        return self.result

    def _check_outputs(self) -> None:
        """Before any work: whether every file can be written, have its name, its settings and room."""
        for node in self.order:
            if node.node_class.is_output:
                with blamed_on(node.id):
                    to_texts(self.context.metadata())
                    self._check_output(node, {name: value for name, value in node.inputs.items() if not isinstance(value, Link)})

    def _check_output(self, node: Node, inputs: Mapping[str, Any]) -> None:
        link = next(iter(node.links().values()), None)
        width, height, count = (size_of(self.workflow, link, self.folders) if link else None) or (0, 0, 0)
        check_codec_of(inputs, width, height)
        is_kept = node.node_class.name != "PreviewImage" and inputs.get("save_output") is not False
        prefix = inputs.get("filename_prefix", "Preview")
        name = next_name(self.folders.of("output" if is_kept else "temp"), prefix, style="image", width=width, height=height)
        check_room(name.folder, 6 * width * height * count + 8 * 2**20)

    def _needed(self) -> set[str]:
        """The nodes that have to be worked; the results of others that these want are taken from where they are kept."""
        return self.workflow.needed([i for i in self.workflow.targets if not self._is_written(i)], self._is_kept)

    def _is_kept(self, node: Node) -> bool:
        kept = None if self.is_fresh or node.node_class.is_changing else self.engine.cache.get(self.keys[node.id])
        if kept is not None:
            self.values[node.id] = kept
        return kept is not None

    def _is_written(self, i: str) -> bool:
        """By a run of this job that did not come to its end."""
        saved = self.journal.result(i, self.keys[i])
        if saved is not None:
            self.result.outputs[i], self.result.files[i] = saved.ui, saved.files
        return saved is not None

    def _relief(self, work: Sequence[Work], needed: Container[str]) -> Relief:
        """The memory plan for the checkpoints that are used."""
        used = [node for node in self.order if node.id in needed or node.id in self.values]
        models = checkpoints_of(used, self.folders, self.engine.examined)
        return relief_for(work, models, self.engine.placement, self.engine.machine, self.engine.shelf)

    def _work(self, bench: Bench, node: Node) -> None:
        if self.is_canceled():
            raise Canceled
        self.node, key = node.id, self.keys[node.id]
        self.tell(NodeStarted(node.id))
        inputs = {name: self._input(value) for name, value in node.inputs.items()}
        if node.node_class.wants_job:
            told = lambda part, target: self.journal.told(node.id, key, part, target)  # noqa: E731
            inputs["job"] = dataclasses.replace(self.context, told=told)
        bench.relief.has_seams = False
        with blamed_on(node.id):
            found = self.engine.ahead.result(key) or node.node_class.function(bench, **inputs)
        values = found if isinstance(found, tuple) else (found,)
        if node.node_class.is_output:
            self.journal.done(node.id, key, values[0])
            self.result.outputs[node.id], self.result.files[node.id] = values[0].ui, values[0].files
        elif self._is_as_good_as_whole(bench.relief, node):
            self.engine.cache.put(key, values, on_disk=node.node_class.keeps)
        self.values[node.id] = values
        self.tell(NodeDone(node.id, self.result.outputs.get(node.id), self.result.files.get(node.id, ())))

    def _is_as_good_as_whole(self, relief: Relief, node: Node) -> bool:
        """False if memory was so short that the result is not what it would be: then it serves this job alone. What is made of such a
        result is no better."""
        if relief.has_seams or any(link.node in self.seams for link in node.links().values()):
            self.seams.add(node.id)
        return node.id not in self.seams

    def _let_go(self, done: str, last_use: Mapping[str, str]) -> None:
        """Of what no later node needs; the cache keeps what it has room for."""
        for i in [i for i in self.values if last_use.get(i, done) == done]:
            del self.values[i]

    def _input(self, value: Any) -> Any:
        return self.values[value.node][value.slot] if isinstance(value, Link) else value
