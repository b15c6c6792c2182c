"""From what happens to jobs to what ComfyUI's sockets are told: which messages, in which order, and for whom."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from api import comfy_messages
from jobs.job import Job
from jobs.progress import JobEvent

_UNTIMELY = ("progress", "progress_state", "preview")  # of these only the newest matters
_FOR_ALL = (*_UNTIMELY, "execution_interrupted")  # told to every socket of its owner if the job names no client
_OLD_PREVIEW, _NEW_PREVIEW = 1, 4
_IMAGE_TYPES = {"jpeg": 1, "png": 2}


@dataclass(frozen=True)
class Message:
    """`owner` None: for everybody; `client` None: for all sockets of the owner. A preview is `image`; all others are JSON."""

    type: str
    data: Mapping[str, Any]
    owner: str | None = None
    client: str | None = None
    image: bytes = b""
    format: str = "jpeg"

    @property
    def is_untimely(self) -> bool:
        """Whether it may be left out for a socket that does not keep up."""
        return self.type in _UNTIMELY

    def is_for(self, owner: str, client: str) -> bool:
        return self.owner is None or (self.owner == owner and self.client in (None, client))

    @cached_property
    def text(self) -> str:
        return json.dumps({"type": self.type, "data": self.data})

    @cached_property
    def plain(self) -> bytes:
        """A preview for clients that know nothing better."""
        return struct.pack(">II", _OLD_PREVIEW, _IMAGE_TYPES[self.format]) + self.image

    @cached_property
    def described(self) -> bytes:
        """A preview that says of which node it is."""
        told = json.dumps(self.data | {"image_type": f"image/{self.format}"}).encode()
        return struct.pack(">II", _NEW_PREVIEW, len(told)) + told + self.image


@dataclass
class _Run:
    """A job that runs: its nodes in the order in which they began, and the one that is worked on."""

    job: Job
    client: str | None
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    current: str | None = None

    def set(self, node: str, value: float, most: float, state: str) -> None:
        entry = {"value": value, "max": most, "state": state, "node_id": node, **self.names(node)}
        self.nodes[node] = entry

    def names(self, node: str) -> dict[str, Any]:
        return {"prompt_id": self.job.id, "display_node_id": node, "parent_node_id": None, "real_node_id": node}

    def finish(self, node: str) -> None:
        most = self.nodes[node]["max"]
        self.set(node, most, most, "finished")
        self.executed.append(node)


class Events:
    """`open_jobs` wait or run already. Not for several threads at once."""

    def __init__(self, open_jobs: Iterable[str], clock: Callable[[], float]) -> None:
        self._open, self._clock, self._runs = set(open_jobs), clock, {}

    def status(self, **more: str) -> Message:
        return Message("status", {"status": {"exec_info": {"queue_remaining": len(self._open)}}, **more})

    def current(self, owner: str, client: str) -> str | None:
        """The node that is worked on for this client."""
        of_client = (run for run in self._runs.values() if (run.job.owner, run.client) == (owner, client))
        return next((run.current for run in of_client), None)

    def messages(self, event: JobEvent) -> list[Message]:
        job: Job | None = event.data.get("job")
        match event.kind:
            case "queued" | "requeued":
                self._open.add(event.job_id)
                self._runs.pop(event.job_id, None)
                return [self.status()]
            case "started":
                client = job.extra.get("client_id")
                run = self._runs[event.job_id] = _Run(job, client if isinstance(client, str) else None)
                return [self.status(), *_told(run, comfy_messages.began(job))]
            case "succeeded" | "failed" | "canceled":
                return self._ended(event.kind, job)
        run = self._runs.get(event.job_id)
        return self._of_run(run, event) if run else []

    def _of_run(self, run: _Run, event: JobEvent) -> list[Message]:
        data = event.data
        match event.kind:
            case "cached":
                return _told(run, comfy_messages.cached(run.job.id, data["nodes"], self._clock()))
            case "node":
                return _node(run, data["node_id"])
            case "progress" if data["step"] and data["stage"] != "loading":  # there a step is counted when it is done
                return _progress(run, data.get("node_id") or run.current, data["step"], data["total"])
            case "output":
                return _output(run, data["node_id"], data["ui"])
            case "preview":
                told = {"node_id": data["node_id"], **run.names(data["node_id"])}
                return [Message("preview", told, run.job.owner, run.client, data["image"], data["format"])]
        return []

    def _ended(self, kind: str, job: Job) -> list[Message]:
        self._open.discard(job.id)
        run = self._runs.pop(job.id, None)
        if run is None:
            return [self.status()]
        match kind:
            case "succeeded":
                told = [*_finished(run), *_untold(run, job), *_told(run, comfy_messages.succeeded(job))]
            case "failed":
                told = _told(run, comfy_messages.failed(job, run.executed))
            case _:
                told = _told(run, comfy_messages.interrupted(job, run.current or "", run.executed))
        return [*told, self.status(), *_told(run, ("executing", {"node": None, "prompt_id": job.id}))]


def _told(run: _Run, *messages: comfy_messages.Message) -> list[Message]:
    kept = [one for one in messages if run.client is not None or one[0] in _FOR_ALL]
    return [Message(type_, data, run.job.owner, run.client) for type_, data in kept]


def _state(run: _Run) -> comfy_messages.Message:
    return "progress_state", {"prompt_id": run.job.id, "nodes": dict(run.nodes)}


def _finished(run: _Run) -> list[Message]:
    """The node that is worked on, if there is one, is done."""
    if run.current is None:
        return []
    run.finish(run.current)
    run.current = None
    return _told(run, _state(run))


def _node(run: _Run, node: str) -> list[Message]:
    before = _finished(run)
    run.current = node
    run.set(node, 0.0, 1.0, "running")
    executing = {"node": node, "display_node": node, "prompt_id": run.job.id}
    return [*before, *_told(run, _state(run), ("executing", executing))]


def _progress(run: _Run, node: str | None, value: int, most: int) -> list[Message]:
    if node is None:
        return []
    run.set(node, value, most, "running")
    return _told(run, _state(run), ("progress", {"value": value, "max": most, "prompt_id": run.job.id, "node": node}))


def _untold(run: _Run, job: Job) -> list[Message]:
    """What an earlier run of the job had written, before the server ended under it."""
    return [message for node, ui in job.outputs.items() if node not in run.nodes for message in _output(run, node, ui)]


def _output(run: _Run, node: str, ui: Mapping[str, Any]) -> list[Message]:
    executed = {"node": node, "display_node": node, "output": ui, "prompt_id": run.job.id}
    told = _told(run, ("executed", executed))
    if node != run.current:  # it was there already
        run.set(node, 1, 1, "finished")
        return [*told, *_told(run, _state(run))]
    return [*told, *_finished(run)]
