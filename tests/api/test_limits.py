from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.limits import Attempts, BodyLimit, check_headers
from api.refusals import BodyTooLarge, HeadersTooLarge, TooManyAttempts


def test_attempts_come_back_one_by_one(clock: Any) -> None:
    attempts = Attempts(burst=3, seconds_each=10, clock=clock)
    for _ in range(3):
        attempts.begin("a")
    for _ in range(100):  # trying does not make it longer
        with pytest.raises(TooManyAttempts) as caught:
            attempts.begin("a")
    assert caught.value.headers == {"Retry-After": "10"}
    attempts.begin("b")
    clock.seconds += 10
    attempts.begin("a")
    with pytest.raises(TooManyAttempts):
        attempts.begin("a")
    clock.seconds += 1000
    for _ in range(3):
        attempts.begin("a")


def test_what_succeeds_does_not_count(clock: Any) -> None:
    attempts = Attempts(burst=1, clock=clock)
    for _ in range(100):
        attempts.begin("a")
        attempts.succeed("a")
    assert len(attempts) == 0


def test_the_memory_has_a_bound(clock: Any) -> None:
    attempts = Attempts(burst=1, capacity=100, clock=clock)
    for number in range(1000):
        attempts.begin(f"10.0.{number // 250}.{number % 250}")
    assert len(attempts) == 100
    with pytest.raises(TooManyAttempts):
        attempts.begin("10.0.3.249")


def test_addresses_of_one_owner_are_one(clock: Any) -> None:
    attempts = Attempts(burst=1, clock=clock)
    attempts.begin("2001:db8:1:2:3:4:5:6")
    with pytest.raises(TooManyAttempts):
        attempts.begin("2001:db8:1:2::1")
    attempts.begin("2001:db8:1:3::1")
    attempts.begin("no address" * 100)
    attempts.begin("")


@pytest.mark.parametrize(("sizes", "is_good"), [([4, 6], True), ([10, 0, 0], True), ([11], False), ([4, 6, 1, 5], False), ([0], True)])
def test_bodies(sizes: list[int], is_good: bool) -> None:
    messages = iter({"type": "http.request", "body": b"x" * size, "more_body": True} for size in sizes)

    async def receive() -> dict:
        return next(messages)

    async def run() -> BodyLimit:
        limit = BodyLimit(receive, 10)
        try:
            for _ in sizes:
                await limit.receive()
        except BodyTooLarge:
            with pytest.raises(BodyTooLarge):  # nor is it given out afterwards
                await limit.receive()
        return limit

    assert (asyncio.run(run()).refusal is None) is is_good


def test_headers() -> None:
    check_headers([(b"a", b"x" * 65_000)])
    check_headers([(b"a", b"b")] * 200)
    for wrong in ([(b"a", b"x" * 65_536)], [(b"a", b"")] * 201):
        with pytest.raises(HeadersTooLarge):
            check_headers(wrong)
