"""Queues on real files: what was put stays, who holds what, and what is delivered again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import InputError, QueueFullError, StorageError, TooLargeError
from jobs.consumers import Consumer, QueueName
from jobs.queue_items import NEWEST, Entry, Limits, Wanted
from jobs.queues import Place, Queues

ROOT = Path(__file__).parent.parent.parent
SINK, INPUT = QueueName("svd", "sink"), QueueName("svd", "input")
DAY = 24 * 3600


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queues(tmp_path: Path, clock: Clock) -> Iterator[Queues]:
    queues = Queues(tmp_path / "queues.db", Limits(max_items=20, max_bytes=10_000, max_payload_bytes=5_000), clock)
    yield queues
    queues.close()


def put(queues: Queues, *texts: str, queue: QueueName = SINK, priority: int = 0, **tags: str) -> list[int]:
    return [queues.put(queue, Entry(text.encode(), tags, priority)).index for text in texts]


def watch(
    queues: Queues, *, queue: QueueName = SINK, group: str = "eas", uid: str = "a", start: int = 0, window: int = 5, **tags: str
) -> Consumer:
    consumer = Consumer(queue, group, uid, start, window, tags=tags)
    queues.attach(consumer)
    return consumer


def texts(items) -> list[str]:
    return [item.data.decode() for item in items]


def all_of(queues: Queues, queue: QueueName = SINK) -> list[str]:
    return texts(queues.read(queue, Wanted(length=100)))


# Entries


def test_what_is_put_can_be_read_as_often_as_one_likes_until_it_is_taken(queues: Queues) -> None:
    first, second = put(queues, "one", "two")
    assert second > first > 0
    assert all_of(queues) == all_of(queues) == ["one", "two"]
    assert texts(queues.read(SINK, Wanted(second))) == ["two"]
    assert texts(queues.read(SINK, Wanted(), is_taken=True)) == ["one"]
    assert all_of(queues) == ["two"]
    assert queues.read(SINK, Wanted(second + 1)) == []
    assert texts(queues.read(SINK, Wanted(NEWEST))) == ["two"]


def test_fewer_than_wanted_are_not_taken(queues: Queues) -> None:
    put(queues, "one", "two")
    assert queues.read(SINK, Wanted(length=3), at_least=3, is_taken=True) == []
    assert texts(queues.read(SINK, Wanted(length=3), at_least=2, is_taken=True)) == ["one", "two"]


def test_tags_choose(queues: Queues) -> None:
    put(queues, "red", colour="red", size="1")
    put(queues, "blue", colour="blue", size="1")
    assert texts(queues.read(SINK, Wanted(length=5, tags={"colour": "blue"}))) == ["blue"]
    assert texts(queues.read(SINK, Wanted(length=5, tags={"size": "1"}))) == ["red", "blue"]
    assert queues.read(SINK, Wanted(length=5, tags={"size": "1", "colour": "green"})) == []
    assert queues.count(SINK, {"size": "1"}) == 2
    assert queues.count(SINK, {"' OR 1=1 --": "1"}) == 0


def test_the_request_id_is_a_tag_and_finds_the_entry(queues: Queues) -> None:
    put(queues, "other")
    made = queues.put(SINK, Entry(b"mine", {"task_id": "t"}))
    given = queues.put(SINK, Entry(b"given", {"requestId": "my-id"}))
    assert given.request_id == "my-id"
    assert texts(queues.read(SINK, Wanted(tags={"requestId": made.request_id}))) == ["mine"]
    assert queues.read(SINK, Wanted(tags={"requestId": "my-id"}))[0].tags == {"requestId": "my-id"}


def test_an_index_is_never_used_again(queues: Queues, tmp_path: Path) -> None:
    (last,) = put(queues, "x")
    queues.truncate(SINK, last + 1)
    queues.close()
    again = Queues(tmp_path / "queues.db")
    assert put(again, "y")[0] > last
    again.close()


def test_truncating_spares_the_index_itself_and_deleting_spares_the_rest(queues: Queues) -> None:
    one, two, three, four = put(queues, "1", "2", "3", "4")
    queues.truncate(SINK, three)
    assert all_of(queues) == ["3", "4"]
    queues.delete(SINK, [one, two, four, 99_999])
    assert all_of(queues) == ["3"]


def test_a_full_queue_refuses_and_a_big_entry_is_refused_in_any_case(queues: Queues) -> None:
    with pytest.raises(TooLargeError, match="5001 bytes"):
        put(queues, "x" * 5001)
    put(queues, *"x" * 20)
    with pytest.raises(QueueFullError, match="20 entries") as full:
        put(queues, "x")
    assert full.value.code == "queue_full"
    assert put(queues, "x", queue=QueueName("svd", "sink", "somebody else"))


def test_bytes_count_too(queues: Queues) -> None:
    put(queues, "x" * 5000, "x" * 5000)
    with pytest.raises(QueueFullError):
        put(queues, "x")


@pytest.mark.parametrize("tags", [{"_index_": "1"}, {"": "x"}, {"requestId": "a\r\nb"}, {"requestId": ""}, {"a": "x" * 20_000}])
def test_tags_that_cannot_be(tags: dict[str, str]) -> None:
    with pytest.raises(InputError):
        Entry(b"x", tags)


def test_others_see_nothing(queues: Queues) -> None:
    mine, other = QueueName("svd", "sink", "ann"), QueueName("svd", "sink", "bob")
    (index,) = put(queues, "secret", queue=mine)
    assert queues.read(other, Wanted(length=9)) == []
    assert queues.search(other, "eas", index) is None
    assert queues.count(other) == 0
    assert queues.attributes(other)["stream.length"] == "0"
    queues.delete(other, [index])
    queues.truncate(other, index + 1)
    queues.commit(other, "eas", [index])
    queues.refuse(other, "eas", "b", [index])
    assert queues.take(watch(queues, queue=other)) == []
    assert all_of(queues, mine) == ["secret"]


def test_services_are_apart_but_all_see_what_came_by_the_door_without_one(queues: Queues) -> None:
    one, two, none = (QueueName(name, "sink") for name in ("one", "two", ""))
    put(queues, "1", queue=one)
    put(queues, "0", queue=none)
    assert all_of(queues, one) == ["1", "0"]
    assert all_of(queues, two) == all_of(queues, none) == ["0"]
    first, second = watch(queues, queue=one), watch(queues, queue=two)
    assert texts(queues.take(first)) == ["1", "0"]
    assert queues.take(second) == []  # one group: each entry goes to one of them


# Watching


def test_a_window_bounds_what_a_watcher_holds(queues: Queues) -> None:
    put(queues, *"123456")
    consumer = watch(queues, window=2)
    held = queues.take(consumer)
    assert texts(held) == ["1", "2"]
    assert queues.take(consumer) == []
    queues.commit(SINK, "eas", [held[1].index])
    assert texts(queues.take(consumer)) == ["3"]
    assert texts(queues.take(consumer, [held[0].index])) == ["4"]
    assert all_of(queues) == ["3", "4", "5", "6"]


def test_the_urgent_come_first(queues: Queues) -> None:
    put(queues, "normal")
    put(queues, "urgent", priority=1)
    put(queues, "more urgent", priority=2)
    assert texts(queues.take(watch(queues))) == ["more urgent", "urgent", "normal"]


def test_one_group_shares_and_two_groups_both_get_everything(queues: Queues) -> None:
    put(queues, *"1234")
    a, b, other = watch(queues, uid="a", window=2), watch(queues, uid="b"), watch(queues, group="archive", uid="a")
    of_a, of_b, of_other = queues.take(a), queues.take(b), queues.take(other)
    assert (texts(of_a), texts(of_b), texts(of_other)) == (["1", "2"], ["3", "4"], ["1", "2", "3", "4"])
    queues.commit(SINK, "eas", [item.index for item in of_a + of_b])
    assert all_of(queues) == ["1", "2", "3", "4"]  # the archive still has them
    assert queues.take(a) == []
    queues.commit(SINK, "archive", [item.index for item in of_other[:3]])
    assert all_of(queues) == ["4"]


def test_a_group_keeps_only_what_it_wants(queues: Queues) -> None:
    watch(queues, group="reds", colour="red")
    (before,) = put(queues, "plain")
    (red,) = put(queues, "red", colour="red")
    watch(queues, group="late", start=NEWEST)
    queues.commit(SINK, "eas", [before, red])
    assert all_of(queues) == ["red"]


def test_a_group_that_never_comes_back_keeps_nothing_for_ever(queues: Queues, clock: Clock) -> None:
    gone = watch(queues, group="gone")
    clock.now += 2 * DAY  # it was there all the time
    queues.detach(gone)
    put(queues, "x")
    consumer = watch(queues)
    queues.commit(SINK, "eas", [queues.take(consumer)[0].index])
    assert all_of(queues) == ["x"]
    clock.now += DAY + 1
    assert queues.take(watch(queues)) == []
    assert all_of(queues) == []


def test_what_a_watcher_leaves_is_delivered_again(queues: Queues) -> None:
    put(queues, *"123")
    a, b = watch(queues, uid="a", window=2), watch(queues, uid="b", window=1)
    assert texts(queues.take(a)) == ["1", "2"]
    assert texts(queues.take(b, [queues.take(b)[0].index])) == []
    queues.detach(a)
    queues.detach(a)
    assert queues.take(a) is None
    assert texts(queues.take(b)) == ["1"]
    assert texts(queues.take(watch(queues, uid="a"))) == ["2"]


def test_a_commit_counts_also_after_one_has_left(queues: Queues) -> None:
    put(queues, "1")
    a = watch(queues)
    index = queues.take(a)[0].index
    queues.detach(a)
    queues.commit(SINK, "eas", [index])
    assert queues.take(watch(queues, uid="b")) == []


def test_the_last_to_come_with_a_name_takes_over(queues: Queues) -> None:
    put(queues, "1")
    old = watch(queues)
    queues.take(old)
    new = watch(queues)
    assert texts(queues.take(new)) == ["1"]
    assert queues.take(old) is None
    queues.detach(old)
    assert queues.take(new) == []


def test_what_is_refused_goes_to_another_with_the_reason(queues: Queues) -> None:
    (index,) = put(queues, "1")
    a = watch(queues, uid="a")
    queues.take(a)
    queues.refuse(SINK, "eas", "a", [index], "Busy: later")
    assert [item.message for item in queues.take(a)] == ["Busy: later"]  # nobody else is there
    b = watch(queues, uid="b")
    queues.refuse(SINK, "eas", "a", [index], "Busy")
    assert queues.take(a) == []
    assert texts(queues.take(b)) == ["1"]


def test_a_watcher_of_the_newest_gets_what_comes_later_and_again_when_it_comes_back(queues: Queues) -> None:
    put(queues, "old")
    consumer = watch(queues, start=NEWEST)
    put(queues, "new")
    assert texts(queues.take(consumer)) == ["new"]
    queues.detach(consumer)
    put(queues, "meanwhile")
    assert texts(queues.take(watch(queues, start=NEWEST))) == ["new", "meanwhile"]


def test_a_watcher_may_begin_later_and_want_only_some(queues: Queues) -> None:
    put(queues, "1", kind="a")
    _, later = put(queues, "2", "3", kind="b")
    put(queues, "4", kind="a")
    assert texts(queues.take(watch(queues, uid="a", start=later))) == ["3", "4"]
    assert texts(queues.take(watch(queues, uid="b", kind="a"))) == ["1"]


def test_deleted_entries_leave_every_window(queues: Queues) -> None:
    put(queues, *"12")
    consumer = watch(queues, window=1)
    (held,) = queues.take(consumer)
    queues.delete(SINK, [held.index])
    assert texts(queues.take(consumer)) == ["2"]


def test_attributes_say_who_watches(queues: Queues, clock: Clock) -> None:
    first, last = put(queues, "1", "2")
    a, b = watch(queues, uid="a", window=5, colour="red"), watch(queues, uid="b", window=1)
    queues.take(b)
    clock.now += 2.5
    said = queues.attributes(SINK)
    assert (said["stream.length"], said["stream.firstEntry"], said["stream.lastEntry"]) == ("2", str(first), str(last))
    assert (said["stream.approxMaxLength"], said["consumers.stats.total"]) == ("20", "2")
    line = "Index: 0, Pending: 0, Status: Running, Idle: 2.500s, Window: 5, Slots: 5, AutoCommit: false, Tags: tags[colour=red]"
    assert said["consumers.list.[0]"] == f"Id: eas.a, {line}"
    assert f"Id: eas.b, Index: {first}, Pending: 1, Status: Running, Idle: 2.500s, Window: 1, Slots: 0" in said["consumers.list.[1]"]
    queues.detach(a)
    queues.detach(b)
    assert "Status: Complete" in queues.attributes(SINK)["consumers.list.[0]"]
    assert "Status: Leaving" in queues.attributes(SINK)["consumers.list.[1]"]
    clock.now += 61
    assert "Status: Exit" in queues.attributes(SINK)["consumers.list.[1]"]


def test_only_the_last_of_those_who_left_are_remembered(queues: Queues) -> None:
    for number in range(100):
        queues.detach(watch(queues, uid=str(number)))
    watch(queues, uid="here")
    assert queues.attributes(SINK)["consumers.stats.total"] == "65"


def test_search_tells_the_place_in_the_line(queues: Queues) -> None:
    first, second = put(queues, "1", "2")
    (urgent,) = put(queues, "3", priority=1)
    assert queues.search(SINK, "eas", second) == Place(waiting=2)
    assert queues.search(SINK, "eas", urgent) == Place(waiting=0)
    queues.take(watch(queues, window=2))
    assert queues.search(SINK, "eas", first) == Place("eas.a", is_pending=True)
    assert queues.search(SINK, "eas", 99_999) is None


def test_listeners_hear_of_every_change_until_they_stop(queues: Queues) -> None:
    heard = []
    stop = queues.subscribe(lambda kind, owner: heard.append((kind, owner)))
    (index,) = put(queues, "1")
    queues.commit(SINK, "eas", [index])
    assert heard == [("sink", "")] * 2
    stop()
    put(queues, "2")
    assert len(heard) == 2


# Requests


def test_a_request_is_open_until_its_result_is_in_the_sink(queues: Queues) -> None:
    item = queues.accept(INPUT, Entry(b"{}", {"task_id": "t1"}, priority=3))
    assert [(r.id, r.tags["task_id"], r.priority, r.data) for r in queues.outstanding()] == [(item.request_id, "t1", 3, b"{}")]
    assert all_of(queues, INPUT) == ["{}"]
    assert queues.finish(item.request_id, b"[1]")
    (result,) = queues.read(SINK, Wanted())
    assert (result.data, result.tags) == (b"[1]", {"requestId": item.request_id, "task_id": "t1"})
    assert result.index > item.index
    assert all_of(queues, INPUT) == []
    assert queues.outstanding() == []
    assert not queues.finish(item.request_id, b"[2]")
    assert all_of(queues) == ["[1]"]


def test_a_result_comes_even_if_the_request_was_deleted_or_the_sink_is_full(queues: Queues) -> None:
    item = queues.accept(INPUT, Entry(b"{}"))
    assert queues.delete(INPUT, [item.index]) == [item.request_id]
    assert [request.data for request in queues.outstanding()] == [None]
    put(queues, *"x" * 20)
    assert queues.finish(item.request_id, b"y" * 9_000)
    assert queues.count(SINK) == 21


def test_nothing_is_accepted_while_nobody_fetches_the_results(queues: Queues) -> None:
    put(queues, *"x" * 20)
    with pytest.raises(QueueFullError, match="sink queue is full"):
        queues.accept(INPUT, Entry(b"{}"))
    assert queues.outstanding() == []
    assert all_of(queues, INPUT) == []


def test_a_request_id_is_accepted_once(queues: Queues) -> None:
    queues.accept(INPUT, Entry(b"1", {"requestId": "same"}))
    with pytest.raises(InputError, match="in use"):
        queues.accept(INPUT, Entry(b"2", {"requestId": "same"}))
    assert all_of(queues, INPUT) == ["1"]


def test_a_forgotten_request_has_never_been(queues: Queues) -> None:
    item = queues.accept(INPUT, Entry(b"1"))
    queues.forget(item.request_id)
    assert queues.outstanding() == []
    assert all_of(queues, INPUT) == []
    assert not queues.finish(item.request_id, b"x")


def test_the_line_of_an_input_queue_is_everybodys(queues: Queues) -> None:
    running = queues.accept(QueueName("other", "input", "bob"), Entry(b"1"))
    queues.accept(QueueName("svd", "input", "bob"), Entry(b"2"))
    mine = queues.accept(INPUT, Entry(b"3"))
    assert queues.search(INPUT, "eas", mine.index) == Place(waiting=2)
    queues.start(running.request_id)
    assert queues.search(INPUT, "eas", mine.index) == Place(waiting=1)
    queues.start(mine.request_id)
    assert queues.search(INPUT, "eas", mine.index) == Place("stillmotion.worker", is_pending=True)


# Files, threads, processes


def test_everything_is_there_after_a_restart_and_what_was_held_is_free(queues: Queues, tmp_path: Path) -> None:
    put(queues, "committed", "held", "waiting")
    consumer = watch(queues, window=2)
    queues.commit(SINK, "eas", [queues.take(consumer)[0].index])
    accepted = queues.accept(INPUT, Entry(b"{}"))
    queues.close()
    again = Queues(tmp_path / "queues.db")
    assert texts(again.take(watch(again))) == ["held", "waiting"]
    assert [request.id for request in again.outstanding()] == [accepted.request_id]
    again.close()


def test_every_put_that_returned_survives_a_kill(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from jobs.consumers import QueueName
from jobs.queue_items import Entry
from jobs.queues import Queues
queues = Queues(Path(sys.argv[1]))
while True:
    print(queues.accept(QueueName("svd", "input"), Entry(b"x" * 1000)).request_id, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "queues.db")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with child:
        said = [child.stdout.readline().strip() for _ in range(20)]
        os.kill(child.pid, signal.SIGKILL)
        said += [line.strip() for line in child.stdout if line.endswith("\n")]
    queues = Queues(tmp_path / "queues.db")
    found = {request.id: request.data for request in queues.outstanding()}
    assert set(said) <= set(found)
    assert set(found.values()) == {b"x" * 1000}
    queues.close()


def test_threads_share_entries_without_losing_or_doubling_any(tmp_path: Path) -> None:
    queues, taken, lock = Queues(tmp_path / "queues.db"), [], threading.Lock()
    put(queues, *(str(number) for number in range(60)))

    def work(uid: str) -> None:
        consumer = watch(queues, uid=uid, window=3)
        while items := queues.take(consumer):
            queues.commit(SINK, "eas", [item.index for item in items])
            with lock:
                taken.extend(texts(items))

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, taken)) == list(range(60))
    assert all_of(queues) == []
    queues.close()


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "queues.db").write_text("not a database, but long enough to be read as a header of one" * 20)
    with pytest.raises(StorageError):
        Queues(tmp_path / "queues.db")
