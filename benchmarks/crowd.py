"""How long a crowd waits, and what its GPUs cost: a simulation with measured service times.

    python -m benchmarks.crowd [--users 100] [--gpus 1,2,4,8,16,32] [--days 5] [--think 600] [--seconds FILE] [--plot FILE]

People ask for a film between 9 and 18 o'clock, wait for it, look at it, and ask for the next after a while (exponential). One visit in ten
asks for twenty films at once. A film takes one GPU for as long as films took that were measured (`recorded/film_seconds.json`: the
`run_seconds` of jobs, and what a start from nothing takes). Jobs are given out as the table of jobs does it: owners take turns, in the
order of their last turn; within one the first comes first. For comparison the same crowd is served by arrival alone. GPUs are either
always on, or started one for each waiting job that none is being started for, and stopped after an idle time.

It is a discrete-event simulation: exact but for chance, which `--seed` repeats. It knows nothing of failures, of networks, or of models
that are not yet loaded. Prints a table and, last, one JSON document. `--plot` wants matplotlib (requirements-benchmarks.txt).
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
import sys
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded" / "film_seconds.json"
DAY, OPENS, CLOSES = 86_400.0, 9 * 3600.0, 18 * 3600.0
BATCH = 20


@dataclass(frozen=True)
class Crowd:
    """`seconds`: of films that were measured. `idle_seconds`: after which a GPU is stopped; infinite where all are always on."""

    users: int
    gpus: int
    seconds: tuple[float, ...]
    start_seconds: float
    think_seconds: float = 600.0
    idle_seconds: float = math.inf
    takes_turns: bool = True
    batch_share: float = 0.1
    days: int = 5
    seed: int = 1


@dataclass
class Served:
    """`singles`: seconds from asking for one film to its start. `firsts`: of the first of many. Seconds of GPUs in all."""

    singles: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    busy: float = 0.0
    on: float = 0.0
    films: int = 0


@dataclass
class Visit:
    owner: int
    asked: float
    films: int
    left: int = 0
    has_begun: bool = False


class Simulation:
    def __init__(self, crowd: Crowd) -> None:
        self.crowd, self.served, self.rng = crowd, Served(), random.Random(crowd.seed)
        self.events: list[tuple[float, int, str, Any]] = []
        self.waiting: dict[int, deque[Visit]] = {}  # one entry a film, by owner
        self.turns: dict[int, int] = {}
        self.idle: list[float] = [0.0] * (crowd.gpus if math.isinf(crowd.idle_seconds) else 0)  # since when, of each
        self.starting, self.on, self.counted = 0, len(self.idle), 0

    def run(self) -> Served:
        for owner in range(self.crowd.users):
            self._think(owner, OPENS)
        while self.events:
            now, _, kind, what = heapq.heappop(self.events)
            getattr(self, f"_{kind}")(now, what)
        if math.isinf(self.crowd.idle_seconds):
            self.served.on = self.crowd.gpus * self.crowd.days * DAY
        return self.served

    def _later(self, when: float, kind: str, what: Any) -> None:
        self.counted += 1  # of two events at one time the earlier made comes first
        heapq.heappush(self.events, (when, self.counted, kind, what))

    def _think(self, owner: int, now: float) -> None:
        """The next visit: after a while, or on the next morning."""
        when = now + self.rng.expovariate(1 / self.crowd.think_seconds)
        if not OPENS <= when % DAY < CLOSES:
            morning = (now // DAY) * DAY + (DAY if now % DAY >= OPENS else 0) + OPENS
            when = morning + self.rng.expovariate(1 / self.crowd.think_seconds)
        if when < self.crowd.days * DAY:
            self._later(when, "ask", owner)

    def _ask(self, now: float, owner: int) -> None:
        films = BATCH if self.rng.random() < self.crowd.batch_share else 1
        self.waiting.setdefault(owner, deque()).extend([Visit(owner, now, films, films)] * films)
        self._give_out(now)

    def _give_out(self, now: float) -> None:
        while self.idle and self.waiting:
            self.idle.sort()
            self.idle.pop()  # the one that worked last, so that the others may rest
            self._begin(now)
        wanted = sum(map(len, self.waiting.values())) - self.starting
        for _ in range(min(wanted, self.crowd.gpus - self.on)):
            self.starting, self.on = self.starting + 1, self.on + 1
            self._later(now + self.crowd.start_seconds, "started", now)

    def _begin(self, now: float) -> None:
        visit = self._next()
        if not visit.has_begun:
            visit.has_begun = True
            (self.served.singles if visit.films == 1 else self.served.firsts).append(now - visit.asked)
        taken = self.rng.choice(self.crowd.seconds)
        self.served.busy += taken
        self.served.films += 1
        self._later(now + taken, "ended", (visit, taken))

    def _next(self) -> Visit:
        if self.crowd.takes_turns:
            owner = min(self.waiting, key=lambda owner: (self.turns.get(owner, -1), self.waiting[owner][0].asked))
        else:
            owner = min(self.waiting, key=lambda owner: self.waiting[owner][0].asked)
        self.turns[owner] = self.served.films
        visit = self.waiting[owner].popleft()
        if not self.waiting[owner]:
            del self.waiting[owner]
        return visit

    def _ended(self, now: float, told: tuple[Visit, float]) -> None:
        visit, taken = told
        self.served.on += taken
        visit.left -= 1
        if not visit.left:
            self._think(visit.owner, now)
        self._rest(now)

    def _started(self, now: float, since: float) -> None:
        self.starting -= 1
        self.served.on += now - since
        self._rest(now)

    def _rest(self, now: float) -> None:
        self.idle.append(now)
        self._give_out(now)
        if now in self.idle and math.isfinite(self.crowd.idle_seconds):
            self._later(now + self.crowd.idle_seconds, "tired", now)

    def _tired(self, now: float, since: float) -> None:
        if since in self.idle:  # it has had no work in between
            self.idle.remove(since)
            self.on -= 1
            self.served.on += now - since


def figures(crowd: Crowd) -> dict[str, Any]:
    served = Simulation(crowd).run()
    return {
        "gpus": crowd.gpus,
        "stops_after_seconds": None if math.isinf(crowd.idle_seconds) else crowd.idle_seconds,
        "takes_turns": crowd.takes_turns,
        "films_a_day": served.films / crowd.days,
        "wait_p50": quantile(served.singles, 50),
        "wait_p95": quantile(served.singles, 95),
        "batch_wait_p95": quantile(served.firsts, 95),
        "gpu_hours_a_day": served.on / crowd.days / 3600,
        "busy_hours_a_day": served.busy / crowd.days / 3600,
    }


def quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (waits, costs) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, of_kind in _kinds(rows).items():
        gpus = [row["gpus"] for row in of_kind]
        (line,) = waits.plot(gpus, [max(row["wait_p95"], 0.1) for row in of_kind], marker="o", label=f"{name}, 95th percentile")
        waits.plot(gpus, [max(row["wait_p50"], 0.1) for row in of_kind], marker="o", linestyle=":", color=line.get_color())
        costs.plot(gpus, [row["gpu_hours_a_day"] for row in of_kind], marker="o", label=name)
    costs.plot(gpus, [row["busy_hours_a_day"] for row in of_kind], color="gray", linestyle="--", label="films alone")
    waits.set(title="Wait for one film (dotted: median)", xlabel="GPUs", ylabel="seconds", xscale="log", yscale="log")
    costs.set(title="GPUs that are on", xlabel="GPUs", ylabel="hours a day", xscale="log", yscale="log")
    for axes in (waits, costs):
        axes.set_xticks(gpus, [str(count) for count in gpus])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)


def _kinds(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(_kind(row), []).append(row)
    return found


def _kind(row: dict[str, Any]) -> str:
    stops = row["stops_after_seconds"]
    return ("always on" if stops is None else f"off after {stops:.0f} s") + ("" if row["takes_turns"] else ", by arrival")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.crowd", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--gpus", default="1,2,4,8,16,32", help="numbers of GPUs, separated by commas")
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--think", type=float, default=600.0, help="seconds between a film and the next visit, on average")
    parser.add_argument("--stops", default="60,600", help="idle seconds after which a GPU is stopped, separated by commas")
    parser.add_argument("--seconds", type=Path, default=RECORDED, help="JSON: film_seconds, a list, and start_seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="draw it into this file")
    options = parser.parse_args()
    recorded = json.loads(options.seconds.read_text())
    told = {"think_seconds": options.think, "days": options.days, "seed": options.seed}
    plain = Crowd(options.users, 1, tuple(recorded["film_seconds"]), recorded["start_seconds"], **told)
    ways = [plain, replace(plain, takes_turns=False), *(replace(plain, idle_seconds=float(stop)) for stop in options.stops.split(","))]
    rows = [figures(replace(way, gpus=int(count))) for way in ways for count in options.gpus.split(",")]
    print(f"{'':<24}{'GPUs':>5}{'films/day':>11}{'wait p50':>10}{'wait p95':>10}{'batch p95':>11}{'on h/day':>10}{'busy h/day':>12}")
    for row in rows:
        print(
            f"{_kind(row):<24}{row['gpus']:>5}{row['films_a_day']:>11.0f}{row['wait_p50']:>10.1f}{row['wait_p95']:>10.1f}"
            f"{row['batch_wait_p95']:>11.1f}{row['gpu_hours_a_day']:>10.1f}{row['busy_hours_a_day']:>12.1f}"
        )
    if options.plot:
        plot(rows, options.plot)
    mean = statistics.fmean(plain.seconds)
    told |= {"users": options.users, "mean_film_seconds": mean, "start_seconds": plain.start_seconds}
    print(json.dumps({"benchmark": "crowd", **told, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
