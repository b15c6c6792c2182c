"""Who watches a queue at this moment, and what each of them holds. Nothing of this outlives the process, nor should it: after a
restart nobody is connected, so all that was not committed is free to be delivered again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["input", "sink"]
Crowd = tuple[str, str, str]  # kind, owner, group: those who share the entries; each is delivered to one of them

_REMEMBERED = 64  # consumers that left, for the list of a queue
_LEAVING_SECONDS = 60


@dataclass(frozen=True)
class QueueName:
    """`service` as in the address; "" is the door without one, whose entries every service sees. Nobody sees another owner's."""

    service: str
    kind: Kind
    owner: str = ""


@dataclass(eq=False)
class Consumer:
    """One watcher. Among those of one queue, group and uid make it unique; the last to come with the same takes over."""

    queue: QueueName
    group: str
    uid: str
    start: int
    window: int
    is_auto_commit: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    is_connected: bool = True
    seen: float = 0.0
    left_behind: int = 0

    @property
    def id(self) -> str:
        return f"{self.group}.{self.uid}"

    @property
    def crowd(self) -> Crowd:
        return self.queue.kind, self.queue.owner, self.group


class Consumers:
    """Windows and leases. Not thread-safe: its owner holds a lock around every call."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._consumers: dict[tuple[QueueName, str, str], Consumer] = {}
        self._held: dict[tuple[Crowd, int], Consumer] = {}
        self._refused: dict[tuple[Crowd, int], tuple[str, str]] = {}  # the uid that refused the entry, and why

    def attach(self, consumer: Consumer, *, is_tail: bool = False) -> None:
        """With `is_tail` it wants what is new, which for one that comes back begins where it began before."""
        key = consumer.queue, consumer.group, consumer.uid
        before = self._consumers.pop(key, None)
        if before is not None:
            self.detach(before)
            consumer.start = before.start if is_tail else consumer.start
        consumer.seen = self._clock()
        self._consumers[key] = consumer
        self._forget()

    def detach(self, consumer: Consumer) -> bool:
        """What it holds is free again. False if it had gone before."""
        if not consumer.is_connected:
            return False
        held = self.held_by(consumer)
        for index in held:
            del self._held[consumer.crowd, index]
        consumer.is_connected, consumer.left_behind, consumer.seen = False, len(held), self._clock()
        return True

    def hold(self, consumer: Consumer, indexes: Iterable[int]) -> None:
        self._held |= {(consumer.crowd, index): consumer for index in indexes}
        consumer.seen = self._clock()

    def room(self, consumer: Consumer) -> int:
        return max(0, consumer.window - len(self.held_by(consumer)))

    def held_by(self, consumer: Consumer) -> list[int]:
        return [index for (_, index), holder in self._held.items() if holder is consumer]

    def holder(self, crowd: Crowd, index: int) -> Consumer | None:
        return self._held.get((crowd, index))

    def may_take(self, consumer: Consumer, index: int) -> bool:
        """Not what another holds; not what it refused itself, while others of its group might do it."""
        if (consumer.crowd, index) in self._held:
            return False
        uid, _ = self._refused.get((consumer.crowd, index), ("", ""))
        return uid != consumer.uid or all(other is consumer for other in self._connected(consumer.crowd))

    def refuse(self, crowd: Crowd, uid: str, indexes: Iterable[int], reason: str) -> None:
        for index in indexes:
            self._held.pop((crowd, index), None)
            self._refused[crowd, index] = uid, reason

    def reason(self, consumer: Consumer, index: int) -> str:
        """Why it was refused the last time, if it was."""
        return self._refused.get((consumer.crowd, index), ("", ""))[1]

    def commit(self, crowd: Crowd, indexes: Iterable[int]) -> None:
        for index in indexes:
            self._held.pop((crowd, index), None)
            self._refused.pop((crowd, index), None)

    def drop(self, indexes: Iterable[int]) -> None:
        """Those entries are gone, for all groups."""
        gone = set(indexes)
        self._held = {key: holder for key, holder in self._held.items() if key[1] not in gone}
        self._refused = {key: why for key, why in self._refused.items() if key[1] not in gone}

    def is_any_connected(self, crowd: Crowd) -> bool:
        return any(self._connected(crowd))

    def describe(self, queue: QueueName) -> list[str]:
        """One line each, in the words of the protocol."""
        return [self._line(consumer) for consumer in self._consumers.values() if consumer.queue == queue]

    def _connected(self, crowd: Crowd) -> Iterator[Consumer]:
        return (consumer for consumer in self._consumers.values() if consumer.crowd == crowd and consumer.is_connected)

    def _line(self, consumer: Consumer) -> str:
        held, idle = self.held_by(consumer), max(0.0, self._clock() - consumer.seen)
        window, slots = (consumer.window, self.room(consumer)) if consumer.is_connected else (0, 0)
        values = {"Id": consumer.id, "Index": max(held, default=0), "Pending": len(held), "Status": _status(consumer, idle)}
        values |= {"Idle": f"{idle:.3f}s", "Window": window, "Slots": slots, "AutoCommit": str(consumer.is_auto_commit).lower()}
        if consumer.tags:
            values["Tags"] = f"tags[{' '.join(f'{key}={value}' for key, value in sorted(consumer.tags.items()))}]"
        return ", ".join(f"{name}: {value}" for name, value in values.items())

    def _forget(self) -> None:
        """Of those who left, only the last few are remembered."""
        left = [key for key, consumer in self._consumers.items() if not consumer.is_connected]
        for key in itertools.islice(left, max(0, len(left) - _REMEMBERED)):
            del self._consumers[key]


def _status(consumer: Consumer, idle: float) -> str:
    if consumer.is_connected:
        return "Running"
    if not consumer.left_behind:
        return "Complete"
    return "Leaving" if idle < _LEAVING_SECONDS else "Exit"
