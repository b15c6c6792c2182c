"""Groups of watchers. An entry is kept until every group that wants it has committed it; who never comes back is forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from jobs.consumers import Consumer, QueueName
from jobs.queue_items import values

_FORGET_SECONDS = 24 * 3600

IsConnected = Callable[[tuple[str, str, str]], bool]


def register(connection: sqlite3.Connection, consumer: Consumer, now: float) -> None:
    """From now on entries wait for its group."""
    connection.execute(
        """INSERT INTO groups (kind, service, owner, name, tags, start, seen)
        VALUES (:kind, :service, :owner, :name, :tags, :start, :seen)
        ON CONFLICT DO UPDATE SET tags = :tags, start = min(start, :start), seen = :seen""",
        values(consumer.queue, name=consumer.group, tags=json.dumps(consumer.tags), start=consumer.start, seen=now),
    )


def touch(connection: sqlite3.Connection, queue: QueueName, group: str, now: float) -> None:
    """It is still there."""
    sql = "UPDATE groups SET seen = :seen WHERE kind = :kind AND owner = :owner AND name = :group"
    connection.execute(sql, values(queue, group=group, seen=now))


def others(connection: sqlite3.Connection, queue: QueueName, group: str) -> list[sqlite3.Row]:
    sql = "SELECT * FROM groups WHERE kind = :kind AND owner = :owner AND name != :group"
    return connection.execute(sql, values(queue, group=group)).fetchall()


def is_waited_for(connection: sqlite3.Connection, row: sqlite3.Row, groups: list[sqlite3.Row]) -> bool:
    """Whether one of these groups wants the entry and has not committed it."""
    done = {commit[0] for commit in connection.execute("SELECT consumer_group FROM commits WHERE idx = ?", (row["idx"],))}
    return any(group["name"] not in done and _wants(group, row) for group in groups)


def forget(connection: sqlite3.Connection, now: float, is_connected: IsConnected) -> list[int]:
    """Groups that were given up go. Returns the entries that only they kept."""
    kept: list[int] = []
    for group in connection.execute("SELECT * FROM groups WHERE seen < ?", (now - _FORGET_SECONDS,)).fetchall():
        if not is_connected((group["kind"], group["owner"], group["name"])):
            key = {name: group[name] for name in ("kind", "service", "owner", "name")}
            sql = "DELETE FROM groups WHERE kind = :kind AND service = :service AND owner = :owner AND name = :name"
            connection.execute(sql, key)
            kept += _kept_by(connection, QueueName(group["service"], group["kind"], group["owner"]), group["name"])
    return kept


def _wants(group: sqlite3.Row, row: sqlite3.Row) -> bool:
    is_in_reach = row["service"] in ("", group["service"]) and row["idx"] >= group["start"]
    return is_in_reach and json.loads(group["tags"]).items() <= json.loads(row["tags"]).items()


def _kept_by(connection: sqlite3.Connection, queue: QueueName, group: str) -> list[int]:
    """What others have committed and nobody waits for, now that this group has gone."""
    sql = "SELECT idx, service, tags FROM items WHERE kind = :kind AND owner = :owner AND idx IN (SELECT idx FROM commits)"
    remaining = others(connection, queue, group)
    rows = connection.execute(sql, values(queue)).fetchall()
    return [row["idx"] for row in rows if not is_waited_for(connection, row, remaining)]
