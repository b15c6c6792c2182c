"""What the pipelines tell while they work. No torch here, so that everything above may import it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from errors import Canceled

STAGES = ("loading", "still", "motion", "decoding", "encoding")


@dataclass(frozen=True)
class Progress:
    """`step` of `total` in `stage` is about to begin; `step` equals `total` when the stage is over. Loading counts MiB. `node`: of the
    workflow, whose work it is."""

    stage: str
    step: int
    total: int
    node: str = ""


Report = Callable[[Progress], None]
IsCanceled = Callable[[], bool]


def silent(progress: Progress) -> None:
    """A `Report` for callers who do not want any."""


def never() -> bool:
    """An `IsCanceled` for callers who never cancel."""
    return False


class Steps:
    """Counts the steps of one stage: call it before each. Raises Canceled as soon as somebody asked to stop."""

    def __init__(self, stage: str, total: int, report: Report, is_canceled: IsCanceled) -> None:
        self.stage, self.total, self.report, self.is_canceled, self.step = stage, total, report, is_canceled, 0

    def begin(self) -> None:
        """The stage has begun, though not its first step: something has to be prepared."""
        self.check()
        self.report(Progress(self.stage, 0, self.total))

    def check(self) -> None:
        """Raises Canceled if somebody asked to stop."""
        if self.is_canceled():
            raise Canceled

    def __call__(self) -> None:
        self.check()
        self.report(Progress(self.stage, self.step, self.total))
        self.step += 1

    def reach(self, step: int) -> None:
        """So much is done, of a stage that is not counted in calls; told when it changes."""
        self.check()
        if step != self.step:
            self.step = step
            self.report(Progress(self.stage, step, self.total))

    def done(self) -> None:
        self.check()
        self.report(Progress(self.stage, self.total, self.total))
