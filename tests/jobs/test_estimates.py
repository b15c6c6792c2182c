from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.estimates import Estimate, Measured, estimate, work_of
from jobs.job import Failure, Outcome, Output
from workflows.workload import Work

SMALL = [Work("3", "still", "a", 20, 64, 64, 1), Work("13", "motion", "b", 10, 64, 64, 14)]
LARGE = [Work("3", "still", "a", 20, 128, 128, 1), Work("13", "motion", "b", 10, 128, 128, 14)]
MIDDLE = [Work("3", "still", "a", 20, 96, 96, 1), Work("13", "motion", "b", 10, 96, 96, 14)]
HUGE = [Work("3", "still", "a", 20, 1024, 1024, 1), Work("13", "motion", "b", 10, 1024, 1024, 14)]
MODELS = {"4": {"class_type": "X", "inputs": {"ckpt_name": "a"}}, "18": {"class_type": "X", "inputs": {"ckpt_name": "b"}}}
OTHER = {"4": {"class_type": "X", "inputs": {"ckpt_name": "z"}}, "18": {"class_type": "X", "inputs": {"ckpt_name": "b"}}}


@pytest.fixture
def done(submit, run_one) -> Callable[..., None]:
    """A job that takes so many seconds in its stages, and one besides; those of loading do not count."""

    def done(work: list[Work], workflow: dict = MODELS, size: int = 1000, **more: Any) -> None:
        pixels = work[0].width * work[0].height / 4096
        stages = more.pop("stage_seconds", {"loading": 2.0, "still": 1 + pixels, "motion": 4 * pixels, "encoding": pixels})
        files = (
            Output("9", "images", "a.png", bytes=size), Output("19", "beside", "a.json", bytes=10**9),
            Output("8", "images", "t.png", type="temp", bytes=10**9),
        )  # fmt: skip
        submit(work="+".join(map(str, work)), workflow=workflow)
        run_one(sum(stages.values()) + 1, Outcome(stage_seconds=stages, device=more.pop("device", "cuda:0"), files=files, **more))

    return done


def test_nothing_is_known_at_first(store) -> None:
    assert estimate(store, SMALL, MODELS) == Estimate()
    assert estimate(store, [], {}) == Estimate()


def test_jobs_of_the_same_work_tell_it_and_say_how_many_they_are(store, done) -> None:
    for size in (1000, 3000, 2000):
        done(SMALL, size=size, peak_bytes=size * 7)
    found = estimate(store, SMALL, MODELS)
    assert (found.seconds, found.basis) == (8.0, "3 similar jobs")
    assert found.seconds == Measured(store).seconds("+".join(map(str, SMALL)), ("a", "b"))
    assert (found.bytes, found.memory_bytes) == (2000, 21000)


def test_what_came_from_the_cache_says_nothing_of_seconds(store, done) -> None:
    done(SMALL, is_whole=False)
    assert estimate(store, SMALL, MODELS) == Estimate(bytes=1000)


def test_other_sizes_are_scaled_in_each_stage(store, done) -> None:
    done(SMALL, size=1000)
    done(LARGE, size=4000)
    found = estimate(store, MIDDLE, MODELS)
    pixels = 96 * 96 / 4096
    assert found.seconds == pytest.approx(1 + pixels + 4 * pixels + pixels + 1)
    assert found.basis == "scaled from 2 jobs of other sizes"
    assert (found.bytes, found.memory_bytes) == (2250, None)


def test_one_other_size_grows_as_a_whole(store, done) -> None:
    done(SMALL)
    found = estimate(store, LARGE, MODELS)
    assert found.seconds == pytest.approx(4 * 2 + 4 * 4 + 4 + 1)
    assert found.basis == "scaled from 1 job of other sizes"


@pytest.mark.parametrize(
    "other", [{"workflow": OTHER}, {"device": "cpu", "last": "cuda:0"}, {"is_whole": False}, {"work": SMALL[:1]}, {"work": HUGE}]
)
def test_nothing_is_said_rather_than_a_guess(store, done, other: dict[str, Any]) -> None:
    last = other.pop("last", None)
    done(other.pop("work", SMALL), **other)
    if last:
        done(SMALL[:1], device=last)
    assert estimate(store, LARGE, MODELS).seconds is None


def test_the_same_work_by_other_models_or_on_another_device_is_another(store, done) -> None:
    done(SMALL, workflow=OTHER)
    assert estimate(store, SMALL, MODELS) == Estimate()
    done(SMALL, device="cpu", peak_bytes=5)
    assert estimate(store, SMALL, MODELS).basis == "1 similar job"
    done(LARGE[:1], device="cuda:0")
    found = estimate(store, SMALL, MODELS)
    assert (found.seconds, found.basis, found.memory_bytes, found.bytes) == (None, None, None, 1000)


def test_a_size_that_nobody_can_tell_is_not_scaled(store, done) -> None:
    done(SMALL)
    unknown = [SMALL[0], Work("13", "motion", "b", 10, 0, 0, 1)]
    assert estimate(store, unknown, MODELS).seconds is None


def test_a_stage_that_took_longer_for_less_never_makes_it_negative(store, done) -> None:
    done(SMALL, stage_seconds={"motion": 10.0})
    done(LARGE, stage_seconds={"motion": 2.0})
    assert estimate(store, HUGE[:0] + MIDDLE, MODELS).seconds == 7.0


def test_the_same_work_is_the_median_of_the_last_runs(store, submit, run_one) -> None:
    for seconds in (500, *range(1, 21)):
        submit(work="w")
        run_one(seconds)
    submit(work="other")
    run_one(100)
    assert Measured(store).seconds("w", ()) == 10.5
    assert Measured(store).seconds("none", ()) is Measured(store).seconds("", ()) is None


def test_only_whole_runs_of_the_device_that_was_used_last_count(store, submit, run_one) -> None:
    for device, seconds in (("cpu", 90), ("cuda", 3)):
        submit(work="w")
        run_one(seconds, Outcome(device=device))
    submit(work="w")
    run_one(0.1, Outcome(device="cuda", is_whole=False))
    submit(work="w")
    store.fail(store.claim("test").id, Failure("x", "y"), Outcome(device="cuda"))
    assert Measured(store).seconds("w", ()) == 3


def test_work_is_read_as_it_was_written() -> None:
    assert list(map(str, work_of("+".join(map(str, SMALL))))) == list(map(str, SMALL))
    assert work_of("") == work_of("much") == work_of("still:1x2") == []
