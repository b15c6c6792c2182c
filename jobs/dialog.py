"""What another process says of a job that it does for us, as tuples, and what we make of it. It says, in order:

("told", kind, data), as `JobEvent`     ("asked", number, name, values), of the journal, which is answered
and one of: ("done", outcome, device, cache_counts), ("canceled",), ("failed", error), ("broken", text)
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from errors import Canceled, StillmotionError
from jobs.job import Failure, Job, Outcome
from jobs.publications import Journal
from jobs.runner import Report, Runner
from jobs.worker import Lost
from pipelines.progress import IsCanceled

Done = tuple[Outcome, Mapping[str, Any] | None, tuple[int, int]]  # with the device's report, and hits and misses of the cache


class Closed(Exception):
    """The front does not wait for this run any more."""


class BrokenReplica(Exception):
    """A mistake of ours in the other process; the text is its traceback."""


def work_there(
    runner: Runner, job: Job, say: Callable[..., None], is_canceled: IsCanceled, journal: Any, gone: tuple[type[Exception], ...] = ()
) -> None:
    """In the other process: does the job and says everything of it. `gone`: what is raised there when nobody listens any more."""
    try:
        outcome = runner.work(job, lambda kind, data: say("told", kind, data), is_canceled, journal)
        say("done", outcome, runner.device(), runner.cache_counts())
    except (Canceled, Closed, *gone):
        say("canceled")
    except StillmotionError as error:
        say("failed", error if type(error).__module__ == "errors" else Failure.of(error))
    except BaseException as error:
        say("broken", "".join(traceback.format_exception(error)))


def heard(item: tuple[Any, ...], report: Report, name: str, *, was_asked: bool) -> Done | None:
    """Here: the end, if it is one. `name` of who says it; `was_asked` to stop. Raises StillmotionError, Canceled, Lost, BrokenReplica."""
    match item:
        case ("told", kind, data):
            report(kind, data)
        case ("done", outcome, device, counts):
            return outcome, device, counts
        case ("canceled",):
            raise Canceled if was_asked else Lost(f"{name} has stopped")
        case ("failed", error):
            raise error if isinstance(error, Exception) else _foreign(error)
        case ("broken", text):
            raise BrokenReplica(text)
    return None


def answer_of(journal: Journal, name: str, values: tuple[Any, ...]) -> Any:
    """To ("asked", number, name, values): what the journal says, or the error that it raises."""
    try:
        return getattr(journal, name)(*values)
    except StillmotionError as error:
        return error


class AskingJournal:
    """The job's journal, as the other process has it. `ask(name, values)` gives the answer. Raises StorageError if the front cannot keep
    it, and what `ask` raises if nobody waits for us any more."""

    def __init__(self, ask: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self._ask = ask

    def found(self, node: str, key: str) -> tuple[dict[str, Any], list[Any]] | None:
        return self._asked("found", node, key)

    def told(self, node: str, key: str, part: Any, target: Any) -> None:
        self._asked("told", node, key, part, target)

    def written(self, node: str, key: str, ui: dict[str, Any], files: Any) -> None:
        self._asked("written", node, key, ui, files)

    def _asked(self, name: str, *values: Any) -> Any:
        answer = self._ask(name, values)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _foreign(failure: Failure) -> StillmotionError:
    """An error of a class that only the other process knows, as a custom node's may be."""
    error = StillmotionError(failure.message, failure.hint)
    error.code, error.node, error.details = failure.code, failure.node, failure.details
    return error
