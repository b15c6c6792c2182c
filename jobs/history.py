"""What has been and what is: lists, counts, marks, deletion that can be undone, and who used how much."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from errors import UnknownJobError
from jobs.job import ENDED, FILM_SUFFIXES, Job, JobStatus, Outcome, Submission
from jobs.progress import JobEvent
from jobs.rows import check_id, check_text, file_columns, outcome_columns, submitted_columns, to_json, words_of
from jobs.table import JobTable, check_status, marks

_RESULT = re.compile(r"(?:(?P<subfolder>.+)/)?(?P<filename>[^/]+) \[(?P<type>output|temp)\]")
_WORDS = re.compile(r'"([^"]*)"|([^\s"]+)')
_SIGNS = re.compile(r"[\\%_]")  # those that LIKE understands
_FILM = " OR ".join(f"filename LIKE '%{suffix}'" for suffix in FILM_SUFFIXES)
_SHOWN = "SELECT 1 FROM files WHERE job = seq AND kind <> 'beside'"
_MAKES = {"film": f"EXISTS ({_SHOWN} AND ({_FILM}))", "still": f"EXISTS ({_SHOWN}) AND NOT EXISTS ({_SHOWN} AND ({_FILM}))", "": ""}
_BATCHES = f"""
    SELECT batch, min(seq) AS first, {", ".join(f"sum(status = '{status.value}') AS {status.value}" for status in JobStatus)}
    FROM jobs WHERE owner = :owner AND batch IS NOT NULL AND deleted_at IS NULL
    GROUP BY batch HAVING count(*) > 1 ORDER BY max(seq) DESC LIMIT :limit
