"""The simulation against what is known without one."""

from __future__ import annotations

import json
import math
import statistics
import sys
from dataclasses import replace

import pytest

from benchmarks import crowd
from benchmarks.crowd import Crowd, Simulation

ALONE = Crowd(users=1, gpus=1, seconds=(20.0,), start_seconds=7.0, batch_share=0.0)


def test_who_is_alone_never_waits_and_pays_for_a_gpu_that_is_always_on():
    served = Simulation(ALONE).run()
    assert served.films > 100
    assert set(served.singles) == {0.0}
    assert served.busy == 20 * served.films
    assert served.on == 5 * 86_400


def test_where_gpus_stop_at_once_everyone_waits_for_a_start_and_nothing_is_paid_but_starts_and_films():
    served = Simulation(replace(ALONE, idle_seconds=0.0)).run()
    assert served.singles == pytest.approx([7.0] * served.films)
    assert served.on == pytest.approx(27 * served.films)


def test_a_gpu_that_rests_is_paid_for_its_idle_time():
    served = Simulation(replace(ALONE, idle_seconds=30.0)).run()
    warm = sum(wait < 1e-6 for wait in served.singles)
    assert 0 < warm < served.films / 4  # few come back within half a minute
    cold = served.films - warm
    assert 27 * cold + 20 * warm + 30 * cold <= served.on <= 57 * cold + 50 * warm


def machine_repair_wait(users: int, think: float, service: float) -> float:
    """Mean wait in the queue M/M/1//N (Kleinrock, Queueing Systems I, 1975, 3.8)."""
    load = service / think
    weights = [math.factorial(users) / math.factorial(users - k) * load**k for k in range(users + 1)]
    waiting = sum(max(0, k - 1) * weight for k, weight in enumerate(weights))
    served = (sum(weights) - weights[0]) / service
    return waiting / served


def test_the_mean_wait_is_that_of_queueing_theory():
    exponential = tuple(-10 * math.log(1 - (k + 0.5) / 400) for k in range(400))
    served = Simulation(Crowd(6, 1, exponential, 0.0, think_seconds=60.0, batch_share=0.0, days=20)).run()
    assert statistics.fmean(served.singles) == pytest.approx(machine_repair_wait(6, 60.0, 10.0), rel=0.05)


def test_taking_turns_spares_those_who_want_one_film_the_wait_for_those_who_want_twenty():
    many = Crowd(users=20, gpus=2, seconds=(20.0,), start_seconds=0.0, think_seconds=300.0)
    turns, arrival = (Simulation(replace(many, takes_turns=takes_turns)).run() for takes_turns in (True, False))
    assert statistics.median(turns.singles) < statistics.median(arrival.singles) / 3
    assert turns.busy == 20 * turns.films


def test_a_table_and_one_json_document(tmp_path, monkeypatch, capsys):
    seconds = tmp_path / "seconds.json"
    seconds.write_text(json.dumps({"film_seconds": [10, 20], "start_seconds": 5}))
    monkeypatch.setattr(sys, "argv", ["crowd", "--users", "4", "--gpus", "1,2", "--days", "1", "--seconds", str(seconds)])
    assert crowd.main() == 0
    *table, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)["rows"]
    assert len(table) == len(rows) + 1 == 9
    assert all(row["busy_hours_a_day"] <= row["gpu_hours_a_day"] + 1e-9 for row in rows if row["stops_after_seconds"])
