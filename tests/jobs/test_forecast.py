from __future__ import annotations

import pytest

from jobs.estimates import estimate
from jobs.forecast import FRESH_SECONDS, Forecasts, forecast, queue_seconds
from jobs.job import Outcome
from jobs.progress import Board, JobEvent
from workflows.workload import Work


@pytest.fixture
def known(submit, run_one) -> None:
    """Small jobs take ten seconds, large ones a hundred."""
    for work, seconds in (("small", 10), ("large", 100)):
        submit(work=work)
        run_one(seconds)


def test_a_job_waits_for_those_before_it(known, submit, store, clock) -> None:
    running, small, large = (submit(work=work).id for work in ("large", "small", "large"))
    store.claim("test")
    clock.advance(30)
    found = forecast(store)
    assert (found[running].place, found[running].remaining_seconds) == (None, 70)
    assert (found[small].place, found[small].remaining_seconds) == (1, 80)
    assert (found[large].place, found[large].remaining_seconds) == (2, 180)


def test_after_one_that_nobody_can_tell_nobody_can_tell(known, submit, store) -> None:
    small, strange, last = (submit(work=work).id for work in ("small", "strange", "small"))
    found = forecast(store)
    assert [found[one].remaining_seconds for one in (small, strange, last)] == [10, None, None]
    assert [found[one].place for one in (small, strange, last)] == [1, 2, 3]


def test_while_the_queue_is_paused_only_what_runs_comes_to_an_end(known, submit, store) -> None:
    running, waiting = submit(work="small").id, submit(work="small").id
    store.claim("test")
    store.pause()
    found = forecast(store)
    assert (found[running].remaining_seconds, found[waiting].remaining_seconds, found[waiting].place) == (10, None, 1)


def test_the_time_that_is_left_counts_from_the_start_and_is_never_negative(known, submit, store, clock) -> None:
    job_id = submit(work="small").id
    clock.advance(1000)
    store.claim("test")
    for passed, left in ((4, 6), (40, 0), (-3600, 10)):
        clock.advance(passed)
        assert forecast(store)[job_id].remaining_seconds == left


def test_while_models_are_loaded_the_clock_stands(known, submit, store, clock) -> None:
    board = Board(clock)
    store.tell = board.publish
    job_id = submit(work="small").id
    forecasts = Forecasts(store, board.seconds_at_work, steady=clock)
    store.claim("test")
    for stage, passed, left in (("loading", 30, 10), ("still", 4, 6), ("loading", 20, 6), ("motion", 5, 1), ("decoding", 9, 0)):
        board.publish(JobEvent(job_id, "progress", {"node_id": "", "stage": stage, "step": 0, "total": 0}))
        clock.advance(passed)
        assert forecasts.of([job_id])[job_id].remaining_seconds == queue_seconds(store, board.seconds_at_work) == left
    assert board.newest(job_id).seconds == 9.0  # when it was told last


@pytest.mark.parametrize("side", [64, 96, 128])
def test_the_form_the_queue_and_the_panel_tell_the_same_number(submit, run_one, store, side: int) -> None:
    def work(side: int) -> list[Work]:
        return [Work("3", "still", "a", 20, side, side, 1), Work("13", "motion", "b", 10, side, side, 14)]

    def name(side: int) -> str:
        return "+".join(map(str, work(side)))

    models = {"4": {"inputs": {"ckpt_name": "a"}}}
    for measured in (64, 128):
        submit(work=name(measured), workflow=models)
        run_one(measured, Outcome(stage_seconds={"still": measured / 4, "motion": measured / 2}, device="cpu"))
    before = estimate(store, work(side), models).seconds
    assert before is not None
    job_id = submit(work=name(side), workflow=models).id
    assert forecast(store)[job_id].remaining_seconds == queue_seconds(store) == round(before, 1)
    store.claim("test")
    assert forecast(store)[job_id].remaining_seconds == queue_seconds(store) == round(before, 1)
    others = submit(work=name(side), workflow={"4": {"inputs": {"ckpt_name": "another"}}}).id
    assert (forecast(store)[others].remaining_seconds, queue_seconds(store)) == (None, None)


def test_what_was_measured_is_kept_until_another_has_succeeded(submit, run_one, store, clock) -> None:
    forecasts, waiting = Forecasts(store, steady=clock), submit(work="small").id
    assert forecasts.of([waiting])[waiting].remaining_seconds is None
    submit(work="small", front=True)
    run_one(10)
    assert forecasts.of([waiting], is_changed=True)[waiting].remaining_seconds == 10


def test_the_wait_is_that_of_all_who_are_there(known, submit, store) -> None:
    for _ in range(2):
        submit(work="small")
    assert queue_seconds(store) == 20
    store.pause()
    assert queue_seconds(store) is None
    store.resume()
    submit(work="strange")
    assert queue_seconds(store) is None


def test_several_are_done_side_by_side(known, submit, store, clock) -> None:
    large, small, third, fourth = (submit(work=work).id for work in ("large", "small", "small", "large"))
    assert store.claim("one").id == large
    assert store.claim("two").id == small
    clock.advance(4)
    found = forecast(store, hands=2)
    assert [found[one].remaining_seconds for one in (large, small, third, fourth)] == [96, 6, 16, 116]
    assert queue_seconds(store, hands=2) == 96
    assert queue_seconds(store, hands=3) == 10  # the third hand does the third job


def test_a_hand_that_nobody_knows_of_is_not_counted_on(known, submit, store) -> None:
    strange, small, last = (submit(work=work).id for work in ("strange", "small", "small"))
    found = forecast(store, hands=2)
    assert [found[one].remaining_seconds for one in (strange, small, last)] == [None, 10, 20]
    assert (queue_seconds(store, hands=2), queue_seconds(store, hands=1)) == (20, None)


def test_what_waits_in_a_paused_queue_is_held(known, submit, store) -> None:
    running, waiting = submit(work="small").id, submit(work="small").id
    store.claim("test")
    store.pause()
    assert [forecast(store)[one].is_held for one in (running, waiting)] == [False, True]
    store.resume()
    assert not forecast(store)[waiting].is_held


def test_nothing_to_do(store) -> None:
    assert forecast(store) == {}


def test_many_who_ask_at_once_get_the_same_until_it_is_old_or_too_little(submit, store, clock) -> None:
    forecasts, first = Forecasts(store, steady=clock), submit().id
    found = forecasts.of([first])
    assert forecasts.of([first]) is found
    second = submit().id
    assert forecasts.of([first]) is found
    assert forecasts.of([second])[second].place == 2
    store.move(second, to="front")
    assert forecasts.of([second])[second].place == 2
    assert forecasts.of([second], is_changed=True)[second].place == 1
    store.move(second, to="back")
    clock.advance(FRESH_SECONDS)
    assert forecasts.of([second])[second].place == 2
