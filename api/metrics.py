"""`/metrics`: numbers for Prometheus, in its text format."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.job import ENDED, Job
from jobs.progress import JobEvent
from jobs.service import READY, Service

Labels = Mapping[str, object]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts from the moment it is made."""

    def __init__(self, service: Service) -> None:
        self._service, self._lock = service, threading.Lock()
        self._stage_seconds: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._stop = service.board.subscribe(self._hear)

    def stop(self) -> None:
        self._stop()

    def text(self) -> str:
        """Raises StorageError."""
        return "".join(f"{line}\n" for line in self._lines())

    def _hear(self, event: JobEvent) -> None:
        if event.kind in ENDED and isinstance(job := event.data.get("job"), Job):
            with self._lock:
                self._ended[event.kind] += 1
                self._stage_seconds.update(job.stage_seconds)

    def _lines(self) -> Iterator[str]:
        counts = {status.value: count for status, count in self._service.store.counts().items()}
        with self._lock:
            ended, stages = dict(self._ended), dict(self._stage_seconds)
        hits, misses = self._service.cache_counts()
        yield from _family("jobs", "gauge", "Jobs in the table.", [({"status": status}, n) for status, n in counts.items()])
        yield from _family("queue_length", "gauge", "Jobs that wait.", [({}, counts["queued"])])
        yield from _family("queue_paused", "gauge", "1 while no job is begun.", [({}, int(self._service.store.is_paused))])
        yield from _family("ready", "gauge", "1 while jobs are taken and done.", [({}, int(self._service.state()[0] == READY))])
        totals = [({"status": status.value}, ended.get(status.value, 0)) for status in ENDED]
        yield from _family("jobs_ended_total", "counter", "Jobs that ended since the start.", totals)
        seconds = [({"stage": stage}, round(n, 3)) for stage, n in sorted(stages.items())]
        yield from _family("stage_seconds_total", "counter", "Seconds of work by stage since the start.", seconds)
        yield from _family("cache_hits_total", "counter", "Results of nodes that were there already.", [({}, hits)])
        yield from _family("cache_misses_total", "counter", "Results of nodes that had to be made.", [({}, misses)])
        yield from self._device_lines()

    def _device_lines(self) -> Iterator[str]:
        """Known once a job has run."""
        device = self._service.device()
        if device:
            labels = {"device": device["name"]}
            yield from _family("device_memory_bytes", "gauge", "Memory of the device.", [(labels, device["vram_total"])])
            yield from _family("device_memory_free_bytes", "gauge", "What of it is free.", [(labels, device["vram_free"])])


def _family(name: str, kind: str, help: str, samples: list[tuple[Labels, Any]]) -> Iterator[str]:
    yield f"# HELP stillmotion_{name} {help}"
    yield f"# TYPE stillmotion_{name} {kind}"
    for labels, value in samples:
        said = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
        yield f"stillmotion_{name}{f'{{{said}}}' if said else ''} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
