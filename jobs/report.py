"""Jobs and usage as tables for a terminal."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Sequence

from jobs.history import Usage
from jobs.job import Job

_TITLE_WIDTH = 40


def job_table(jobs: Iterable[Job]) -> str:
    """One line a job: id, status, owner, when it came (UTC), how long it ran, what it is called."""
    rows = [
        (job.id, job.status.value, job.owner or "-", _utc(job.created), f"{job.run_seconds:.1f}", job.title[:_TITLE_WIDTH]) for job in jobs
    ]
    return _table(("job", "status", "owner", "created (UTC)", "seconds", "title"), rows)


def usage_table(usages: Iterable[Usage]) -> str:
    """One line an owner and day, and the sum."""
    usages = list(usages)
    rows = [(usage.owner or "-", usage.day, str(usage.runs), f"{usage.seconds:.1f}") for usage in usages]
    total = "total", "", str(sum(usage.runs for usage in usages)), f"{sum(usage.seconds for usage in usages):.1f}"
    return _table(("owner", "day (UTC)", "runs", "seconds"), [*rows, total])


def usage_csv(usages: Iterable[Usage]) -> str:
    """The same for programs and spreadsheets: no sum, the only user of a server without users is empty."""
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(("owner", "day", "runs", "seconds"))
    table.writerows((usage.owner, usage.day, usage.runs, f"{usage.seconds:.3f}") for usage in usages)
    return lines.getvalue().removesuffix("\n")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