"""


@dataclass(frozen=True)
class Page:
    """`cursor` gives the next page; None if this is the last."""

    jobs: list[Job]
    cursor: int | None


@dataclass(frozen=True)
class Batch:
    """Jobs that were asked for together, without those that are deleted. `first`: the one that came first."""

    id: str
    first: Job
    counts: dict[JobStatus, int]

    @property
    def count(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Usage:
    """What one owner used on one day (UTC, "2026-03-07"), failed and canceled runs included. `seconds` are those of the stages in which
    something is generated: neither the start of PyTorch nor the loading of models counts, since who comes first is no reason to pay."""

    owner: str
    day: str
    seconds: float
    runs: int


class History(JobTable):
    def list_jobs(
        self,
        *,
        status: JobStatus | Iterable[JobStatus] | None = None,
        owner: str | None = None,
        batch: str | None = None,
        tag: str | None = None,
        text: str = "",
        template: str | None = None,
        is_favourite: bool | None = None,
        is_deleted: bool = False,
        has_files: bool = False,
        makes: Literal["", "film", "still"] = "",
        since: float | None = None,
        until: float | None = None,
        cursor: int | None = None,
        limit: int = 50,
    ) -> Page:
        """The newest first. All words of `text`, or what stands there in quotes, are looked for in the title, the tags and what the nodes
        were told in words, in small or capital letters. `makes`: only what has a film, or pictures and no film. `since` and `until`: when
        it was asked for, the second not included."""
        statuses = [status] if isinstance(status, str) else list(status or ())
        wanted = wanted_words(text)
        is_open = bool(statuses) and not set(statuses) & set(ENDED)
        are_few = is_open or is_favourite
        by_status, by_owner = ("" if is_open else "+"), ("+" if are_few else "")  # a plus keeps SQLite from the index of many
        conditions: dict[str, Sequence[Any]] = {
            f"{by_owner}owner = ?": _given(owner),
            f"{by_status}status IN ({marks(statuses) or '?'})": statuses,
            f"deleted_at IS {'NOT ' if is_deleted else ''}NULL": (),
            "batch = ?": _given(batch),
            "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)": _given(tag),
            "json_extract(extra, '$.template') = ?": _given(template),
            " AND ".join(["words LIKE ? ESCAPE '\\'"] * len(wanted)): wanted,
            {None: "", True: "is_favourite", False: "NOT is_favourite"}[is_favourite]: (),
            "created >= ?": _given(since),
            "created < ?": _given(until),
            "EXISTS (SELECT 1 FROM files WHERE job = seq)" if has_files else "": (),
            _MAKES[makes]: (),
            "seq < ?": _given(cursor),
        }
        used = {sql: values for sql, values in conditions.items() if sql and (values or "?" not in sql)}
        sql = f"SELECT * FROM jobs WHERE {' AND '.join(used)} ORDER BY seq DESC LIMIT ?"
        with self.database.connection() as connection:
            rows = connection.execute(sql, [*(value for values in used.values() for value in values), limit + 1]).fetchall()
            shown = rows[:limit]
            return Page(self._jobs(connection, shown), shown[-1]["seq"] if len(rows) > limit and shown else None)

    def counts(self, owner: str | None = None) -> dict[JobStatus, int]:
        """How many jobs there are in each status, without those that are deleted."""
        of_owner = "" if owner is None else "AND owner = :owner"
        sql = f"SELECT status, count(*) FROM jobs WHERE deleted_at IS NULL {of_owner} GROUP BY status"
        found = dict(map(tuple, self.database.read(sql, {"owner": owner})))
        return {status: found.get(status, 0) for status in JobStatus}

    def batches(self, owner: str, limit: int = 10) -> list[Batch]:
        """This owner's, of several jobs each; the newest first."""
        with self.database.connection() as connection:
            rows = connection.execute(_BATCHES, {"owner": owner, "limit": limit}).fetchall()
            firsts = connection.execute(f"SELECT * FROM jobs WHERE seq IN ({marks(rows)})", [row["first"] for row in rows]).fetchall()
            jobs = {job.batch: job for job in self._jobs(connection, firsts)}
            return [Batch(row["batch"], jobs[row["batch"]], {status: row[status.value] for status in JobStatus}) for row in rows]

    def open_ids(self, owner: str | None = None) -> list[str]:
        """Of the jobs that run or wait."""
        sql = "SELECT id FROM jobs WHERE status IN ('running', 'queued') AND (:owner IS NULL OR owner = :owner)"
        return [row["id"] for row in self.database.read(sql, {"owner": owner})]

    def owners_of(self, filename: str, subfolder: str = "", type: str = "output") -> set[str]:
        """Of every job that made this file or got it from the cache."""
        sql = "SELECT DISTINCT owner FROM files JOIN jobs ON seq = job WHERE filename = ? AND subfolder = ? AND type = ?"
        return {row["owner"] for row in self.database.read(sql, (filename, subfolder, type))}

    def title_of_file(self, owner: str, name: str) -> str:
        """What the job is called that made it; "" if nobody knows. `name` as workflows name a result: "folder/film.mp4 [output]"."""
        place = _RESULT.fullmatch(name)
        if not place:
            return ""
        sql = """
            SELECT title FROM files JOIN jobs ON seq = job
            WHERE filename = ? AND subfolder = ? AND type = ? AND owner = ? AND title <> filename ORDER BY seq LIMIT 1
        """
        values = place["filename"], place["subfolder"] or "", place["type"], owner
        return next((row["title"] for row in self.database.read(sql, values)), "")

    def favourite(self, job_id: str, on: bool = True) -> Job:
        """Raises UnknownJobError."""
        return self._mark(job_id, {"is_favourite": on})

    def set_title(self, job_id: str, title: str) -> Job:
        """Raises UnknownJobError, InputError."""
        job = self.get(job_id)
        return self._mark(job_id, {"title": check_text("title", title), "words": words_of(title, job.tags, job.workflow)})

    def set_tags(self, job_id: str, tags: Iterable[str]) -> Job:
        """Raises UnknownJobError."""
        job, kept = self.get(job_id), list(tags)
        return self._mark(job_id, {"tags": to_json(kept), "words": words_of(job.title, kept, job.workflow)})

    def delete(self, job_id: str) -> Job:
        """Out of sight, until it is purged or the deletion is undone. Raises UnknownJobError, JobStateError if it has not ended."""
        with self._changing() as (connection, events):
            job = self._job(connection, job_id)
            check_status(job, ENDED, "deleted")
            job = self._update(connection, job_id, job.status, {"deleted_at": self.clock()})
            events.append(JobEvent(job_id, "deleted", {"job": job}))
        return job

    def undo_delete(self, job_id: str) -> Job:
        """Raises UnknownJobError if it was purged meanwhile."""
        return self._mark(job_id, {"deleted_at": None})

    def clear_history(self, owner: str | None = None) -> list[str]:
        """Delete what has ended, of this owner or of all, but for favourites; gives the ids, so that it can be undone."""
        sql = f"""UPDATE jobs SET deleted_at = ? WHERE status IN ({marks(ENDED)}) AND deleted_at IS NULL AND NOT is_favourite
                  AND owner = coalesce(?, owner) RETURNING id"""
        with self._changing() as (connection, events):
            ids = [row["id"] for row in connection.execute(sql, (self.clock(), *ENDED, owner)).fetchall()]
            events += [JobEvent(job_id, "deleted", {"job": self._job(connection, job_id)}) for job_id in ids]
        return ids

    def usage(self, owner: str | None = None, since: float | None = None) -> list[Usage]:
        """Seconds of generation by owner and day, each run counted on the day on which it ended. What was deleted or purged still
        counts; a run that was put back into the queue does not. `since` counts from the beginning of its day."""
        first = "" if since is None else time.strftime("%Y-%m-%d", time.gmtime(since))
        sql = "SELECT owner, day, seconds, runs FROM usage WHERE owner = coalesce(?, owner) AND day >= ? ORDER BY owner, day"
        return [Usage(*row) for row in self.database.read(sql, (owner, first))]

    def restore(self, submission: Submission, outcome: Outcome, created: float) -> bool:
        """A job that is known from its files alone, as one that has succeeded then. False if it is there already."""
        with self._changing() as (connection, _):
            if connection.execute("SELECT 1 FROM jobs WHERE id = ?", (submission.job_id,)).fetchone():
                return False
            row = submitted_columns(submission) | outcome_columns(outcome)
            seq = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'jobs'").fetchone()[0]
            row |= {"seq": seq, "id": check_id(submission.job_id or ""), "number": seq, "created": created, "queued": created}
            row |= {"started": created, "ended": created, "status": JobStatus.SUCCEEDED, "is_whole": False}
            connection.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})", row)
            connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", file_columns(seq, outcome.all_files()))
        return True

    def _mark(self, job_id: str, values: dict[str, Any]) -> Job:
        """Change what is not the job's life."""
        with self._changing() as (connection, _):
            names = ", ".join(f"{name} = :{name}" for name in values)
            if not connection.execute(f"UPDATE jobs SET {names} WHERE id = :_id", values | {"_id": job_id}).rowcount:
                raise UnknownJobError(job_id)
            return self._job(connection, job_id)


def wanted_words(text: str) -> list[str]:
    """Patterns for LIKE, one of each word, or of words in quotes."""
    found = [" ".join((quoted or word).split()) for quoted, word in _WORDS.findall(text.casefold())]
    return ["%" + _SIGNS.sub(r"\\\g<0>", one) + "%" for one in found if one]


def _given(value: Any) -> tuple[Any, ...]:
    return () if value is None else (value,)
