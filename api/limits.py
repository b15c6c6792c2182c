"""How often somebody may guess, and how much somebody may send."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from starlette.types import Message, Receive

from api.refusals import BodyTooLarge, HeadersTooLarge, TooManyAttempts

_HEADER_BYTES = 64 * 1024
_HEADER_LINES = 200


class Attempts:
    """Failed attempts by address: `burst` at once, then one every `seconds_each`. At most `capacity` addresses are remembered.

    An attempt counts from its beginning, so that many at the same time cannot slip through, and is taken back if it succeeds.
    """

    def __init__(
        self, burst: int = 10, seconds_each: float = 30.0, capacity: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.burst, self.seconds_each, self.capacity, self._clock = burst, seconds_each, capacity, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> failures not yet forgotten, and as of when

    def begin(self, address: str) -> None:
        """Raises TooManyAttempts, which says how long to wait; waiting is not made longer by trying."""
        key, now = _group(address), self._clock()
        level = self._level(key, now)
        if level + 1 > self.burst:
            raise TooManyAttempts((level + 1 - self.burst) * self.seconds_each)
        self._keep(key, level + 1, now)

    def succeed(self, address: str) -> None:
        key, now = _group(address), self._clock()
        self._keep(key, self._level(key, now) - 1, now)

    def __len__(self) -> int:
        return len(self._levels)

    def _level(self, key: str, now: float) -> float:
        level, since = self._levels.get(key, (0.0, now))
        return max(0.0, level - (now - since) / self.seconds_each)

    def _keep(self, key: str, level: float, now: float) -> None:
        self._levels.pop(key, None)
        if level > 0:
            self._levels[key] = level, now
        while len(self._levels) > self.capacity:
            self._levels.popitem(last=False)


class BodyLimit:
    """`receive` of one request, which stops at `limit_bytes`. What was exceeded stays in `refusal`, whatever the app does about it."""

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive, self.limit_bytes = receive, limit_bytes
        self.read_bytes = 0
        self.refusal: BodyTooLarge | None = None

    def check_announced(self, length: str) -> None:
        """Raises BodyTooLarge if Content-Length says so already; a body in chunks says nothing."""
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > self.limit_bytes):
            raise BodyTooLarge(self.limit_bytes)

    async def receive(self) -> Message:
        if self.refusal:
            raise self.refusal
        message = await self._receive()
        if message["type"] == "http.request":
            self.read_bytes += len(message.get("body", b""))
            if self.read_bytes > self.limit_bytes:
                self.refusal = BodyTooLarge(self.limit_bytes)
                raise self.refusal
        return message


def check_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Raises HeadersTooLarge. Servers have such limits too, but not all the same."""
    size = sum(len(name) + len(value) for name, value in headers)
    if size > _HEADER_BYTES or len(headers) > _HEADER_LINES:
        raise HeadersTooLarge(f"{len(headers)} headers of {size} bytes are too many.", f"At most {_HEADER_LINES}, {_HEADER_BYTES} bytes.")


def _group(address: str) -> str:
    """Whoever has one IPv6 address has 2^64 of them."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    return str(IPv6Address(int(found) >> 64 << 64)) if isinstance(found, IPv6Address) else str(found)
