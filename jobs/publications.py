"""Which files of a job are out: written down before a file gets its name, and again after, so that a job that is run again after a
crash publishes each file once."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.table import JobTable

_INTEND = """
    INSERT INTO publications SELECT seq, :node_id, :key, :position, :part, :target, 0 FROM jobs WHERE id = :job_id
    ON CONFLICT DO UPDATE SET part = excluded.part, target = excluded.target WHERE NOT is_published
    RETURNING 1
"""
_PUBLISHED = """
    UPDATE publications SET is_published = 1, target = coalesce(:target, target)
    WHERE job = (SELECT seq FROM jobs WHERE id = :job_id) AND node_id = :node_id AND key = :key AND position = :position
    RETURNING 1
"""
_ALL = """
    SELECT node_id, key, position, part, target, is_published FROM publications
    WHERE job = (SELECT seq FROM jobs WHERE id = ?) ORDER BY publications.rowid
"""


@dataclass(frozen=True)
class Publication:
    """`position` counts the files of one node with one key. `part` is where it is written, `target` the name that it gets."""

    node_id: str
    key: str
    position: int
    part: str
    target: str
    is_published: bool


class Publications(JobTable):
    def intend(self, job_id: str, node_id: str, key: str, position: int, part: str, target: str) -> bool:
        """A file is about to get its name. False if it is out already (or the job is gone): then do not publish it again."""
        values = {"job_id": job_id, "node_id": node_id, "key": key, "position": position, "part": part, "target": target}
        return bool(self.database.write(_INTEND, values))

    def published(self, job_id: str, node_id: str, key: str, position: int, target: str | None = None) -> bool:
        """It has its name, which `target` says if it is another than was intended. False if it was never intended."""
        values = {"job_id": job_id, "node_id": node_id, "key": key, "position": position, "target": target}
        return bool(self.database.write(_PUBLISHED, values))

    def publications(self, job_id: str) -> list[Publication]:
        """In the order in which they were intended."""
        return [Publication(*row[:5], bool(row["is_published"])) for row in self.database.read(_ALL, (job_id,))]

    def journal(self, job_id: str) -> Journal:
        return Journal(self, job_id)


@dataclass(frozen=True)
class Journal:
    """The publications of one job, for whoever runs it."""

    store: Publications
    job_id: str

    def intend(self, node_id: str, key: str, position: int, part: str, target: str) -> bool:
        return self.store.intend(self.job_id, node_id, key, position, part, target)

    def published(self, node_id: str, key: str, position: int, target: str | None = None) -> bool:
        return self.store.published(self.job_id, node_id, key, position, target)

    def entries(self) -> list[Publication]:
        return self.store.publications(self.job_id)
