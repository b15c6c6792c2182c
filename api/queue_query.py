"""The query and the headers of a request to a queue as plain values. What begins with _ is the protocol's, the rest are tags."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

from starlette.requests import HTTPConnection

from errors import InputError
from jobs.consumers import Consumer, QueueName
from jobs.queue_items import FIRST, MAX_INDEX, NEWEST, Entry, Wanted

T = TypeVar("T")

UID_HEADER, GROUP_HEADER = "X-EAS-QueueService-Redis-Uid", "X-EAS-QueueService-Redis-Gid"
PRIORITY_HEADER = "X-EAS-QueueService-Priority"

_MAX_LENGTH = 1000  # entries in one answer
_MAX_WINDOW = 1000  # what a watcher may hold
_MAX_INDEXES = 10_000  # in one commit or deletion
_MAX_WAIT_SECONDS = 600
_MAX_NAME = 200
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:h|ms|m|us|µs|ns|s))+")


class QueueQuery:
    """Every method raises InputError for a value that cannot be read."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._values: Mapping[str, str] = connection.query_params
        self._headers: Mapping[str, str] = connection.headers

    @property
    def tags(self) -> dict[str, str]:
        return {key: value for key, value in self._values.items() if not key.startswith("_")}

    @property
    def group(self) -> str:
        return self._name(GROUP_HEADER, lambda: "eas")

    @property
    def uid(self) -> str:
        return self._name(UID_HEADER, lambda: str(uuid.uuid4()))

    @property
    def index(self) -> int:
        return self._start()

    @property
    def indexes(self) -> list[int]:
        """One or many, with commas."""
        parts = [part.strip() for part in self._values.get("_indexes_", "").split(",")]
        if len(parts) > _MAX_INDEXES:
            raise InputError(f"_indexes_ has {len(parts)} numbers.", f"Send at most {_MAX_INDEXES} at once.")
        return [_number("_indexes_", part, 0, MAX_INDEX) for part in parts]

    @property
    def wanted(self) -> Wanted:
        length = _number("_length_", self._values.get("_length_", "1"), 1, MAX_INDEX)
        return Wanted(self._start(), min(length, _MAX_LENGTH), self.tags)

    @property
    def wait_seconds(self) -> float:
        """A little less than was asked for: clients often wait exactly as long for the answer, which is then just in time."""
        asked = min(_seconds(self._values.get("_timeout_", "0")), _MAX_WAIT_SECONDS)
        return asked - min(0.5, asked / 10)

    def entry(self, data: bytes) -> Entry:
        """What is to be put. A parameter that this does not know is refused: it asks for something other than putting."""
        if unknown := [key for key in self._values if key.startswith("_") and key != "_priority_"]:
            raise InputError(f"{unknown[0]} is nothing that can be put.", "Names that begin with _ belong to the protocol.")
        text = self._values.get("_priority_") or self._headers.get(PRIORITY_HEADER) or "0"
        return Entry(data, self.tags, _number("_priority_", text, 0, MAX_INDEX))

    def consumer(self, queue: QueueName) -> Consumer:
        window = _number("_window_", self._values.get("_window_", "1"), 1, MAX_INDEX)
        return Consumer(queue, self.group, self.uid, self._start(), min(window, _MAX_WINDOW), self.has("_auto_commit_"), self.tags)

    def has(self, name: str) -> bool:
        """A switch; off unless it is given."""
        value = self._values.get(name, "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise InputError(f"{name} is {value!r}.", "Use true or false.")
        return value in ("true", "1")

    def _start(self) -> int:
        return _number("_index_", self._values.get("_index_", str(FIRST)), NEWEST, MAX_INDEX)

    def _name(self, header: str, default: Callable[[], str]) -> str:
        name = self._headers.get(header, "").strip() or default()
        if len(name) > _MAX_NAME:
            raise InputError(f"{header} has {len(name)} characters.", f"Use at most {_MAX_NAME}.")
        return name


def _number(name: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise InputError(f"{name} is {text[:40]!r}.", f"Use a whole number from {least}.")
    return int(text)


def _seconds(text: str) -> float:
    """`5`, `5s`, `1m30s`, `500ms`: plain seconds, or as Go writes durations."""
    if re.fullmatch(r"\d{1,9}(\.\d{0,9})?", text):
        return float(text)
    if len(text) > 40 or not _DURATION.fullmatch(text):
        raise InputError(f"_timeout_ is {text[:40]!r}.", "Use seconds, as in 5s.")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d*)?)(h|ms|m|us|µs|ns|s)", text))
