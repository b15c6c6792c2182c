"""How long clients wait at ComfyUI's door: alone, many at a time, and many while a job runs.

    python -m benchmarks.doors [--clients 50] [--rounds 4] [--pause 0.2] [--folder FOLDER] [--engine]

A real server in a process of its own, as `app.py serve` has it. Each client submits a workflow, polls its history and the queue, and takes
the workflow out of the line again, so that the line is never longer than there are clients. The job that runs meanwhile multiplies
matrices in the worker's thread; with `--engine` it is a film of the demo checkpoints. The clients are threads of one Python process: what
they wait for each other counts too. Prints a table and, last, one JSON document; the exit code is 1 if anything was refused.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from api.access_settings import AccessSettings
from api.comfy import comfy_routes
from api.downloads import Downloads
from api.metrics import Metrics
from api.queue_jobs import QueueJobs
from api.server import ServerParts, comfy_context, make_server_app
from api.serving import Server, listen
from errors import Canceled
from jobs.job import Job, Outcome
from jobs.service import Service
from jobs.service_settings import StoreSettings, WorkSettings
from jobs.store import JobStore
from pipelines.hub import HubSettings
from workflows.nodes import catalog
from workflows.templates import fill, find_template

POLLS = 5  # of the history, after each submission; and one of the queue
GRAPH = fill(find_template("text_to_film"), {"prompt": "a red boat sails on the sea", "seed": 1, "motion_seed": 2})
LONG = fill(find_template("text_to_film"), {"prompt": "a red boat", "seed": 1, "steps": 10_000, "width": 256, "height": 256})
Taken = dict[str, list[float]]


def multiply(job: Job, report: Callable[[str, dict[str, Any]], None], is_canceled: Callable[[], bool], journal: object) -> Outcome:
    """Until it is canceled; as an engine, it works outside of Python most of the time and tells of every step."""
    import numpy

    values, step = numpy.ones((512, 512), numpy.float32), 0
    report("node", {"node_id": "3"})
    while not is_canceled():
        values = values @ values
        values /= values.max()
        step += 1
        report("progress", {"node_id": "3", "stage": "still", "step": step % 1000, "total": 1000})
    raise Canceled


def serve(folder: Path, has_engine: bool, told: Connection) -> None:
    """Tells its port."""
    store = StoreSettings(folder, folder / "jobs.sqlite")
    with (
        closing(listen("127.0.0.1", 0)) as bound,
        closing(Service(store, WorkSettings(), catalog(), run=None if has_engine else multiply)) as service,
        closing(QueueJobs(service)) as queue_jobs,
    ):
        comfy, access = comfy_routes(comfy_context(service, "benchmark")), AccessSettings(no_auth=True)
        downloads = Downloads(service.settings.data_dir / "models", HubSettings(is_offline=True))
        app = make_server_app(ServerParts(service, queue_jobs, Metrics(service), access, "benchmark", downloads, [comfy]))

        def begin() -> None:
            service.start()
            queue_jobs.start()
            told.send(bound.getsockname()[1])

        Server(app, service, 0, begin).run(sockets=[bound])


class Client:
    """One connection, kept open. `taken`: seconds of each call, by what was asked."""

    def __init__(self, port: int) -> None:
        self.connection, self.taken = http.client.HTTPConnection("127.0.0.1", port, timeout=120), defaultdict(list)
        self.refused = 0

    def close(self) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: Any = None, name: str = "") -> bytes:
        text = None if body is None else json.dumps(body)
        began = time.perf_counter()
        self.connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        got = answer.read()
        self.taken[f"{method} {name or path}"].append(time.perf_counter() - began)
        self.refused += answer.status != 200
        return got

    def work(self, rounds: int, pause_seconds: float) -> None:
        for _ in range(rounds):
            prompt_id = str(uuid.uuid4())
            self.ask("POST", "/prompt", {"prompt": GRAPH, "prompt_id": prompt_id})
            for _ in range(POLLS):
                time.sleep(pause_seconds)
                self.ask("GET", f"/history/{prompt_id}", name="/history/{id}")
            self.ask("GET", "/queue")
            self.ask("POST", "/queue", {"delete": [prompt_id]})


def measured(port: int, clients: int, rounds: int, pause_seconds: float) -> tuple[Taken, int]:
    """All of them at the same time. Seconds of each call, and how many were refused."""
    all_clients = [Client(port) for _ in range(clients)]
    threads = [threading.Thread(target=client.work, args=(rounds, pause_seconds)) for client in all_clients]
    for thread in threads:
        thread.start()
    taken: Taken = defaultdict(list)
    for thread, client in zip(threads, all_clients, strict=True):
        thread.join()
        client.close()
        for name, seconds in client.taken.items():
            taken[name] += seconds
    return taken, sum(client.refused for client in all_clients)


def start_a_long_job(port: int) -> str:
    with closing(Client(port)) as client:
        prompt_id = json.loads(client.ask("POST", "/prompt", {"prompt": LONG}))["prompt_id"]
        while not any(entry[1] == prompt_id for entry in json.loads(client.ask("GET", "/queue"))["queue_running"]):
            time.sleep(0.02)
    return prompt_id


def rows(when: str, taken: Taken) -> list[dict[str, Any]]:
    found = []
    for name, seconds in sorted(taken.items()):
        p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98] if len(seconds) > 1 else seconds[0]
        times = {"p50_ms": statistics.median(seconds) * 1e3, "p99_ms": p99 * 1e3, "most_ms": max(seconds) * 1e3}
        found.append({"when": when, "what": name, "count": len(seconds)} | {key: round(value, 2) for key, value in times.items()})
    return found


def measure(port: int, options: argparse.Namespace, store: JobStore) -> tuple[list[dict[str, Any]], int]:
    store.pause()  # idle: what is submitted waits
    alone, refused = measured(port, 1, options.rounds * 5, options.pause / 10)
    idle, more = measured(port, options.clients, options.rounds, options.pause)
    store.resume()
    prompt_id = start_a_long_job(port)
    if options.engine:
        time.sleep(20)  # PyTorch is loaded, and the models
    beside, most = measured(port, options.clients, options.rounds, options.pause)
    with closing(Client(port)) as client:
        is_running = any(entry[1] == prompt_id for entry in json.loads(client.ask("GET", "/queue"))["queue_running"])
        client.ask("POST", "/interrupt", {"prompt_id": prompt_id})
    if not is_running:
        raise SystemExit("The job ended before the clients did: use fewer rounds.")
    found = [*rows("one client", alone), *rows(f"{options.clients} clients", idle), *rows(f"{options.clients}, a job runs", beside)]
    return found, refused + more + most


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.doors", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4, help="submissions of each client")
    parser.add_argument("--pause", type=float, default=0.2, metavar="SECONDS", help="between two polls of a client")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary folder)")
    parser.add_argument("--engine", action="store_true", help="the job that runs is a film of the demo checkpoints")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, served(Path(folder), options.engine) as (port, store):
        found, refused = measure(port, options, store)
    print(f"{'':<22}{'':<20}{'count':>7}{'p50 ms':>10}{'p99 ms':>10}{'most ms':>10}")
    for one in found:
        print(f"{one['when']:<22}{one['what']:<20}{one['count']:>7}{one['p50_ms']:>10.2f}{one['p99_ms']:>10.2f}{one['most_ms']:>10.2f}")
    told = {"clients": options.clients, "rounds": options.rounds, "pause_seconds": options.pause, "engine": options.engine}
    print(json.dumps({"benchmark": "doors", **told, "refused": refused, "rows": found}))
    return int(refused > 0)


@contextmanager
def served(folder: Path, has_engine: bool) -> Iterator[tuple[int, JobStore]]:
    """The port of a server in a process of its own, and its jobs."""
    context = multiprocessing.get_context("spawn")  # a fork would carry our threads' locks
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(folder, has_engine, theirs))
    process.start()
    try:
        if not ours.poll(60):
            raise SystemExit("The server did not start.")
        with closing(JobStore(folder / "jobs.sqlite")) as store:
            yield ours.recv(), store
    finally:
        process.terminate()
        process.join(30)
        process.kill()
        process.join()


if __name__ == "__main__":
    sys.exit(main())
