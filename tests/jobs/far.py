"""For tests: a service with an executor of our choice on the tiny models, and a cluster of Ray's with several nodes on this machine."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jobs.job import Job
from jobs.progress import JobEvent
from jobs.service import Service
from jobs.service_settings import ClusterSettings, StoreSettings, WorkSettings
from jobs.submitting import prepare
from pipelines.parameters import MachineSettings
from tests.conftest import MOTION_NAME, STILL_NAME
from workflows.declare import Catalog
from workflows.folders import Folders
from workflows.plugins import all_nodes
from workflows.templates import fill, find_template

PATIENCE = 400.0  # replicas start within seconds, but not on a machine that is busy
SMALL = {
    "width": 32, "height": 32, "frames": 2, "steps": 1, "motion_steps": 1, "checkpoint": STILL_NAME, "motion_checkpoint": MOTION_NAME,
    "seed": 1, "motion_seed": 2,
}  # fmt: skip


class House(logging.Handler):
    """A service that works; every event, and where each job was done."""

    def __init__(self, data_dir: Path, cluster: ClusterSettings | None = None, *, is_lent: bool = False) -> None:
        super().__init__()
        self.data_dir, self.events, self.places = data_dir, [], []
        machine, self.catalog = MachineSettings(device="cpu"), all_nodes(data_dir, True)
        store = StoreSettings(data_dir, data_dir / "jobs.sqlite", max_attempts=5)
        executor = far(data_dir, machine, cluster) if cluster else lent(data_dir, machine, self.catalog) if is_lent else None
        self.service = Service(store, WorkSettings(machine), self.catalog, executor=executor)
        self.store, self._changed = self.service.store, threading.Condition()
        logging.getLogger("stillmotion.afar").addHandler(self)
        logging.getLogger("stillmotion.afar").setLevel(logging.INFO)
        self.service.board.subscribe(self._hear)

    def __enter__(self) -> House:
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("stillmotion.afar").removeHandler(self)
        self.service.close()

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.fullmatch(r"job (\S+) is at (\w+)/(\d+)", record.getMessage()):
            self.places.append((found[1], found[2], int(found[3])))

    def pid(self, job_id: str) -> int:
        """Of the replica that does it, or did."""
        return [pid for one, _, pid in self.places if one == job_id][-1]

    def submit(self, owner: str = "", **values: Any) -> str:
        graph = fill(find_template("text_to_film"), SMALL | values)
        return self.store.submit(prepare(graph, self.catalog, Folders(self.data_dir, owner))[0]).id

    def ended(self, *job_ids: str, seconds: float = PATIENCE) -> list[Job]:
        self.until(lambda: all(self.store.get(one).status.is_ended for one in job_ids), seconds)
        return [self.store.get(one) for one in job_ids]

    def until(self, is_so: Callable[[], bool], seconds: float = PATIENCE) -> None:
        with self._changed:
            limit = time.monotonic() + seconds
            while not is_so():
                assert time.monotonic() < limit, [(event.kind, dict(event.data)) for event in self.events[-5:]]
                assert not self.service.failure, self.service.failure
                self._changed.wait(0.2)

    def reaches(self, job_id: str, stage: str, step: int = 1, since: int = 0) -> None:
        """Until the job is at this step; `since`: of the events before nothing counts."""
        self.until(lambda: any(self._is_at(event, job_id, stage, step) for event in self.events[since:]))

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.events if event.job_id == job_id]

    def files(self) -> dict[str, bytes]:
        root = self.data_dir / "output"
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def listed(self) -> list[str]:
        """The files of all jobs."""
        jobs = self.store.list_jobs(limit=1000).jobs
        return [f"{job.owner}/{file.filename}".lstrip("/") for job in jobs for file in job.files]

    @staticmethod
    def _is_at(event: JobEvent, job_id: str, stage: str, step: int) -> bool:
        return event.job_id == job_id and event.kind == "progress" and event.data["stage"] == stage and event.data["step"] >= step

    def _hear(self, event: JobEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()


def far(data_dir: Path, machine: MachineSettings, cluster: ClusterSettings) -> Any:
    from jobs.afar import Afar
    from jobs.replica import ReplicaSettings

    return Afar(ReplicaSettings(data_dir, machine, 2**30, True), cluster)


def lent(data_dir: Path, machine: MachineSettings, catalog: Catalog) -> Any:
    """By nobody: as outside of ZeroGPU, the work is a function of this process."""
    from jobs.lent import Lent
    from jobs.runner import Runner, make_engine

    runner = Runner(data_dir, catalog, lambda: make_engine(machine, data_dir / "cache", 2**30))
    return Lent(runner, lambda work, seconds: work, lambda: None)


@contextmanager
def cluster_of(nodes: int) -> Iterator[Any]:
    """Ray's head without a place for replicas, and so many nodes with one each. Its token is that of this process."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node_options() | {"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.places = [add_node(cluster) for _ in range(nodes)]
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, **node_options())


def node_options() -> dict[str, int]:
    """With ports that are said, a node need not wait for its agents to say theirs; if they are slow it gives up."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in names]
    return dict(zip(names, free, strict=True)) | {"object_store_memory": 2**27}


def use_token() -> None:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "RAY_USAGE_STATS_ENABLED": "0"}
    patience = {"RAY_raylet_start_wait_time_s": "600", "RAY_agent_register_timeout_ms": "600000", "RAY_health_check_timeout_ms": "60000"}
    os.environ |= patience  # for a machine that is busy: Ray takes a node for dead that does not answer, and our process ends with it
