"""Which files of a job are out: written down before a file gets its name, and again when all of a node's are there. So a job that is run
again after a crash finds what is out, takes back what is half out, and writes each file exactly once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.table import JobTable
from pipelines.filenames import identity

_JOB = "(SELECT seq FROM jobs WHERE id = :job_id)"
_OF_NODE = f"job = {_JOB} AND node_id = :node_id"
_LAST = "(SELECT coalesce(max(position), -1) + 1 FROM publications WHERE job = seq AND node_id = :node_id AND key = :key)"
_INTEND = f"""
    INSERT INTO publications (job, node_id, key, position, part, target, file, is_published)
    SELECT seq, :node_id, :key, {_LAST}, :part, :target, :file, 0 FROM jobs WHERE id = :job_id
"""
_PUBLISH = f"""
    INSERT INTO publications (job, node_id, key, position, part, target, file, is_published)
    VALUES ({_JOB}, :node_id, :key, :position, '', :target, :file, 1)
"""
_ENTRIES = f"SELECT key, position, part, target, file, is_published FROM publications WHERE {_OF_NODE} ORDER BY rowid"
_WRITTEN = f"SELECT ui FROM written WHERE {_OF_NODE} AND key = :key"


@dataclass(frozen=True)
class Publication:
    """`position` counts the files of one node with one key. `part` is where it is written, `target` the name that it gets, `file` tells
    it from every other file (see `identity`)."""

    key: str
    position: int
    part: str
    target: str
    file: str
    is_published: bool


class Publications(JobTable):
    def intend(self, job_id: str, node_id: str, key: str, part: str, target: str) -> None:
        """A finished file is about to get its name; if the same was about to get another, that was taken."""
        values = {"job_id": job_id, "node_id": node_id, "key": key, "part": part, "target": target, "file": identity(Path(part))}
        with self.database.lock, self.database.transaction() as connection:
            connection.execute(f"DELETE FROM publications WHERE {_OF_NODE} AND part = :part AND NOT is_published", values)
            connection.execute(_INTEND, values)

    def written(self, job_id: str, node_id: str, key: str, ui: dict[str, Any], targets: Sequence[str]) -> None:
        """All files of the node are there, and `ui` is what it shows of them. What was intended under other names is forgotten."""
        values = {"job_id": job_id, "node_id": node_id, "key": key}
        with self.database.lock, self.database.transaction() as connection:
            connection.execute(f"DELETE FROM publications WHERE {_OF_NODE}", values)
            for position, target in enumerate(targets):
                connection.execute(_PUBLISH, values | {"position": position, "target": target, "file": identity(Path(target))})
            ui_text = {"ui": json.dumps(ui)}
            connection.execute(f"INSERT OR REPLACE INTO written VALUES ({_JOB}, :node_id, :key, :ui)", values | ui_text)

    def shown(self, job_id: str, node_id: str, key: str) -> dict[str, Any] | None:
        """What a node shows of its files, if all of them have been written."""
        rows = self.database.read(_WRITTEN, {"job_id": job_id, "node_id": node_id, "key": key})
        return json.loads(rows[0]["ui"]) if rows else None

    def publications(self, job_id: str, node_id: str) -> list[Publication]:
        """Of one node, in the order in which they were intended."""
        rows = self.database.read(_ENTRIES, {"job_id": job_id, "node_id": node_id})
        return [Publication(*row[:5], bool(row["is_published"])) for row in rows]

    def forget_publications(self, job_id: str, node_id: str) -> None:
        """The node begins anew."""
        values = {"job_id": job_id, "node_id": node_id}
        with self.database.lock, self.database.transaction() as connection:
            connection.execute(f"DELETE FROM publications WHERE {_OF_NODE}", values)
            connection.execute(f"DELETE FROM written WHERE {_OF_NODE}", values)

    def salvaged(self, connection: sqlite3.Connection, job_id: str) -> dict[str, dict[str, Any]]:
        """What the nodes of a job that is not run again have written, as they show it; what was half out is taken back."""
        values = {"job_id": job_id}
        for row in connection.execute(f"SELECT part, target, file FROM publications WHERE job = {_JOB} AND NOT is_published", values):
            _take_back(*row)
        connection.execute(f"DELETE FROM publications WHERE job = {_JOB} AND NOT is_published", values)
        return {row["node_id"]: json.loads(row["ui"]) for row in connection.execute(f"SELECT * FROM written WHERE job = {_JOB}", values)}

    def journal(self, job_id: str) -> Journal:
        return Journal(self, job_id)


@dataclass(frozen=True)
class Journal:
    """The files of one job, for whoever runs it."""

    store: Publications
    job_id: str

    def found(self, node: str, key: str) -> tuple[dict[str, Any], list[Path]] | None:
        """What the node shows, and its files, if a run before has written all of them with the same key and they are still there. What else
        such a run has left of this node is taken back: it is written again."""
        shown, entries = self.store.shown(self.job_id, node, key), self.store.publications(self.job_id, node)
        paths = [Path(entry.target) for entry in entries if entry.is_published and entry.key == key]
        if shown is not None and all(path.exists() for path in paths):
            return shown, paths
        for entry in entries:
            _take_back(entry.part, entry.target, entry.file)
        self.store.forget_publications(self.job_id, node)
        return None

    def told(self, node: str, key: str, part: Path, target: Path) -> None:
        self.store.intend(self.job_id, node, key, str(part.absolute()), str(target.absolute()))

    def written(self, node: str, key: str, ui: dict[str, Any], files: Sequence[Path]) -> None:
        self.store.written(self.job_id, node, key, ui, [str(path.absolute()) for path in files])


def _take_back(part: str, target: str, file: str) -> None:
    """Remove a file of ours, under both names; never another's of the same name. An empty target beside its part is a name that was
    taken on a disk without links, and not yet filled."""
    is_ours = file and identity(Path(target)) == file
    is_reserved = part and Path(part).exists() and Path(target).exists() and not Path(target).stat().st_size
    for path in ([part] if part else []) + ([target] if is_ours or is_reserved else []):
        Path(path).unlink(missing_ok=True)
