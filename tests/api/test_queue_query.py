from __future__ import annotations

import pytest
from starlette.requests import Request

from api.queue_query import QueueQuery
from errors import InputError
from jobs.consumers import QueueName
from jobs.queue_items import NEWEST, Wanted


def query(text: str, **headers: str) -> QueueQuery:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return QueueQuery(Request({"type": "http", "query_string": text.encode(), "headers": raw}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("5s", 4.5), ("5", 4.5), ("500ms", 0.45), ("1m0s", 59.5), ("1h", 599.5), ("1.5s", 1.35), ("", 0)],
)
def test_a_wait_is_a_little_shorter_than_asked_for(text: str, seconds: float) -> None:
    assert query(f"_timeout_={text}" if text else "").wait_seconds == pytest.approx(seconds)


def test_what_begins_with_an_underscore_is_no_tag() -> None:
    asked = query("_index_=-1&_length_=99999&colour=red&requestId=r")
    assert asked.wanted == Wanted(NEWEST, 1000, {"colour": "red", "requestId": "r"})


def test_a_priority_comes_by_query_or_by_header() -> None:
    assert query("_priority_=2").entry(b"").priority == 2
    assert query("", x_eas_queueservice_priority="3").entry(b"").priority == 3
    assert query("a=b").entry(b"x").tags == {"a": "b"}


def test_a_watcher_without_names_gets_some() -> None:
    consumer = query("_watch_=true&_window_=5&_auto_commit_=true&a=b").consumer(QueueName("svd", "sink"))
    assert (consumer.group, consumer.window, consumer.is_auto_commit, consumer.tags) == ("eas", 5, True, {"a": "b"})
    assert len(consumer.uid) == 36


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("_index_=x", lambda q: q.index),
        ("_index_=-2", lambda q: q.index),
        ("_index_=99999999999999999999", lambda q: q.wanted),
        ("_index_=%D9%A3", lambda q: q.index),
        ("_length_=0", lambda q: q.wanted),
        ("_indexes_=", lambda q: q.indexes),
        ("_indexes_=1,,2", lambda q: q.indexes),
        ("_indexes_=" + "1," * 10_000 + "1", lambda q: q.indexes),
        ("_timeout_=soon", lambda q: q.wait_seconds),
        ("_timeout_=5s!", lambda q: q.wait_seconds),
        ("_timeout_=-5s", lambda q: q.wait_seconds),
        ("_priority_=high", lambda q: q.entry(b"")),
        ("_eos_=true", lambda q: q.entry(b"")),
        ("_raw_=perhaps", lambda q: q.has("_raw_")),
        ("_window_=0", lambda q: q.consumer(QueueName("svd", "sink"))),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(text: str, read) -> None:
    with pytest.raises(InputError, match=text.split("=")[0]):
        read(query(text))


def test_long_names_are_refused() -> None:
    with pytest.raises(InputError, match="Gid"):
        _ = query("", x_eas_queueservice_redis_gid="g" * 201).group
