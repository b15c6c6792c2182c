from __future__ import annotations

import threading

from jobs.progress import Board, JobEvent, progress_data
from pipelines.progress import Progress


def tell(board: Board, kind: str, job_id: str = "a", **data: object) -> None:
    board.publish(JobEvent(job_id, kind, data))


def test_the_newest_progress_is_known(clock):
    board = Board(clock)
    assert board.newest("a") is None
    tell(board, "queued")
    assert board.newest("a") is None
    tell(board, "started")
    started = clock.now
    clock.advance(2)
    tell(board, "node", node_id="3")
    tell(board, "progress", **progress_data(Progress("still", 4, 20)))
    tell(board, "preview", image=b"jpeg", format="jpeg")
    tell(board, "output", node_id="9", ui={})
    snapshot = board.newest("a")
    assert (snapshot.status, snapshot.node, snapshot.stage, snapshot.step, snapshot.total) == ("running", "3", "still", 4, 20)
    assert (snapshot.started, snapshot.seconds, snapshot.preview) == (started, 2, b"jpeg")
    assert [one.job_id for one in board.running()] == ["a"]
    tell(board, "progress", **progress_data(Progress("motion", 0, 9), "13"))
    assert board.newest("a").node == "13"


def test_an_ended_job_is_remembered_for_a_while_without_its_preview(clock):
    board = Board(clock)
    for kind, status in (("succeeded", "succeeded"), ("requeued", "queued"), ("canceled", "canceled")):
        tell(board, "started")
        tell(board, "preview", image=b"jpeg")
        clock.advance(3)
        tell(board, kind)
        snapshot = board.newest("a")
        assert (snapshot.status, snapshot.seconds, snapshot.preview, board.running()) == (status, 3, b"", [])
    for number in range(300):
        tell(board, "started", str(number))
        tell(board, "failed", str(number))
    assert board.newest("a") is None
    assert board.newest("299").status == "failed"


def test_a_job_that_waits_again_has_no_progress(clock):
    board = Board(clock)
    tell(board, "failed")
    tell(board, "queued")
    assert board.newest("a") is None


def test_a_clock_that_is_set_back_gives_no_negative_time(clock):
    board = Board(clock)
    tell(board, "started")
    clock.advance(-3600)
    tell(board, "node", node_id="1")
    assert board.newest("a").seconds == 0


def test_who_waits_is_woken_by_the_next_news():
    board = Board()
    tell(board, "started")
    version = board.newest("a").version
    assert board.wait("a").version == version
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(board.wait("a", version, 30)))
    thread.start()
    tell(board, "started", "b")  # not the one
    tell(board, "node", node_id="3")
    thread.join(10)
    assert [snapshot.node for snapshot in got] == ["3"]


def test_who_waits_for_the_end_hears_of_it():
    board = Board()
    tell(board, "started")
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(board.wait("a", board.newest("a").version, 30)))
    thread.start()
    tell(board, "succeeded")
    thread.join(10)
    assert [snapshot.status for snapshot in got] == ["succeeded"]


def test_waiting_ends_when_nothing_comes():
    board = Board()
    assert board.wait("a", timeout=0.01) is None
    tell(board, "started")
    assert board.wait("a", board.newest("a").version, timeout=0.01) is None


def test_subscribers_hear_everything_in_order_until_they_leave():
    board, first, second = Board(), [], []
    leave = board.subscribe(first.append)
    board.subscribe(second.append)
    tell(board, "started")
    leave()
    leave()
    tell(board, "failed")
    assert [event.kind for event in first] == ["started"]
    assert [event.kind for event in second] == ["started", "failed"]


def test_many_threads_are_heard_in_one_order():
    board, first, second = Board(), [], []
    board.subscribe(lambda event: first.append(event.data["n"]))
    board.subscribe(lambda event: second.append(event.data["n"]))

    def publish(thread: int) -> None:
        for number in range(100):
            tell(board, "paused", n=(thread, number))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert first == second
    assert len(first) == 400
    assert all([n for t, n in first if t == thread] == list(range(100)) for thread in range(4))


def test_a_subscriber_that_fails_does_not_stop_the_others(caplog):
    board, heard = Board(), []
    board.subscribe(lambda event: 1 / 0)
    board.subscribe(heard.append)
    tell(board, "started")
    assert len(heard) == 1
    assert "A subscriber failed at started of job a" in caplog.text
