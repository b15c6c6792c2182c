"""A store in a temporary folder, its clock in our hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import database
from jobs.job import Job, Outcome, Submission
from jobs.store import JobStore

ROOT = Path(__file__).parents[2]


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of commits a second. A killed process loses nothing by it, only a machine without power would."""
    if request.path.name != "test_database.py":
        monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[JobStore]:
    store = JobStore(path, clock)
    yield store
    store.close()


@pytest.fixture
def submit(store: JobStore) -> Callable[..., Job]:
    def submit(owner: str = "", **values: object) -> Job:
        return store.submit(Submission(values.pop("workflow", {"1": {"class_type": "X", "inputs": {}}}), owner=owner, **values))

    return submit


@pytest.fixture
def run_one(store: JobStore, clock: Clock) -> Callable[..., Job]:
    """Claim the next job and let it succeed after so many seconds."""

    def run_one(seconds: float = 1.0, outcome: Outcome | None = None) -> Job:
        job = store.claim("test")
        clock.advance(seconds)
        assert store.finish(job.id, outcome or Outcome(device="cpu"))
        return store.get(job.id)

    return run_one


@pytest.fixture
def child(path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Another process, which has a `store` on the same file. Its lines are read from `stdout`."""
    started: list[subprocess.Popen[str]] = []

    def child(code: str) -> subprocess.Popen[str]:
        head = f"import time\nfrom jobs.job import *\nfrom jobs.store import JobStore\nstore = JobStore({str(path)!r})\n"
        command = [sys.executable, "-W", "error", "-c", head + code]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True))
        return started[-1]

    yield child
    for process in started:
        process.kill()
        process.communicate()
