"""What `--executor ray` and its companions may be, and what follows from them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from errors import InputError
from jobs.service_settings import ClusterSettings
from pipelines.parameters import MachineSettings

EXECUTORS = ("local", "ray")
LOST_AFAR = 5  # machines come and go: that a job is lost with one says little about it


def executor(text: str) -> str:
    if text not in EXECUTORS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither local nor ray")
    return text


def replicas(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def ray_address(text: str) -> str:
    """A name, or an address that the internet does not reach: whoever reaches a cluster of Ray's and knows its token may run anything."""
    host = text.rpartition(":")[0] or text
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is an address for Ray's clients; give that of its head, such as 10.0.0.5:6379")
    try:
        is_public = ip_address(host.strip("[]")).is_global
    except ValueError:  # a name
        is_public = False
    if is_public:
        raise argparse.ArgumentTypeError(f"{host} can be reached from the internet, where no cluster of Ray's belongs")
    return text


def cluster_settings(given: Mapping[str, Any], machine: MachineSettings) -> ClusterSettings | None:
    """None for this process alone. Raises InputError."""
    least, most = given["min_replicas"], given["max_replicas"]
    if given["executor"] == "local":
        if given["ray_address"]:
            raise InputError("--ray-address is given, but this process does the jobs itself.", "Add --executor ray.")
        return None
    if least > most:
        raise InputError(f"--min-replicas is {least}, but --max-replicas {most}.", "The least cannot be more than the most.")
    gpus = None if machine.device == "auto" else int(machine.device.startswith("cuda"))
    return ClusterSettings(given["ray_address"], least, most, given["replica_idle"], gpus)
