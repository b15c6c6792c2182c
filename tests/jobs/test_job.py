from __future__ import annotations

from errors import CheckpointError
from jobs.job import Failure, JobStatus, Outcome, Output

SHOWN = {
    "9": {"images": [{"filename": "a_00001_.png", "subfolder": "trips", "type": "output"}], "animated": [True]},
    "19": {"gifs": [{"filename": "b.mp4", "type": "temp", "bytes": 12}], "text": ["hello"], "note": "x"},
}


def test_files_are_read_from_what_the_nodes_show() -> None:
    files = Outcome(SHOWN).all_files()
    assert files == (Output("9", "images", "a_00001_.png", "trips"), Output("19", "gifs", "b.mp4", "", "temp", 12))


def test_files_with_sizes_count_more() -> None:
    given = (Output("9", "images", "a.png", bytes=7),)
    assert Outcome(SHOWN, files=given).all_files() == given


def test_only_three_statuses_are_an_end() -> None:
    assert [status.value for status in JobStatus if status.is_ended] == ["succeeded", "failed", "canceled"]


def test_a_failure_takes_over_what_an_error_knows() -> None:
    error = CheckpointError("It is half.", "Copy it again.")
    assert Failure.of(error) == Failure("bad_checkpoint", "It is half.", "Copy it again.")
    error.node, error.details = 4, {"file": "x"}
    assert (Failure.of(error).node, Failure.of(error).details) == ("4", {"file": "x"})
