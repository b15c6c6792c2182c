"""Entries of queues as rows of one table: what can be asked of a connection, and done with it, inside somebody's transaction."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from errors import InputError, QueueFullError, TooLargeError
from jobs.consumers import Consumer, QueueName

FIRST, NEWEST = 0, -1  # where reading may start, besides an index
MAX_INDEX = 2**63 - 1
REQUEST_ID = "requestId"  # the tag that every entry has

_MAX_TAGS, _MAX_TAG_BYTES = 64, 16 * 1024
_MAX_ANSWER_BYTES = 64 * 2**20  # read at once; one entry is always read
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SEEN = "kind = :kind AND owner = :owner AND service IN (:service, '')"
_AMONG = "idx IN (SELECT value FROM json_each(:indexes))"


@dataclass(frozen=True)
class Limits:
    """Of all entries of one kind and owner together, except the last, which is of one entry."""

    max_items: int = 10_000
    max_bytes: int = 2**30
    max_payload_bytes: int = 32 * 2**20


@dataclass(frozen=True)
class Entry:
    """What is to be put. Raises InputError for tags, a request id or a priority that cannot be."""

    data: bytes
    tags: dict[str, str] = field(default_factory=dict)
    priority: int = 0

    def __post_init__(self) -> None:
        if bad := [key for key in self.tags if not key or key.startswith("_")]:
            raise InputError(f"{bad[0]!r} cannot be the name of a tag.", "Names that begin with _ belong to the protocol.")
        size = sum(len(key.encode()) + len(value.encode()) for key, value in self.tags.items())
        if len(self.tags) > _MAX_TAGS or size > _MAX_TAG_BYTES:
            raise InputError(f"There are {len(self.tags)} tags of {size} bytes.", f"At most {_MAX_TAGS}, of {_MAX_TAG_BYTES} bytes in all.")
        if not _NAME.fullmatch(self.tags.get(REQUEST_ID, "made")):
            raise InputError(f"{self.tags[REQUEST_ID]!r} cannot be a request id.", "Use letters, digits and . _ : -, at most 128.")
        if not 0 <= self.priority <= MAX_INDEX:
            raise InputError(f"The priority {self.priority} is out of bounds.", "Use 0 for normal, 1 or more for urgent.")


@dataclass(frozen=True)
class Item:
    """An entry in its queue. `message` says why a watcher refused it before."""

    index: int
    data: bytes
    tags: dict[str, str]
    message: str = ""

    @property
    def request_id(self) -> str:
        return self.tags[REQUEST_ID]


@dataclass(frozen=True)
class Wanted:
    """Up to `length` entries that carry these tags, from the index `start` on, or the newest with NEWEST."""

    start: int = FIRST
    length: int = 1
    tags: dict[str, str] = field(default_factory=dict)


def insert(connection: sqlite3.Connection, queue: QueueName, entry: Entry, now: float) -> Item:
    """A request id is made unless the tags have one."""
    tags = {REQUEST_ID: str(uuid.uuid4()), **entry.tags}
    row = (queue.kind, queue.service, queue.owner, entry.priority, tags[REQUEST_ID], json.dumps(tags), len(entry.data), now, entry.data)
    sql = "INSERT INTO items (kind, service, owner, priority, request, tags, size, put, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    index = connection.execute(sql, row).lastrowid
    return Item(index, entry.data, tags)


def check_room(connection: sqlite3.Connection, queue: QueueName, limits: Limits, size: int = 0) -> None:
    """Raises QueueFullError if nothing more may be put, TooLargeError if this is too big in any case."""
    if size > limits.max_payload_bytes:
        message = f"The data has {size} bytes, but an entry holds at most {limits.max_payload_bytes}."
        raise TooLargeError(message, "Send less, or a reference to it.")
    sql = "SELECT count(*), coalesce(sum(size), 0) FROM items WHERE kind = :kind AND owner = :owner"
    items, used = connection.execute(sql, values(queue)).fetchone()
    if items >= limits.max_items or used >= limits.max_bytes:
        message = f"The {queue.kind} queue is full: {items} entries, {used / 2**20:.1f} MiB."
        raise QueueFullError(message, "Fetch or delete some of its entries, then try again.")


def drop(connection: sqlite3.Connection, indexes: Iterable[int]) -> None:
    connection.execute(f"DELETE FROM items WHERE {_AMONG}", {"indexes": json.dumps(list(indexes))})


def among(connection: sqlite3.Connection, queue: QueueName, indexes: Sequence[int]) -> list[sqlite3.Row]:
    """Those that exist and are seen from this queue, without their data."""
    sql = f"SELECT idx, service, tags FROM items WHERE {_SEEN} AND {_AMONG} ORDER BY idx"
    return connection.execute(sql, values(queue, indexes=json.dumps(list(indexes)))).fetchall()


def before(connection: sqlite3.Connection, queue: QueueName, index: int) -> list[int]:
    return [row[0] for row in connection.execute(f"SELECT idx FROM items WHERE {_SEEN} AND idx < :index", values(queue, index=index))]


def read(connection: sqlite3.Connection, queue: QueueName, wanted: Wanted, at_least: int = 1) -> list[Item]:
    """In the order of the indexes; nothing if there are fewer than `at_least`."""
    first = bounds(connection, queue)[2] if wanted.start == NEWEST else wanted.start
    where, tags = _tagged(wanted.tags)
    sql = f"SELECT idx, size FROM items WHERE {_SEEN} AND idx >= :first{where} ORDER BY idx LIMIT :length"
    rows = connection.execute(sql, values(queue, first=first, length=wanted.length, **tags)).fetchall()
    return [item(connection, index) for index in fitting(rows)] if len(rows) >= at_least else []


def in_line(connection: sqlite3.Connection, consumer: Consumer) -> Iterator[sqlite3.Row]:
    """Index and size of what its group has not committed, in the order in which it is delivered."""
    where, tags = _tagged(consumer.tags)
    sql = f"""SELECT idx, size FROM items WHERE {_SEEN} AND idx >= :start{where}
        AND NOT EXISTS (SELECT 1 FROM commits c WHERE c.idx = items.idx AND c.consumer_group = :group)
        ORDER BY priority DESC, idx"""
    return iter(connection.execute(sql, values(consumer.queue, start=consumer.start, group=consumer.group, **tags)))


def fitting(rows: Iterable[sqlite3.Row]) -> Iterator[int]:
    """The indexes of so many of them as are read at once."""
    total = 0
    for row in rows:
        if total and total + row["size"] > _MAX_ANSWER_BYTES:
            return
        total += row["size"]
        yield row["idx"]


def item(connection: sqlite3.Connection, index: int, message: str = "") -> Item:
    row = connection.execute("SELECT idx, data, tags FROM items WHERE idx = ?", (index,)).fetchone()
    return Item(row["idx"], row["data"], json.loads(row["tags"]), message)


def bounds(connection: sqlite3.Connection, queue: QueueName) -> tuple[int, int, int]:
    """How many there are, the lowest index and the highest; 0 if there are none."""
    sql = f"SELECT count(*), coalesce(min(idx), 0), coalesce(max(idx), 0) FROM items WHERE {_SEEN}"
    return tuple(connection.execute(sql, values(queue)).fetchone())


def next_index(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
    return (row[0] if row else 0) + 1


def count(connection: sqlite3.Connection, queue: QueueName, tags: dict[str, str]) -> int:
    where, named = _tagged(tags)
    return connection.execute(f"SELECT count(*) FROM items WHERE {_SEEN}{where}", values(queue, **named)).fetchone()[0]


def waiting_before(connection: sqlite3.Connection, queue: QueueName, index: int) -> int:
    """In an input queue those of everybody count, since they all wait for the same machine; but not those that run."""
    everybody = "kind = 'input' AND idx NOT IN (SELECT idx FROM requests WHERE is_running)"
    sql = f"""SELECT count(*) FROM items, (SELECT priority AS own FROM items WHERE idx = :index)
        WHERE {everybody if queue.kind == "input" else _SEEN} AND (priority > own OR (priority = own AND idx < :index))"""
    return connection.execute(sql, values(queue, index=index)).fetchone()[0]


def values(queue: QueueName, **more: Any) -> dict[str, Any]:
    return {"kind": queue.kind, "owner": queue.owner, "service": queue.service, **more}


def _tagged(tags: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """A condition that all tags are there, and its values."""
    where, named = "", {}
    for number, (key, value) in enumerate(tags.items()):
        if key == REQUEST_ID:
            where += f" AND request = :value{number}"
        else:
            where += f" AND EXISTS (SELECT 1 FROM json_each(items.tags) WHERE key = :key{number} AND value = :value{number})"
            named[f"key{number}"] = key
        named[f"value{number}"] = value
    return where, named
