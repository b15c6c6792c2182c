"""The executor of several machines: whole jobs go to replicas of Ray Serve, one GPU each, and one job at a time.

The table of jobs in front stays the record and the queue. A job that is claimed here waits until a replica has a place for it ("waking"),
and is then heard in one thread until its end. When the replica or its machine dies, the job is `Lost`: it waits again at its old place, and
the next replica goes on from the results that are kept in the data directory, which all machines share.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from errors import Canceled, ClusterError
from jobs.dialog import answer_of, heard
from jobs.job import Job, Outcome
from jobs.publications import Journal
from jobs.replica import STOP, Desk, Replica, ReplicaSettings
from jobs.runner import Report, record
from jobs.service_settings import ClusterSettings
from jobs.webhooks import read_key
from jobs.worker import Lost
from pipelines.progress import IsCanceled

log = logging.getLogger("stillmotion.afar")

CODE = Path(__file__).parents[1]
TOKEN = "ray.token"  # in the data directory; whoever knows it may run anything in the cluster of this machine
LONGEST_JOB_SECONDS = 24 * 3600.0  # Ray gives a replica that has to go 20 seconds, and then kills it with its job
_LOOK_SECONDS = 0.25  # between two looks whether somebody wants it to stop
_STOP_SECONDS = 15.0  # a replica that was asked to stop may take so long; then nobody listens to it any more
_TRIES, _SOON_SECONDS = 60, 10.0  # a job fails when Ray has refused it so often, each time so soon; for a replica it waits for ever


class Afar:
    """Knows what `Runner` knows. `start` raises ClusterError."""

    hears, reads_here = True, False

    def __init__(self, replica: ReplicaSettings, cluster: ClusterSettings) -> None:
        self.replica, self.cluster, self.hands = replica, cluster, cluster.max_replicas
        self._name = f"stillmotion-{hashlib.sha256(str(replica.data_dir).encode()).hexdigest()[:8]}"
        self._device: Mapping[str, Any] | None = None
        self._counts: dict[str, tuple[int, int]] = {}
        self.desk = self._handle = None

    def start(self) -> None:
        try:
            self._join()
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            options = {"num_cpus": 0, "max_concurrency": 1000, "max_restarts": -1, "scheduling_strategy": here}
            self.desk = ray.remote(Desk).options(**options).remote()
            serve.start(proxy_location="Disabled")
            target = serve.RunTarget(self._deployment().bind(self.replica), self._name, None)
            (handle,) = serve.run_many([target], wait_for_applications_running=False)
            self._handle = handle.options(stream=True)
        except Exception as error:  # Ray raises whatever it likes
            raise ClusterError(f"The Ray cluster cannot be used: {error}", "See docs/hosting.md, and the logs of Ray.") from error

    @property
    def is_started(self) -> bool:
        return self._handle is not None

    def close(self) -> None:
        if not ray.is_initialized():  # what asks Serve for anything would start a cluster
            return
        if self._handle is not None:
            self._handle.shutdown()  # it would go on to tell a cluster that is not ours any more
            serve.delete(self._name, _blocking=False)
        if not self.cluster.address:
            serve.shutdown()
        ray.shutdown()

    def release(self) -> None:
        """Nothing: a replica that has nothing to do goes after `idle_seconds`, with all that it holds."""

    def device(self) -> Mapping[str, Any] | None:
        """Of the replica that was the last to end a job."""
        return self._device

    def cache_counts(self) -> tuple[int, int]:
        """Of all replicas that have ended a job."""
        counts = list(self._counts.values())
        return sum(hits for hits, _ in counts), sum(misses for _, misses in counts)

    def __call__(self, job: Job, report: Report, is_canceled: IsCanceled, journal: Journal) -> Outcome:
        """Raises StillmotionError, with the node in `node`; Canceled; Lost."""
        outcome, name, device, counts = _Call(self, job, report, is_canceled, journal).result()
        self._device, self._counts[name] = device, counts
        record(self.replica.data_dir, job, outcome)
        return outcome

    def submit(self, job: Job, token: str) -> Any:
        """The stream of what the job tells; it begins when a replica has a place. One that has the job's models comes first."""
        return self._handle.options(multiplexed_model_id=name_of_models(job.workflow)).run.remote(job, token, self.desk)

    def _join(self) -> None:
        told = {"namespace": "stillmotion", "log_to_driver": False, "logging_level": logging.WARNING, "runtime_env": self._environment()}
        if self.cluster.address:
            ray.init(self.cluster.address, **told)
        else:
            read_key(self.replica.data_dir / TOKEN)
            local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": 2**28}
            ray.init("local", num_cpus=self.cluster.max_replicas, **local, **told)  # not another that may be on this machine

    def _environment(self) -> dict[str, Any]:
        """Of all that runs elsewhere: our code lies there under the same name, and no library asks the internet for anything."""
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        return {"env_vars": quiet | {"PYTHONPATH": str(CODE)}}

    def _deployment(self) -> serve.Deployment:
        """Every default of Ray that would cut a long job, or leave a short one waiting, is said here."""
        wished, idle = self.cluster, self.cluster.idle_seconds
        gpus = wished.gpus if wished.gpus is not None else min(1, int(ray.cluster_resources().get("GPU", 0)))
        return serve.deployment(
            name="replica",
            max_ongoing_requests=1,
            max_queued_requests=-1,
            graceful_shutdown_timeout_s=LONGEST_JOB_SECONDS,
            graceful_shutdown_wait_loop_s=0.5,
            health_check_period_s=5,
            health_check_timeout_s=60,
            ray_actor_options={"num_cpus": 1, "num_gpus": gpus, "runtime_env": self._environment()},
            autoscaling_config={
                "min_replicas": wished.min_replicas, "max_replicas": wished.max_replicas, "initial_replicas": wished.min_replicas,
                "target_ongoing_requests": 1, "upscale_delay_s": 0, "downscale_delay_s": idle, "downscale_to_zero_delay_s": idle,
                "metrics_interval_s": 1, "look_back_period_s": 2,
            },
        )(Replica)  # fmt: skip


