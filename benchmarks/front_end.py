"""How much one server can take, whatever the number of GPUs behind it: submissions, polls and events a second.

    python -m benchmarks.front_end [--seconds 5] [--clients 8] [--listeners 1,10,50] [--folder FOLDER]

The server of `benchmarks.doors`, asked without a pause by clients in one process beside it, so with two cores each has one. Then a job
runs that tells of its progress faster than anyone reads, and listeners take its server-sent events. Prints a table, what these rates
are worth in people who each make a film in ten minutes, and, last, one JSON document; the exit code is 1 if anything was refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.doors import GRAPH, Client, served, start_a_long_job
from jobs.store import JobStore

# What one person's film asks for: one submission, its page's events, and for clients that poll one look a second.
FILM_EVERY_SECONDS, EVENTS_A_FILM, POLLS_A_FILM = 600, 60, 20


def flood(port: int, clients: int, seconds: float, ask: Callable[[Client], None]) -> tuple[float, int]:
    """Calls of `ask` a second of all clients together, and how many requests were refused."""
    everyone, counts, until = [Client(port) for _ in range(clients)], [], time.perf_counter() + seconds

    def go_on(client: Client) -> None:
        count = 0
        while time.perf_counter() < until:
            ask(client)
            count += 1
        counts.append(count)

    began = time.perf_counter()
    together([lambda client=client: go_on(client) for client in everyone])
    taken = time.perf_counter() - began
    for client in everyone:
        client.close()
    return sum(counts) / taken, sum(client.refused for client in everyone)


def together(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def submit(client: Client) -> None:
    client.ask("POST", "/prompt", {"prompt": GRAPH, "prompt_id": str(uuid.uuid4())})


def heard(port: int, job_id: str, listeners: int, seconds: float) -> float:
    """Events a second that all listeners of one job get together."""
    counts: list[int] = []

    def listen() -> None:
        count, until = 0, time.perf_counter() + seconds
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/{job_id}/events", timeout=60) as answer:
            while time.perf_counter() < until:
                count += answer.readline().startswith(b"event:")
        counts.append(count)

    together([listen] * listeners)
    return sum(counts) / seconds


def measure(port: int, store: JobStore, options: argparse.Namespace) -> tuple[dict[str, float], int]:
    store.pause()  # what is submitted waits
    with closing(Client(port)) as client:
        job_id = json.loads(client.ask("POST", "/prompt", {"prompt": GRAPH}))["prompt_id"]
    asked: dict[str, Callable[[Client], None]] = {
        "GET /history/{id}": lambda client: client.ask("GET", f"/history/{job_id}", name="/history/{id}"),
        "GET /api/jobs/{id}": lambda client: client.ask("GET", f"/api/jobs/{job_id}", name="/api/jobs/{id}"),
        "POST /prompt": submit,
    }
    rates, refused = {}, 0
    for name, ask in asked.items():
        rates[name], more = flood(port, options.clients, options.seconds, ask)
        refused += more
    for job in store.positions():
        store.cancel(job)
    store.resume()
    running = start_a_long_job(port)
    for listeners in options.listeners.split(","):
        rates[f"events, {listeners} listeners"] = heard(port, running, int(listeners), options.seconds)
    with closing(Client(port)) as client:
        client.ask("POST", "/interrupt", {"prompt_id": running})
    return rates, refused


def people(rates: dict[str, float]) -> dict[str, int]:
    """Whom the server could bear if it did only this."""
    events = max(rate for name, rate in rates.items() if name.startswith("events"))
    polls = min(rates["GET /history/{id}"], rates["GET /api/jobs/{id}"])
    worth = {"submit": rates["POST /prompt"], "poll": polls / POLLS_A_FILM, "listen": events / EVENTS_A_FILM}
    return {what: int(films_a_second * FILM_EVERY_SECONDS) for what, films_a_second in worth.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.front_end", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--listeners", default="1,10,50", help="numbers of listeners, separated by commas")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, served(Path(folder), has_engine=False) as (port, store):
        rates, refused = measure(port, store, options)
    for name, rate in rates.items():
        print(f"{name:<26}{rate:>8.0f} a second")
    bearable = people(rates)
    print(f"People with a film every ten minutes, if they did only this: {bearable}")
    told: dict[str, Any] = {"clients": options.clients, "seconds": options.seconds, "refused": refused}
    print(json.dumps({"benchmark": "front_end", **told, "rates": rates, "people": bearable}))
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
