from __future__ import annotations

import json

import pytest

from benchmarks import ahead
from tests.conftest import MOTION_NAME, STILL_NAME

SMALL = ["--width", "64", "--height", "48", "--steps", "1", "--rounds", "1", "--jobs", "2"]


@pytest.mark.parametrize("motion", [[], ["--motion", MOTION_NAME, "--frames", "2", "--motion-steps", "1"]], ids=["stills", "films"])
def test_a_queue_is_done_both_ways_and_makes_the_same(motion, tiny_models, capsys):
    files = ["--models", str(tiny_models / "checkpoints"), "--still", STILL_NAME]
    assert ahead.main([*files, *motion, *SMALL]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["is_same"]
    assert [row["jobs"] for row in found["rows"]] == [2, 2]
    assert all(row["seconds"] > row["loading_s"] >= 0 for row in found["rows"])
    assert found["rows"][0]["loading_s"] > 0