class _Call:
    """One job, from here. All that its replica says is heard and answered in this thread, so once it is given up nothing of it counts."""

    def __init__(self, afar: Afar, job: Job, report: Report, is_canceled: IsCanceled, journal: Journal) -> None:
        self.afar, self.job, self.report, self.is_canceled, self.journal = afar, job, report, is_canceled, journal
        self.name, self.asked, self.looked, self.is_waking = "", None, 0.0, False

    def result(self) -> tuple[Outcome, str, Mapping[str, Any] | None, tuple[int, int]]:
        failures = 0
        while True:
            began = time.monotonic()
            error = self._try()
            if not isinstance(error, Exception):
                return error
            log.warning("no replica takes the job %s: %s", self.job.id, error)
            failures = failures + 1 if time.monotonic() - began < _SOON_SECONDS else 1
            if failures >= _TRIES:
                raise ClusterError(f"No replica can be had: {error}", "See the logs of Ray.") from error
            time.sleep(1)
            if self.is_canceled():
                raise Canceled

    def _try(self) -> Any:
        """The result; or what went wrong before any replica began. Raises as `Afar`."""
        token, desk = uuid.uuid4().hex, self.afar.desk
        try:
            ray.get(desk.open.remote(token))
            return self._hear(self.afar.submit(self.job, token), token)
        except (ray.exceptions.RayError, RayServeException) as error:
            if self.name:
                raise Lost(f"{type(error).__name__} of {self.name}") from error
            return error
        finally:
            desk.close.remote(token)

    def _hear(self, stream: Any, token: str) -> Any:
        desk = self.afar.desk
        for item in _items(stream):
            match item:
                case ("begun", name):
                    self.name = name
                    log.info("job %s is at %s", self.job.id, name)
                case ("asked", number, name, values):
                    desk.leave.remote(token, number, answer_of(self.journal, name, values))
                case tuple() if (done := heard(item, self.report, self.name, was_asked=self.asked is not None)) is not None:
                    outcome, device, counts = done
                    return outcome, self.name, device, counts
            self._look(stream, token)
        raise Lost(f"{self.name} fell silent")

    def _look(self, stream: Any, token: str) -> None:
        """Whether somebody wants it to stop. Raises Canceled where nobody would hear it."""
        now = time.monotonic()
        if now - self.looked < _LOOK_SECONDS:
            return
        if not self.name and self.looked and not self.is_waking:
            self.is_waking = True
            self.report("progress", {"node_id": "", "stage": "waking", "step": 0, "total": 0})
        self.looked = now
        if self.asked is None and self.is_canceled():
            self.asked = now
            self.afar.desk.leave.remote(token, STOP, True)
        if self.asked is not None and (not self.name or now - self.asked > _STOP_SECONDS):
            stream.cancel()
            raise Canceled


def name_of_models(workflow: Mapping[str, Any]) -> str:
    """A name for the models that a job loads."""
    inputs = [node.get("inputs", {}) for node in workflow.values() if isinstance(node, dict)]
    names = {str(value) for one in inputs for name, value in one.items() if name in ("ckpt_name", "vae_name", "lora_name")}
    return hashlib.sha256("\n".join(sorted(names)).encode(errors="replace")).hexdigest()[:16]


def _items(stream: Any) -> Iterator[Any]:
    """What comes, and None where nothing has come for a while. Raises what the stream raises."""
    box: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def read() -> None:
        try:
            for item in stream:
                box.put((False, item))
            box.put((True, None))
        except BaseException as error:
            box.put((True, error))

    threading.Thread(target=read, name="stream", daemon=True).start()
    while True:
        try:
            is_over, item = box.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            yield None
            continue
        if not is_over:
            yield item
        elif item is None:
            return
        else:
            raise item
