"""Queues that keep what was put into them: the input queue of a service, and the sink where its results wait to be fetched.

An entry has an index, which grows and is never used again, and stays until it is deleted or until every group that watches has
committed it. What is put is on the disk when `put` returns. Which watcher holds what is known to `consumers.py` alone, in memory:
after a restart everything that was not committed is delivered again.

What is put into an input queue is besides a request, and a request is open until its result is in the sink. So after a crash one
can see which were accepted and never answered; see `outstanding`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import InputError, StorageError
from jobs import queue_groups, queue_items
from jobs.consumers import Consumer, Consumers, QueueName
from jobs.database import Database
from jobs.queue_items import NEWEST, Entry, Item, Limits, Wanted
from jobs.queue_migrations import QUEUE_FILE, QUEUE_MIGRATIONS

Listener = Callable[[str, str], None]


@dataclass(frozen=True)
class Request:
    """What was accepted and has no result yet. `data` is None if its owner has taken it out of the input queue."""

    id: str
    service: str
    owner: str
    tags: dict[str, str]
    priority: int = 0
    data: bytes | None = None


@dataclass(frozen=True)
class Place:
    """Of an entry: who works on it, or how many wait before it."""

    consumer: str = ""
    is_pending: bool = False
    waiting: int = 0


class Queues:
    """One file, used by one process; its methods may be called from any thread.

    Opening raises StorageError as `Database` says, and so does everything that writes. `clock` gives unix seconds.
    """

    def __init__(self, path: Path, limits: Limits | None = None, clock: Callable[[], float] = time.time) -> None:
        self.limits, self._clock = limits or Limits(), clock
        self._database = Database(path, QUEUE_MIGRATIONS, QUEUE_FILE)
        self._lock = threading.RLock()
        self._consumers = Consumers(clock)
        self._listeners: list[Listener] = []

    def close(self) -> None:
        self._database.close()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener(kind, owner)` is called, in whatever thread, after something has changed there; returns how to stop that."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return stop

    def put(self, queue: QueueName, entry: Entry) -> Item:
        """Raises TooLargeError, and QueueFullError if there is no room."""
        with self._changing(queue) as connection:
            queue_items.check_room(connection, queue, self.limits, len(entry.data))
            return queue_items.insert(connection, queue, entry, self._clock())

    def read(self, queue: QueueName, wanted: Wanted, *, at_least: int = 1, is_taken: bool = False) -> list[Item]:
        """What is there, whoever holds it; nothing if fewer than `at_least` are. With `is_taken` they are deleted."""
        with self._changing(queue) if is_taken else self._database.connection() as connection:
            items = queue_items.read(connection, queue, wanted, at_least)
            if is_taken and items:
                self._drop(connection, [item.index for item in items])
        return items

    def delete(self, queue: QueueName, indexes: Sequence[int]) -> list[str]:
        """Gone for everybody. Returns the ids of the open requests among them, whose jobs go on."""
        with self._changing(queue) as connection:
            return self._remove(connection, [row["idx"] for row in queue_items.among(connection, queue, indexes)])

    def truncate(self, queue: QueueName, index: int) -> list[str]:
        """As `delete`, of all before this index."""
        with self._changing(queue) as connection:
            return self._remove(connection, queue_items.before(connection, queue, index))

    def count(self, queue: QueueName, tags: dict[str, str] | None = None) -> int:
        with self._database.connection() as connection:
            return queue_items.count(connection, queue, tags or {})

    def search(self, queue: QueueName, group: str, index: int) -> Place | None:
        """Where the entry is in the line; None if there is no such entry."""
        with self._lock, self._database.connection() as connection:
            if not queue_items.among(connection, queue, [index]):
                return None
            holder = self._consumers.holder((queue.kind, queue.owner, group), index)
            if holder is not None:
                return Place(holder.id, is_pending=True)
            if connection.execute("SELECT 1 FROM requests WHERE idx = ? AND is_running", (index,)).fetchone():
                return Place("stillmotion.worker", is_pending=True)
            return Place(waiting=queue_items.waiting_before(connection, queue, index))

    def attributes(self, queue: QueueName) -> dict[str, str]:
        """`stream.*`, `consumers.*` and a limit, as the protocol names them."""
        with self._lock, self._database.connection() as connection:
            length, first, last = queue_items.bounds(connection, queue)
            lines = self._consumers.describe(queue)
        values = {"stream.length": length, "stream.firstEntry": first, "stream.lastEntry": last, "consumers.stats.total": len(lines)}
        values |= {"stream.approxMaxLength": self.limits.max_items, "meta.maxPayloadBytes": self.limits.max_payload_bytes}
        values |= {f"consumers.list.[{number}]": line for number, line in enumerate(lines)}
        return {name: str(value) for name, value in values.items()}

    # Requests: what is put into an input queue, until its result is in the sink

    def accept(self, queue: QueueName, entry: Entry) -> Item:
        """As `put`, and a request is opened, under the entry's request id.

        Raises QueueFullError also if so many results wait in the sink that there would be no room for this one, and InputError
        for a request id that is in use.
        """
        with self._changing(queue) as connection:
            queue_items.check_room(connection, queue, self.limits, len(entry.data))
            queue_items.check_room(connection, QueueName(queue.service, "sink", queue.owner), self.limits)
            item = queue_items.insert(connection, queue, entry, self._clock())
            values = (item.request_id, item.index, queue.service, queue.owner, json.dumps(item.tags), entry.priority)
            try:
                connection.execute("INSERT INTO requests (id, idx, service, owner, tags, priority) VALUES (?, ?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError:
                raise InputError(f"The request id {item.request_id!r} is in use.", "Leave it out, and one is made.") from None
        return item

    def start(self, request_id: str) -> None:
        """The request's job runs now: it is no longer among those that wait."""
        self._database.write("UPDATE requests SET is_running = 1 WHERE id = ?", (request_id,))

    def finish(self, request_id: str, result: bytes) -> bool:
        """Put its result into the sink and close the request, both or neither; False if there is no such request (any more).

        Limits do not count here: a result is never refused.
        """
        with self._lock, self._database.transaction() as connection:
            request = self._close_request(connection, request_id)
            if request is None:
                return False
            sink = QueueName(request["service"], "sink", request["owner"])
            queue_items.insert(connection, sink, Entry(result, json.loads(request["tags"])), self._clock())
        self._notify(sink)
        return True

    def forget(self, request_id: str) -> None:
        """As if it had never been accepted: for one whose client is told so."""
        with self._lock, self._database.transaction() as connection:
            self._close_request(connection, request_id)

    def outstanding(self) -> list[Request]:
        """The open requests, oldest first."""
        rows = self._database.read("SELECT r.*, i.data FROM requests r LEFT JOIN items i ON i.idx = r.idx ORDER BY r.idx")
        return [Request(r["id"], r["service"], r["owner"], json.loads(r["tags"]), r["priority"], r["data"]) for r in rows]

    # Watching

    def attach(self, consumer: Consumer) -> None:
        """From now on `take` gives it entries. One of the same group and uid is detached; it holds nothing any more."""
        is_tail = consumer.start == NEWEST
        with self._changing(consumer.queue) as connection:
            if is_tail:
                consumer.start = queue_items.next_index(connection)
            self._consumers.attach(consumer, is_tail=is_tail)
            queue_groups.register(connection, consumer, self._clock())
            for_nobody = queue_groups.forget(connection, self._clock(), self._consumers.is_any_connected)
            self._drop(connection, for_nobody)

    def detach(self, consumer: Consumer) -> None:
        """What it did not commit is free for the others, or for itself when it comes back."""
        with self._lock:
            if not self._consumers.detach(consumer):
                return
            self._notify(consumer.queue)
            with contextlib.suppress(StorageError), self._database.transaction() as connection:  # it goes, whether that is noted or not
                queue_groups.touch(connection, consumer.queue, consumer.group, self._clock())

    def take(self, consumer: Consumer, done: Sequence[int] = ()) -> list[Item] | None:
        """What its window has room for, the highest priority first; it holds that until it commits. None once it is detached.

        `done` is committed before.
        """
        if done:
            self.commit(consumer.queue, consumer.group, done)
        with self._lock, self._database.connection() as connection:
            if not consumer.is_connected:
                return None
            room = self._consumers.room(consumer)
            line = queue_items.in_line(connection, consumer) if room else iter(())
            free = (row for row in line if self._consumers.may_take(consumer, row["idx"]))
            indexes = list(queue_items.fitting(itertools.islice(free, room)))
            self._consumers.hold(consumer, indexes)
            return [queue_items.item(connection, index, self._consumers.reason(consumer, index)) for index in indexes]

    def commit(self, queue: QueueName, group: str, indexes: Sequence[int]) -> None:
        """Those entries are over for this group; and for all, if no other group still waits for them."""
        with self._changing(queue) as connection:
            rows = queue_items.among(connection, queue, indexes)
            queue_groups.touch(connection, queue, group, self._clock())
            others = queue_groups.others(connection, queue, group)
            kept = [row["idx"] for row in rows if others and queue_groups.is_waited_for(connection, row, others)]
            connection.executemany("INSERT OR IGNORE INTO commits VALUES (?, ?)", [(index, group) for index in kept])
            self._consumers.commit((queue.kind, queue.owner, group), kept)
            self._drop(connection, [row["idx"] for row in rows if row["idx"] not in kept])

    def refuse(self, queue: QueueName, group: str, uid: str, indexes: Sequence[int], reason: str = "") -> None:
        """The contrary of a commit: others of the group get them, with the reason, or the same one again if it is alone."""
        with self._lock, self._database.connection() as connection:
            own = [row["idx"] for row in queue_items.among(connection, queue, indexes)]
            self._consumers.refuse((queue.kind, queue.owner, group), uid, own, reason)
            self._notify(queue)

    @contextlib.contextmanager
    def _changing(self, queue: QueueName) -> Iterator[sqlite3.Connection]:
        """One transaction; whoever waits at this queue is told afterwards."""
        with self._lock:
            with self._database.transaction() as connection:
                yield connection
            self._notify(queue)

    def _notify(self, queue: QueueName) -> None:
        for listener in tuple(self._listeners):
            listener(queue.kind, queue.owner)

    def _close_request(self, connection: sqlite3.Connection, request_id: str) -> sqlite3.Row | None:
        """And its entry leaves the input queue."""
        closed = connection.execute("DELETE FROM requests WHERE id = ? RETURNING *", (request_id,)).fetchall()
        for row in closed:
            self._drop(connection, [row["idx"]])
        return closed[0] if closed else None

    def _remove(self, connection: sqlite3.Connection, indexes: list[int]) -> list[str]:
        sql = "SELECT id FROM requests WHERE idx IN (SELECT value FROM json_each(?)) ORDER BY idx"
        requests = [row["id"] for row in connection.execute(sql, (json.dumps(indexes),))]
        self._drop(connection, indexes)
        return requests

    def _drop(self, connection: sqlite3.Connection, indexes: list[int]) -> None:
        queue_items.drop(connection, indexes)
        self._consumers.drop(indexes)
