"""What those who work on jobs are told at the start. Light, so that the command line may import it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.parameters import AUTOMATIC, MachineSettings

GIB = 2**30
FOLDERS = ("models/checkpoints", "models/loras", "models/vae", "input", "output", "custom_nodes", "cache")


@dataclass(frozen=True)
class StoreSettings:
    """`max_queued` 0: no bound. `max_pixel_steps`: how much work one job may be, in pixels times frames times steps; 0: no bound.
    `max_attempts`: so often a job may be lost with whoever does it."""

    data_dir: Path
    database: Path
    max_queued: int = 0
    max_pixel_steps: int = 0
    min_free_bytes: int = 0
    max_attempts: int = 2

    @property
    def queues_path(self) -> Path:
        return self.database.with_name(f"{self.database.stem}-queues{self.database.suffix}")


@dataclass(frozen=True)
class ClusterSettings:
    """`address` of Ray's head; "" starts a cluster on this machine. `gpus` of a replica; None: one where there are any."""

    address: str = ""
    min_replicas: int = 0
    max_replicas: int = 2
    idle_seconds: float = 300.0
    gpus: float | None = None


@dataclass(frozen=True)
class WorkSettings:
    """`idle_unload_seconds`: after so long without a job the memory of models is given back; 0: never. `keep_days`, `keep_bytes`: what of
    the results is kept; None: all. `webhook_private`: webhooks may go to this machine and its network.
    `cluster`: who does the jobs; None: this process, which has a GPU of its own or (`has_lent_gpu`) is lent one for each job."""

    machine: MachineSettings = AUTOMATIC
    cache_bytes: int = 8 * GIB
    idle_unload_seconds: float = 0.0
    keep_days: float | None = None
    keep_bytes: int | None = None
    webhook_private: bool = False
    cluster: ClusterSettings | None = None
    has_lent_gpu: bool = False
